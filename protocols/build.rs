//! Generates the ttrpc services of the launch and image APIs when the `rpc` feature asks for it.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=protos");
    if std::env::var_os("CARGO_FEATURE_RPC").is_none() {
        return Ok(());
    }
    let out = std::env::var("OUT_DIR")?;
    ttrpc_codegen::Codegen::new()
        .out_dir(&out)
        .inputs(["protos/launch.proto", "protos/cdh.proto"])
        .include("protos")
        .rust_protobuf()
        .customize(ttrpc_codegen::Customize { async_all: true, ..Default::default() })
        .run()?;
    // Generated files start with inner attributes, which `include!` does not take.
    for file in ["launch.rs", "launch_ttrpc.rs", "cdh.rs", "cdh_ttrpc.rs"] {
        let path = std::path::Path::new(&out).join(file);
        let text = std::fs::read_to_string(&path)?;
        let kept: Vec<&str> =
            text.lines().filter(|line| !line.starts_with("#![") && !line.starts_with("//!")).collect();
        std::fs::write(&path, kept.join("\n"))?;
    }
    Ok(())
}
