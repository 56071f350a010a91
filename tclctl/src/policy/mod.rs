//! `policy test`: tables of cases, each asked of the engine that attestor, key broker or agent would ask.

mod table;

use std::fs;
use std::path::{Path, PathBuf};

use protocols::reason::{self, Refusal};
use serde_json::json;

use self::table::{Ran, Table};
use crate::cli::PolicyTestArguments;
use crate::files::read;
use crate::outcome::Failure;
use crate::output::Output;

/// The most tables of one directory, and the most bytes of one.
const MAX_TABLES: usize = 1024;
const MAX_TABLE: u64 = 4 * 1024 * 1024;

/// Runs every table of the directory, in the order of their names.
pub(crate) fn test(arguments: &PolicyTestArguments, output: &Output) -> Result<(), Failure> {
    let mut ran = Vec::new();
    for path in tables(&arguments.directory)? {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let table = Table::parse(&path, &text(&path)?).map_err(|error| Failure::Usage(format!("{name}: {error}")))?;
        ran.extend(table.run(&name)?);
    }
    let failed = ran.iter().filter(|case| !case.passed()).count();
    let count = ran.len();
    output.tell(
        || json!({ "cases": ran, "passed": count.saturating_sub(failed), "failed": failed }),
        || ran.iter().map(Ran::line).chain([format!("{count} cases, {failed} failed")]).collect(),
    )?;
    if failed > 0 {
        let directory = arguments.directory.display().to_string();
        let refusal =
            Refusal::new(reason::POLICY_TEST, directory, "every case as it says", format!("{failed} otherwise"));
        return Err(Failure::by_command(refusal));
    }
    Ok(())
}

/// The tables of a directory.
fn tables(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error| Failure::file(directory, error);
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_file() && path.extension().is_some_and(|kind| kind == "toml" || kind == "json") {
            paths.push(path);
        }
    }
    if paths.is_empty() || paths.len() > MAX_TABLES {
        let what = format!("{}: {} tables of cases, from 1 to {MAX_TABLES} wanted", directory.display(), paths.len());
        return Err(Failure::Usage(what));
    }
    paths.sort();
    Ok(paths)
}

/// A whole file of text.
fn text(path: &Path) -> Result<String, Failure> {
    String::from_utf8(read(path, MAX_TABLE)?).map_err(|_| Failure::file(path, "not text"))
}

#[cfg(test)]
mod tests;
