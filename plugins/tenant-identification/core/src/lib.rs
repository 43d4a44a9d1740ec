//! Decides who a request is made for.
