//! The filters in the real Envoy.
