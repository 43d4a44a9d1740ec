//! The messages of `contracts/proto`, generated at build time. What each field
//! means stands in the `.proto` files.

/// `weir.context.v1`.
pub mod context {
    include!(concat!(env!("OUT_DIR"), "/weir.context.v1.rs"));
}

/// `weir.directory.v1`.
pub mod directory {
    include!(concat!(env!("OUT_DIR"), "/weir.directory.v1.rs"));
}

/// `weir.quota.v1`.
pub mod quota {
    include!(concat!(env!("OUT_DIR"), "/weir.quota.v1.rs"));
}

/// `weir.router.v1`.
pub mod router {
    include!(concat!(env!("OUT_DIR"), "/weir.router.v1.rs"));
}

/// `weir.usage.v1`, with its JSON mapping where the feature `json` is on.
pub mod usage {
    include!(concat!(env!("OUT_DIR"), "/weir.usage.v1.rs"));
    #[cfg(feature = "json")]
    include!(concat!(env!("OUT_DIR"), "/weir.usage.v1.serde.rs"));
}

/// The descriptors of all of them, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
