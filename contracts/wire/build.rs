//! Compiles `contracts/proto` in pure Rust (protox), so that a build needs no
//! protoc, and keeps the descriptors for gRPC reflection.

use prost::Message as _;
use std::{env, fs, io, path::PathBuf};

const PROTOS: [&str; 5] = [
    "weir/context/v1/context.proto",
    "weir/directory/v1/directory.proto",
    "weir/quota/v1/quota.proto",
    "weir/router/v1/router.proto",
    "weir/usage/v1/usage.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from("../proto");
    println!("cargo:rerun-if-changed=../proto");
    let descriptors = protox::compile(PROTOS, [&root])?;
    let out = PathBuf::from(env::var("OUT_DIR").map_err(io::Error::other)?);
    let bytes = descriptors.encode_to_vec();
    fs::write(out.join("descriptors.bin"), &bytes)?;
    prost_build::Config::new().compile_fds(descriptors)?;
    pbjson_build::Builder::new()
        .register_descriptors(&bytes)?
        .build(&[".weir.usage.v1"])?;
    Ok(())
}
