//! Where the Kata service listens, in the form the Kata agent takes it: `vsock://CID:PORT`, `unix:///path`,
//! `unix://@name`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use tokio_vsock::VMADDR_CID_ANY;

/// The longest path or abstract name of a unix socket, in bytes.
const MAX_NAME: usize = 107;

/// An address to listen at.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub enum Address {
    /// A vsock port on any context id; only the host may connect.
    Vsock(u32),
    /// A unix socket in the file system; only root may connect.
    Unix(PathBuf),
    /// A unix socket in the abstract namespace; only root may connect.
    Abstract(String),
}

/// Why a text is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// None of the known forms.
    #[error("must be vsock://-1:PORT, unix:///PATH or unix://@NAME")]
    Form,
    /// The kernel takes no longer name.
    #[error("a unix socket's name has 1 to 107 bytes without NUL")]
    Name,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(name) = text.strip_prefix("unix://") {
            if name.len() > MAX_NAME || name.contains('\0') || name == "@" {
                return Err(AddressError::Name);
            }
            return match name.strip_prefix('@') {
                Some(name) => Ok(Self::Abstract(name.to_owned())),
                None if name.starts_with('/') => Ok(Self::Unix(name.into())),
                None => Err(AddressError::Form),
            };
        }
        let (cid, port) =
            text.strip_prefix("vsock://").and_then(|rest| rest.split_once(':')).ok_or(AddressError::Form)?;
        // -1 is how the peers write "any": a guest does not know its own context id.
        let any = cid == "-1" || cid.parse() == Ok(VMADDR_CID_ANY);
        let port = port.parse().ok().filter(|port| *port != 0 && *port != u32::MAX);
        port.filter(|_| any).map(Self::Vsock).ok_or(AddressError::Form)
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vsock(port) => write!(f, "vsock://-1:{port}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Abstract(name) => write!(f, "unix://@{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_the_peer_are_read_and_written() {
        for (text, address) in [
            ("vsock://-1:1024", Address::Vsock(1024)),
            ("unix:///run/kata.sock", Address::Unix("/run/kata.sock".into())),
            ("unix://@kata", Address::Abstract("kata".to_owned())),
        ] {
            assert_eq!(text.parse(), Ok(address.clone()));
            assert_eq!(address.to_string(), text);
        }
        assert_eq!("vsock://4294967295:1024".parse(), Ok(Address::Vsock(1024)));
    }

    #[test]
    fn everything_else_is_refused() {
        let long = format!("unix:///{}", "a".repeat(107));
        for text in [
            "",
            "vsock://",
            "vsock://-1",
            "vsock://-1:",
            "vsock://-1:0",
            "vsock://-1:4294967295",
            "vsock://-1:99999999999",
            "vsock://3:1024",
            "vsock://-2:1024",
            "unix://",
            "unix://@",
            "unix://relative",
            "unix:/run/x",
            "tcp://0.0.0.0:1",
            "unix:///a\0b",
            long.as_str(),
        ] {
            assert!(text.parse::<Address>().is_err(), "{text:?}");
        }
    }
}
