//! The files of an initdata on disk, where guest software that is not ours looks for them.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::Initdata;
use crate::BootError;
use crate::error::io;

/// The whole text's own name beside its files.
const WHOLE: &str = "initdata.toml";

impl Initdata {
    /// Writes the text as `initdata.toml` and each file under its name into `folder`
    /// (`/run/confidential-containers/initdata`), for root alone.
    ///
    /// # Errors
    /// [`BootError::Io`]; also when a file is there already.
    pub fn write_to(&self, folder: &Path) -> Result<(), BootError> {
        let shown = folder.display().to_string();
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io(shown))?;
        let whole = (WHOLE, self.text.as_str());
        let files = self.files.iter().map(|(name, text)| (name.as_str(), text.as_str()));
        for (name, text) in files.filter(|(name, _)| *name != WHOLE).chain([whole]) {
            let path = folder.join(name);
            let failed = || io::<std::io::Error>(path.display().to_string());
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&path).map_err(failed())?;
            file.write_all(text.as_bytes()).map_err(failed())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn every_file_lies_under_its_name_and_the_text_beside_them() {
        let text = "version = \"0.1.0\"\nalgorithm = \"sha256\"\n[data]\n\"aa.toml\" = \"one\"\n\"initdata.toml\" = \"other\"\n";
        let initdata = Initdata::parse(text.to_owned(), Path::new("test")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        initdata.write_to(&folder).unwrap();
        assert_eq!(std::fs::read_to_string(folder.join("aa.toml")).unwrap(), "one");
        assert_eq!(
            std::fs::read_to_string(folder.join("initdata.toml")).unwrap(),
            text,
            "never replaced by a file of it"
        );
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join("aa.toml"))), (0o700, 0o600));
        let refused = initdata.write_to(&folder).unwrap_err();
        assert_eq!(refused.code().as_str(), "boot.io", "nothing is written over");
    }
}
