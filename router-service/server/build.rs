//! Compiles the services that the router answers by gRPC, beside what
//! `contracts/wire` has of their messages, and keeps the descriptors for
//! reflection.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use prost::Message as _;

const ROOT: &str = "../../contracts/proto";

/// The quota service's port.
const QUOTA: [&str; 2] = [
    "weir/quota/v1/quota.proto",
    "envoy/service/ratelimit/v3/rls.proto",
];

/// What operators call.
const ADMIN: [&str; 1] = ["weir/admin/v1/admin.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed={ROOT}");
    let out = PathBuf::from(env::var("OUT_DIR").map_err(io::Error::other)?);
    compile(&QUOTA, &out, "descriptors.bin", "services.rs")?;
    compile(&ADMIN, &out, "admin_descriptors.bin", "admin_services.rs")
}

fn compile(
    protos: &[&str],
    out: &Path,
    descriptors_name: &str,
    services_name: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let descriptors = protox::compile(protos, [ROOT])?;
    fs::write(out.join(descriptors_name), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .extern_path(".weir.quota.v1", "::weir_wire::proto::quota")
        // They hold a key, which no log is to have.
        .skip_debug([
            ".weir.admin.v1.MakeKeyResponse",
            ".weir.admin.v1.RotateKeyResponse",
        ])
        // The tests' side of it.
        .client_mod_attribute(".", "#[cfg(test)]")
        .include_file(services_name)
        .compile_fds(descriptors)?;
    Ok(())
}
