//! What the fakes of OpenAI and of Anthropic share: answers, faults, the record, streams.
//!
//! Each dialect reads requests and words its answers itself; what an answer
//! says, what goes wrong with it and what is written down is decided here.

pub(crate) mod control;
pub(crate) mod faults;
pub(crate) mod log;

pub(crate) mod body;
pub(crate) mod media;
pub(crate) mod params;
pub(crate) mod prompt;

pub(crate) mod answers;
pub(crate) mod schema;
pub(crate) mod tools;

pub(crate) mod reply;
pub(crate) mod stream;

pub(crate) mod tokens;
