//! Decides how usage becomes postings, intents and Stripe meter events.
