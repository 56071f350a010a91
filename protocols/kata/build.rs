//! Generates the messages and ttrpc services of `protos/kata`.

use std::path::Path;

use protobuf::descriptor::field_descriptor_proto::Type;
use protobuf::reflect::{EnumDescriptor, FieldDescriptor, MessageDescriptor};
use ttrpc_codegen::{Codegen, Customize, ProtobufCustomize, ProtobufCustomizeCallback};

const PROTOS: [&str; 5] = [
    "protos/kata/types.proto",
    "protos/kata/oci.proto",
    "protos/kata/csi.proto",
    "protos/kata/agent.proto",
    "protos/kata/health.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=protos");
    let out = std::env::var("OUT_DIR")?;
    Codegen::new()
        .out_dir(&out)
        .include("protos")
        .inputs(PROTOS)
        .rust_protobuf()
        .customize(Customize { async_all: true, ..Default::default() })
        .rust_protobuf_customize_callback(PolicyJson)
        .run()?;
    for file in std::fs::read_dir(&out)? {
        plain(&file?.path())?;
    }
    Ok(())
}

/// Generated files start with inner attributes, which `include!` does not take.
fn plain(path: &Path) -> std::io::Result<()> {
    if path.extension().is_none_or(|extension| extension != "rs") {
        return Ok(());
    }
    let text = std::fs::read_to_string(path)?;
    let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with("#![") && !line.starts_with("//!")).collect();
    std::fs::write(path, kept.join("\n"))
}

/// The JSON that policies match against: every field under its Rust name, an absent message as null, an enumeration
/// as its number.
struct PolicyJson;

const DERIVE: &str = "#[derive(::serde::Serialize)]";

impl ProtobufCustomizeCallback for PolicyJson {
    fn message(&self, _: &MessageDescriptor) -> ProtobufCustomize {
        ProtobufCustomize::default().before(DERIVE)
    }

    fn enumeration(&self, _: &EnumDescriptor) -> ProtobufCustomize {
        ProtobufCustomize::default().before(DERIVE)
    }

    fn field(&self, field: &FieldDescriptor) -> ProtobufCustomize {
        let with = match field.proto().type_() {
            Type::TYPE_ENUM => "crate::policy_json::number",
            Type::TYPE_MESSAGE if field.is_singular() => "crate::policy_json::message",
            _ => return ProtobufCustomize::default(),
        };
        ProtobufCustomize::default().before(&format!("#[serde(serialize_with = \"{with}\")]"))
    }

    fn special_field(&self, _: &MessageDescriptor, _: &str) -> ProtobufCustomize {
        ProtobufCustomize::default().before("#[serde(skip)]")
    }
}
