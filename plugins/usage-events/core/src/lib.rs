//! Decides what a request used.
