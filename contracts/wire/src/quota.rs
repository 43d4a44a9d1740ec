//! What gateways and the quota service agree on beside the messages of
//! `weir.quota.v1`.

/// Where a lease is asked for (the shape of unary Connect).
pub const ACQUIRE_PATH: &str = "/weir.quota.v1.QuotaService/Acquire";

/// Where leases are given back.
pub const CLOSE_PATH: &str = "/weir.quota.v1.QuotaService/Close";

/// The variable that holds the token for both, at the router and at the gateway.
pub const TOKEN_ENVIRONMENT: &str = "WEIR_QUOTA_TOKEN";

/// The bytes of a lease's name.
pub const LEASE_ID_BYTES: usize = 16;

/// The most limits that apply to one request.
pub const LIMITS_MAX: usize = 8;

/// The longest life of a lease, in milliseconds.
pub const LIFE_MAX_MS: u32 = 2_000;

/// The longest window through which the guarantee holds when a store loses what
/// it had counted, in seconds.
pub const FENCED_WINDOW_MAX_S: u32 = 120;

/// How long after a grant its epoch is still told, in milliseconds: the longest
/// fenced window, a lease, and what clocks may differ by in that time.
pub const EPOCH_TOLD_MS: u64 = FENCED_WINDOW_MAX_S as u64 * 1_000 + LIFE_MAX_MS as u64 + 3_000;
