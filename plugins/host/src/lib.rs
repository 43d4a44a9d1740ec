//! What every filter needs of its host: byte-safe headers, clocks, configuration, replies.
