//! Golden translations between the dialects, each with its whole input and
//! output, and a table of what is refused.
#![cfg(not(target_arch = "wasm32"))]

mod answers;
mod golden;
mod refusals;
mod requests;
mod streams;
