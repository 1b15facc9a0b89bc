//! The versions of the packages, and the number of crates that each library brings.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::peer::{About, BoxError};

const LOCK: &str = include_str!("../Cargo.lock");
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Returns the version of `Cargo.lock`, the newest if there are several.
pub fn version(package: &str) -> Option<&'static str> {
    let name = format!("name = \"{package}\"");
    let mut lines = LOCK.lines();
    let mut newest = None;
    while lines.by_ref().any(|line| line == name) {
        let version = lines.next()?.strip_prefix("version = \"")?;
        newest = version.strip_suffix('"');
    }
    newest
}

/// Counts the crates of a program that has nothing but this library, without the program.
///
/// The features are the defaults of the library, plus those without which it has no interface for the task. Optional
/// dependencies, and those for builds and tests, do not count.
pub fn count(about: &About) -> Result<usize, BoxError> {
    let folder = Folder::create()?;
    let mut manifest = String::from(
        "[package]\nname = \"the-program\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n",
    );
    for line in about.manifest.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let package = line.split(' ').next().unwrap_or_default();
        let version = version(package).ok_or("not in Cargo.lock")?;
        let line = line.replace("path = \"=\"", &format!("path = {ROOT:?}"));
        manifest += &line.replace("\"=\"", &format!("\"={version}\""));
        manifest += "\n";
    }
    fs::write(folder.0.join("Cargo.toml"), manifest)?;
    fs::write(folder.0.join("Cargo.lock"), LOCK)?;
    fs::create_dir(folder.0.join("src"))?;
    fs::write(folder.0.join("src/main.rs"), "fn main() {}\n")?;
    crates(&folder.0)
}

fn crates(folder: &Path) -> Result<usize, BoxError> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["tree", "--edges", "normal", "--prefix", "none"];
    let output = Command::new(cargo).args(arguments).current_dir(folder).output()?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        return Err(format!("cargo tree: {}", error.lines().next().unwrap_or_default()).into());
    }
    // A line is a name, a version, and remarks that differ between mentions of one crate.
    let output = String::from_utf8(output.stdout)?;
    let names = output.lines().filter_map(|line| {
        let mut words = line.split(' ');
        Some((words.next()?, words.next()?))
    });
    let names: BTreeSet<_> = names.collect();
    Ok(names.len() - 1)
}

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn create() -> Result<Self, BoxError> {
        let path = std::env::temp_dir().join(format!("peers-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
