//! Decides what kind of work a request asks for.
