//! Compiles the services that the router answers by gRPC, beside what
//! `contracts/wire` has of their messages, and keeps the descriptors for
//! reflection.

use std::{env, fs, io, path::PathBuf};

use prost::Message as _;

const PROTOS: [&str; 6] = [
    "weir/admin/v1/admin.proto",
    "weir/admin/v1/providers.proto",
    "weir/directory/v1/directory.proto",
    "weir/quota/v1/quota.proto",
    "weir/router/v1/router.proto",
    "envoy/service/ratelimit/v3/rls.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from("../../contracts/proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let descriptors = protox::compile(PROTOS, [&root])?;
    let out = PathBuf::from(env::var("OUT_DIR").map_err(io::Error::other)?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .extern_path(".weir.directory.v1", "::weir_wire::proto::directory")
        .extern_path(".weir.quota.v1", "::weir_wire::proto::quota")
        .extern_path(".weir.router.v1", "::weir_wire::proto::router")
        // They hold a key, which no log is to have.
        .skip_debug([
            ".weir.admin.v1.MakeKeyResponse",
            ".weir.admin.v1.RotateKeyResponse",
        ])
        // The tests' side of it.
        .client_mod_attribute(".", "#[cfg(test)]")
        .include_file("services.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
