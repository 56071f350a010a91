//! What an image is made of, as a CycloneDX 1.5 document: Debian's packages and the crates of our programs.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::error::{ImageError, io};
use crate::packages::Lock;
use crate::programs::output_in;

/// Our programs in an image.
const PROGRAMS: [&str; 2] = ["guest-agent", "guest-init"];

/// The document: no time and no serial number, so that the same image has the same one.
pub(crate) fn components(workspace: &Path, lock: &Lock, kernel: &str) -> Result<Value, ImageError> {
    let mut components: Vec<Value> = lock
        .packages()
        .iter()
        .map(|package| {
            let version = package.version.replace('+', "%2B").replace('~', "%7E").replace(':', "%3A");
            json!({
                "type": if package.name.starts_with("linux-image-") { "operating-system" } else { "library" },
                "name": package.name,
                "version": package.version,
                "purl": format!("pkg:deb/debian/{}@{version}", package.name),
                "hashes": [{ "alg": "SHA-256", "content": package.sha256 }],
            })
        })
        .collect();
    components.extend(crates(workspace)?);
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": { "type": "operating-system", "name": "guest image", "version": kernel } },
        "components": components,
    }))
}

/// Every crate that our programs are built of, with the checksum of the lock file.
fn crates(workspace: &Path) -> Result<Vec<Value>, ImageError> {
    let path = workspace.join("Cargo.lock");
    let lock: toml::Table = std::fs::read_to_string(&path)
        .map_err(io(&path))?
        .parse()
        .map_err(|error: toml::de::Error| ImageError::input("Cargo.lock", error.message()))?;
    let mut checksums = BTreeMap::new();
    for package in lock.get("package").and_then(toml::Value::as_array).into_iter().flatten() {
        let text = |name| package.get(name).and_then(toml::Value::as_str);
        if let (Some(name), Some(version)) = (text("name"), text("version")) {
            checksums.insert((name.to_owned(), version.to_owned()), text("checksum").map(str::to_owned));
        }
    }
    let mut arguments =
        vec!["tree", "--locked", "--offline", "--edges", "normal", "--prefix", "none", "--format", "{p}"];
    PROGRAMS.iter().for_each(|program| arguments.extend(["--package", program]));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut used: Vec<(String, String)> = output_in(workspace, cargo, &arguments)?
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?.to_owned(), words.next()?.strip_prefix('v')?.to_owned()))
        })
        .collect();
    used.sort();
    used.dedup();
    let described = |(name, version): (String, String)| {
        let purl = format!("pkg:cargo/{name}@{version}");
        let checksum = checksums.get(&(name.clone(), version.clone())).cloned().flatten();
        let mut component = json!({ "type": "library", "name": name, "version": version, "purl": purl });
        if let (Some(checksum), Some(fields)) = (checksum, component.as_object_mut()) {
            fields.insert("hashes".to_owned(), json!([{ "alg": "SHA-256", "content": checksum }]));
        }
        component
    };
    Ok(used.into_iter().map(described).collect())
}
