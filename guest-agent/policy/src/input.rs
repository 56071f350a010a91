//! A request as policies see it.

use protocols::rpc::kata::agent::CopyFileRequest;
use serde::Serialize;
use serde_json::{Value, json};

use crate::error::{Denied, Why};

/// S_IFMT and the types of it that can be copied.
const TYPE: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const SYMLINK: u32 = 0o120_000;

/// The JSON of a message that is judged by nothing else: field names as in the protocol, null for a message that is
/// not there.
///
/// # Errors
/// [`Denied`] when it has none.
pub fn message(request: &str, message: &impl Serialize) -> Result<Value, Denied> {
    serde_json::to_value(message).map_err(|error| denied(request, error.to_string()))
}

/// A file from the host, without its bytes: `path`, `file_type` (`Regular`, `Directory`, `Symlink`, `Unknown`),
/// `symlink_target` (a link's, else null), `file_size`, `file_mode`, `dir_mode`, `uid`, `gid`, `offset`.
///
/// # Errors
/// [`Denied`] for a link whose target is not UTF-8: a policy could not judge it.
pub fn copy_file(request: &CopyFileRequest) -> Result<Value, Denied> {
    let file_type = match request.file_mode & TYPE {
        REGULAR => "Regular",
        DIRECTORY => "Directory",
        SYMLINK => "Symlink",
        _ => "Unknown",
    };
    let target = match file_type {
        "Symlink" => {
            let what = |_| denied("CopyFileRequest", "the link's target is not UTF-8".to_owned());
            Some(std::str::from_utf8(&request.data).map_err(what)?)
        }
        _ => None,
    };
    Ok(json!({
        "path": request.path,
        "file_type": file_type,
        "symlink_target": target,
        "file_size": request.file_size,
        "file_mode": request.file_mode,
        "dir_mode": request.dir_mode,
        "uid": request.uid,
        "gid": request.gid,
        "offset": request.offset,
    }))
}

/// A policy that the host wants in force.
#[must_use]
pub fn set_policy(text: &str) -> Value {
    json!({ "policy": text })
}

fn denied(request: &str, what: String) -> Denied {
    Denied::new(request, Why::Input(what), &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(file_mode: u32, data: &[u8]) -> Result<Value, Denied> {
        let mut request = CopyFileRequest::new();
        request.path = "/run/kata-containers/shared/containers/a".into();
        (request.file_mode, request.dir_mode) = (file_mode, 0o750);
        (request.file_size, request.offset) = (9, 3);
        (request.uid, request.gid) = (-1, 7);
        request.data = data.to_vec();
        copy_file(&request)
    }

    #[test]
    fn a_file_is_judged_by_its_type_and_a_link_by_its_target() {
        let types = [
            (0o100_644, "Regular"),
            (0o040_755, "Directory"),
            (0o140_000, "Unknown"),
            (0o170_000, "Unknown"),
            (0o644, "Unknown"),
        ];
        for (mode, name) in types {
            let expected = json!({
                "path": "/run/kata-containers/shared/containers/a", "file_type": name, "symlink_target": null,
                "file_size": 9, "file_mode": mode, "dir_mode": 0o750, "uid": -1, "gid": 7, "offset": 3,
            });
            assert_eq!(copy(mode, b"secret").unwrap(), expected);
        }
        let link = copy(0o120_777, b"..data").unwrap();
        assert_eq!((link["file_type"].as_str(), link["symlink_target"].as_str()), (Some("Symlink"), Some("..data")));
        assert!(matches!(copy(0o120_777, b"\xFF").unwrap_err().why(), Why::Input(_)));
    }
}
