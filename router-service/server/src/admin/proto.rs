//! What `build.rs` makes of `contracts/proto/weir/admin`.

include!(concat!(env!("OUT_DIR"), "/admin_services.rs"));

pub use weir::admin::v1::*;

/// The descriptors of it, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/admin_descriptors.bin"));
