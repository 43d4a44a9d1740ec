//! The file on disk: one writer at a time, and never half a file.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, OpenOptions, Permissions},
    io::Write as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, de::IgnoredAny};
use weir_router_core::directory::file::File;
use weir_wire::ids::PlanName;

use crate::change::Done;

/// The head of a new file.
const HEAD: &str = "\
# The tenants and their API keys, which the router serves to gateways. Written by
# weir-keys, which keeps this comment and no other. By hand: raise `version` with
# each change, and put a whole file in place of the old one (mv).
";

/// What weir-keys reads of the router's configuration.
#[derive(Deserialize)]
struct Router {
    plans: BTreeMap<PlanName, IgnoredAny>,
}

/// A directory's file, whether it exists or not.
pub struct Store {
    path: PathBuf,
    /// The router's; not checked where there are none.
    plans: BTreeSet<PlanName>,
}

impl Store {
    /// Names the file; a link is followed, so that what it leads to is replaced.
    pub fn new(path: &Path, router: Option<&Path>) -> anyhow::Result<Self> {
        let plans = match router {
            None => BTreeSet::new(),
            Some(router) => {
                let text = fs::read_to_string(router)
                    .with_context(|| format!("{}: cannot be read", router.display()))?;
                let router: Router = serde_saphyr::from_str(&text)
                    .map_err(|e| anyhow::anyhow!("{}: {e}", router.display()))?;
                router.plans.into_keys().collect()
            }
        };
        Ok(Self {
            path: fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()),
            plans,
        })
    }

    /// Reads and checks the file.
    pub fn read(&self) -> anyhow::Result<File> {
        let text = fs::read_to_string(&self.path)
            .with_context(|| format!("{}: cannot be read", self.path.display()))?;
        self.understand(&text)
    }

    fn understand(&self, text: &str) -> anyhow::Result<File> {
        let understood = || {
            let file = File::parse(text)?;
            file.validate(&self.plans)?;
            anyhow::Ok(file)
        };
        understood().with_context(|| self.path.display().to_string())
    }

    /// Changes the file, alone; where `change` says that nothing did, it is left
    /// as it is. A file that is not there is begun only where `may_begin`.
    pub fn change(
        &self,
        may_begin: bool,
        change: impl FnOnce(&mut File) -> anyhow::Result<Done>,
    ) -> anyhow::Result<Done> {
        // The file itself can be no lock: it is replaced.
        let path = beside(&self.path, "lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("{}: cannot be opened", path.display()))?;
        lock.lock()
            .with_context(|| format!("{}: cannot be locked", path.display()))?;
        let (head, mut file) = match fs::read_to_string(&self.path) {
            Ok(text) => (head(&text), self.understand(&text)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && may_begin => {
                let empty = File {
                    version: 0,
                    tenants: Vec::new(),
                };
                (HEAD.to_owned(), empty)
            }
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("{}: cannot be read", self.path.display()));
            }
        };
        let mut done = change(&mut file)?;
        if done.changed {
            file.version = file
                .version
                .checked_add(1)
                .context("version: can grow no more")?;
            file.validate(&self.plans)
                .with_context(|| self.path.display().to_string())?;
            self.write(&format!("{head}{}", file.to_yaml()?))?;
            done.notes
                .push(format!("{}: version {}", self.path.display(), file.version));
        }
        Ok(done)
    }

    /// Replaces the file in one step that survives a loss of power.
    fn write(&self, text: &str) -> anyhow::Result<()> {
        let partial = beside(&self.path, "partial");
        let written = self.write_at(&partial, text).and_then(|()| {
            fs::rename(&partial, &self.path)?;
            let folder = match self.path.parent() {
                Some(folder) if folder != Path::new("") => folder,
                _ => Path::new("."),
            };
            Ok(fs::File::open(folder)?.sync_all()?)
        });
        if written.is_err() {
            let _ = fs::remove_file(&partial);
        }
        written.with_context(|| format!("{}: cannot be written", self.path.display()))
    }

    fn write_at(&self, partial: &Path, text: &str) -> anyhow::Result<()> {
        // Left behind by one that was killed; the lock says that it is gone.
        let _ = fs::remove_file(partial);
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(partial)?;
        if let Ok(old) = fs::metadata(&self.path) {
            let new = file.metadata()?;
            if (old.uid(), old.gid()) != (new.uid(), new.gid())
                && chown(partial, Some(old.uid()), Some(old.gid())).is_err()
            {
                // The router may be allowed to read it by its owner alone.
                bail!(
                    "its owner {}:{} cannot be kept; run as that user",
                    old.uid(),
                    old.gid()
                );
            }
            file.set_permissions(Permissions::from_mode(old.mode() & 0o7777))?;
        }
        file.write_all(text.as_bytes())?;
        Ok(file.sync_all()?)
    }
}

/// `directory.yaml.lock` for `directory.yaml`.
fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

/// The comment that a file begins with.
fn head(text: &str) -> String {
    text.split_inclusive('\n')
        .take_while(|line| line.trim().is_empty() || line.starts_with('#'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_is_what_comes_before_the_first_field() {
        for (text, expected) in [
            ("# a\n\n#b\nversion: 1\n# c\n", "# a\n\n#b\n"),
            ("version: 1\n", ""),
            ("# only", "# only"),
            ("", ""),
        ] {
            assert_eq!(head(text), expected);
        }
    }
}
