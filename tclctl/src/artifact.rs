//! Keys and simulated roots: files this command makes.

use std::fs;
use std::path::{Path, PathBuf};

use protocols::keys::{KeyKind, SigningKey, VerifyingKey};
use serde_json::json;

use crate::cli::{KeygenArguments, SimulatedPkiArguments};
use crate::files::create;
use crate::outcome::Failure;
use crate::output::Output;

/// Makes a key: private PEM at FILE (0600), public PEM at FILE.pub. Neither is ever overwritten.
pub(crate) fn keygen(arguments: &KeygenArguments, output: &Output) -> Result<(), Failure> {
    let kind = if arguments.ed25519 { KeyKind::Ed25519 } else { KeyKind::EcdsaP256 };
    let key = SigningKey::generate(kind).map_err(|error| Failure::Fault(error.to_string()))?;
    let private = key.to_pem().map_err(|error| Failure::Fault(error.to_string()))?;
    let public = key.verifying_key().to_pem().map_err(|error| Failure::Fault(error.to_string()))?;
    let beside = public_path(&arguments.file);
    if beside.exists() {
        return Err(Failure::file(&beside, "there already; remove it first if you mean it"));
    }
    create(&arguments.file, 0o600, private.as_bytes())?;
    create(&beside, 0o644, public.as_bytes())?;
    let keyid = key.verifying_key().keyid();
    output.tell(
        || json!({"private": arguments.file, "public": beside, "keyid": keyid}),
        || {
            vec![
                format!("{}  private, keep it secret", arguments.file.display()),
                format!("{}  public, pin it in the measured configuration", beside.display()),
                format!("key id {keyid}"),
            ]
        },
    )
}

fn public_path(private: &Path) -> PathBuf {
    let mut name = private.as_os_str().to_owned();
    name.push(".pub");
    PathBuf::from(name)
}

/// Reads a private key's file.
pub(crate) fn private_key(path: &Path) -> Result<SigningKey, Failure> {
    let pem = fs::read_to_string(path).map_err(|error| Failure::file(path, error))?;
    SigningKey::from_pem(&pem).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

/// Reads a public key's file.
pub(crate) fn public_key(path: &Path) -> Result<VerifyingKey, Failure> {
    let pem = fs::read_to_string(path).map_err(|error| Failure::file(path, error))?;
    VerifyingKey::from_pem(&pem).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

/// Makes simulated roots of one installation.
pub(crate) fn simulated_pki(arguments: &SimulatedPkiArguments, output: &Output) -> Result<(), Failure> {
    let failed = |error: simulated_tee::SimulatedError| Failure::Io(error.to_string());
    simulated_tee::Pki::create(&arguments.folder).map_err(failed)?;
    simulated_tee::tdx::Machine::create(&arguments.folder).map_err(failed)?;
    output.tell(
        || json!({"folder": arguments.folder, "simulated": true}),
        || {
            vec![format!(
                "{}: SIMULATED ARK, ASK and VCEK, SIMULATED TDX platform and its collateral; development configurations only",
                arguments.folder.display()
            )]
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_new_key_is_private_and_never_overwrites_another() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("release.pem");
        for ed25519 in [false, true] {
            let arguments = KeygenArguments { file: folder.path().join(format!("k{ed25519}")), ed25519 };
            keygen(&arguments, &Output::new(true)).unwrap();
            assert_eq!(fs::metadata(&arguments.file).unwrap().permissions().mode() & 0o777, 0o600);
            let private = private_key(&arguments.file).unwrap();
            assert_eq!(private.verifying_key(), public_key(&public_path(&arguments.file)).unwrap());
        }
        fs::write(public_path(&file), "another key").unwrap();
        let refused = keygen(&KeygenArguments { file: file.clone(), ed25519: false }, &Output::new(true));
        assert_eq!(refused.unwrap_err().status(), 74);
        assert!(!file.exists(), "nothing half made");
    }
}
