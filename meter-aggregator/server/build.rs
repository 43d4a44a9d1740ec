//! Compiles what the aggregator asks of the router's services by gRPC, and the service
//! that producers call, beside what `contracts/wire` has of its messages.

use std::path::PathBuf;

const PROTOS: [&str; 2] = ["weir/admin/v1/admin.proto", "weir/usage/v1/usage.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from("../../contracts/proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let descriptors = protox::compile(PROTOS, [&root])?;
    tonic_prost_build::configure()
        .extern_path(".weir.usage.v1", "::weir_wire::proto::usage")
        // The other side of each is a test's.
        .server_mod_attribute("weir.admin.v1", "#[cfg(test)]")
        .client_mod_attribute("weir.usage.v1", "#[cfg(test)]")
        // They hold a key, which no log is to have.
        .skip_debug([
            ".weir.admin.v1.MakeKeyResponse",
            ".weir.admin.v1.RotateKeyResponse",
        ])
        .include_file("services.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
