//! The Kata agent protocol: `grpc.AgentService` and `grpc.Health` of kata-containers 4.1.0, generated from
//! `protos/kata`. `protocols` gives it to the other crates as `protocols::rpc::kata`.
//!
//! Messages serialise to the JSON that agent policies match against: Rust field names (`type` is `type_`), null for a
//! message that is not there, numbers for enumerations.

#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    nonstandard_style,
    unused
)]
#![allow(clippy::all)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::wildcard_imports)]
#![allow(clippy::cast_possible_truncation)]

pub mod types {
    include!(concat!(env!("OUT_DIR"), "/types.rs"));
}
pub mod oci {
    include!(concat!(env!("OUT_DIR"), "/oci.rs"));
}
pub mod csi {
    include!(concat!(env!("OUT_DIR"), "/csi.rs"));
}
pub mod agent {
    include!(concat!(env!("OUT_DIR"), "/agent.rs"));
}
pub mod health {
    include!(concat!(env!("OUT_DIR"), "/health.rs"));
}
pub mod agent_ttrpc {
    use super::{agent, csi, types};
    include!(concat!(env!("OUT_DIR"), "/agent_ttrpc.rs"));
}
pub mod health_ttrpc {
    use super::health;
    include!(concat!(env!("OUT_DIR"), "/health_ttrpc.rs"));
}

/// How the generated messages serialise what serde does not know.
mod policy_json {
    use protobuf::{EnumOrUnknown, MessageField};
    use serde::{Serialize, Serializer};

    pub(super) fn number<E: protobuf::Enum, S: Serializer>(value: &EnumOrUnknown<E>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i32(value.value())
    }

    pub(super) fn message<M: Serialize, S: Serializer>(value: &MessageField<M>, to: S) -> Result<S::Ok, S::Error> {
        value.as_ref().serialize(to)
    }
}

#[cfg(test)]
mod tests {
    use super::agent::{CreateContainerRequest, Storage};
    use super::oci::{Mount, Spec};
    use protobuf::MessageField;
    use serde_json::json;

    #[test]
    fn policies_see_the_names_and_nulls_they_are_written_for() {
        let mount = Mount { destination: "/proc".to_owned(), type_: "proc".to_owned(), ..Default::default() };
        let request = CreateContainerRequest {
            container_id: "c".to_owned(),
            storages: vec![Storage { driver: "ephemeral".to_owned(), ..Default::default() }],
            OCI: MessageField::some(Spec { Mounts: vec![mount], ..Default::default() }),
            ..Default::default()
        };
        let json = serde_json::to_value(&request).unwrap();
        assert_eq!(json["string_user"], json!(null));
        assert_eq!(json["OCI"]["Hooks"], json!(null));
        assert_eq!(json["OCI"]["Mounts"][0]["type_"], json!("proc"));
        assert_eq!(json["storages"][0]["fs_group"], json!(null));
        assert_eq!(json["sandbox_pidns"], json!(false));
        assert!(json.get("special_fields").is_none());
    }
}
