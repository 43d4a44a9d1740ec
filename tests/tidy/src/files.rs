//! The files of the repository, as git lists them.

use std::{path::Path, process::Command};

use crate::Violation;

/// One file and what is in it.
#[derive(Debug, Clone)]
pub struct File {
    /// Relative to the root, with `/`.
    pub path: String,
    /// Its text; bytes that are no UTF-8 are U+FFFD.
    pub text: String,
}

impl File {
    /// A file that a test makes up.
    #[must_use]
    pub fn sample(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    /// Whether it is Rust source.
    #[must_use]
    pub fn is_rust(&self) -> bool {
        has_extension(&self.path, "rs")
    }
}

/// Whether `path` ends in a dot and this extension.
#[must_use]
pub fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|e| e == extension)
}

/// Every file under `root` that git knows, or would know after `git add .`: a
/// rule should be seen to be broken before the commit, not after it.
///
/// # Errors
/// Where git or the disk refuse.
pub fn list(root: &Path) -> Result<Vec<File>, Violation> {
    let output = Command::new("git")
        .arg("-C")
        .arg(root)
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .output()
        .map_err(|e| Violation::new(".", 0, format!("git ls-files: {e}")))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Violation::new(".", 0, format!("git ls-files: {why}")));
    }
    let mut files = Vec::new();
    for name in output.stdout.split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let path = String::from_utf8_lossy(name).into_owned();
        // What is deleted but not yet committed is no longer there to judge.
        if root.join(&path).is_file() {
            files.push(read(root, &path)?);
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Reads one file.
///
/// # Errors
/// Where the disk refuses.
pub fn read(root: &Path, path: &str) -> Result<File, Violation> {
    let bytes =
        std::fs::read(root.join(path)).map_err(|e| Violation::new(path, 0, e.to_string()))?;
    Ok(File {
        path: path.to_owned(),
        text: String::from_utf8_lossy(&bytes).into_owned(),
    })
}
