//! Files beside the directory's, and its replacement.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

/// `directory.yaml.lock` for `directory.yaml`.
pub fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

/// Opens a file that is made where there is none, its owner's alone: that of `main`,
/// because a router that runs as another user is to write it, too.
pub fn open_beside(
    path: &Path,
    main: &Path,
    how: impl FnOnce(&mut OpenOptions),
) -> io::Result<fs::File> {
    let mut options = OpenOptions::new();
    how(&mut options);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    let file = options.create(true).mode(0o600).open(path)?;
    // Whoever may not give it away is no root, and only root is in others' way.
    if let Ok(main) = fs::metadata(main) {
        let _ = chown(path, Some(main.uid()), Some(main.gid()));
    }
    sync_folder(path)?;
    Ok(file)
}

/// Puts a text in a file's place in one step that survives a loss of power.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let partial = beside(path, "partial");
    let written = write_at(&partial, path, text).and_then(|()| fs::rename(&partial, path));
    if written.is_err() {
        let _ = fs::remove_file(&partial);
    }
    written?;
    sync_folder(path)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    fs::File::open(folder)?.sync_all()
}

fn write_at(partial: &Path, path: &Path, text: &str) -> io::Result<()> {
    // Left behind by one that was killed; the lock says that it is gone.
    let _ = fs::remove_file(partial);
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(partial)?;
    if let Ok(old) = fs::metadata(path) {
        let new = file.metadata()?;
        if (old.uid(), old.gid()) != (new.uid(), new.gid())
            && chown(partial, Some(old.uid()), Some(old.gid())).is_err()
        {
            // The router may be allowed to read it by its owner alone.
            return Err(io::Error::other(format!(
                "its owner {}:{} cannot be kept; run as that user",
                old.uid(),
                old.gid()
            )));
        }
        file.set_permissions(Permissions::from_mode(old.mode() & 0o7777))?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
