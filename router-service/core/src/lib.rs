//! Decides what the router does with a request: context, plan, model, rewriting, witness.
