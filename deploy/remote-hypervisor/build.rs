//! Generates the messages and the ttrpc service of `protos/hypervisor.proto`.

use ttrpc_codegen::{Codegen, Customize, ProtobufCustomize};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=protos");
    let out = std::env::var("OUT_DIR")?;
    Codegen::new()
        .out_dir(&out)
        .include("protos")
        .inputs(["protos/hypervisor.proto"])
        .rust_protobuf()
        .customize(Customize { async_all: true, ..Default::default() })
        .rust_protobuf_customize(ProtobufCustomize::default().gen_mod_rs(false))
        .run()?;
    for name in ["hypervisor.rs", "hypervisor_ttrpc.rs"] {
        // Generated files start with inner attributes, which `include!` does not take.
        let path = std::path::Path::new(&out).join(name);
        let text = std::fs::read_to_string(&path)?;
        let kept: Vec<&str> =
            text.lines().filter(|line| !line.starts_with("#![") && !line.starts_with("//!")).collect();
        std::fs::write(path, kept.join("\n"))?;
    }
    Ok(())
}
