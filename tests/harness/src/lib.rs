//! Starts gateways and services on free ports, for tests and for make run.
