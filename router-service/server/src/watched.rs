//! A file that is read again when it changed and then was left alone.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use weir_process::Stamp;

/// How long a file must have been left alone before it is read: a file that is
/// written in place, cut at the end of a line, could be valid with less in it.
const SETTLE: Duration = Duration::from_millis(200);

/// The same as [`Stamp::of`], off the threads that serve: a disk that hangs must not
/// hang requests.
pub async fn stamp_now(path: &Arc<Path>) -> Option<Stamp> {
    let path = Arc::clone(path);
    tokio::task::spawn_blocking(move || Stamp::of(&path))
        .await
        .unwrap_or_default()
}

/// The state of a file that is another than `known`, once it is left alone; `None`
/// where nothing changed.
pub async fn settled(path: &Arc<Path>, known: Option<&Stamp>) -> Option<Option<Stamp>> {
    let mut stamp = stamp_now(path).await;
    if stamp.as_ref() == known && stamp.is_some() {
        return None;
    }
    loop {
        tokio::time::sleep(SETTLE).await;
        let later = stamp_now(path).await;
        if later == stamp {
            return Some(stamp);
        }
        stamp = later;
    }
}

/// A small file and the text that it held when it was last looked at.
pub struct Watched {
    path: Arc<Path>,
    stamp: Option<Stamp>,
    text: Option<String>,
}

impl Watched {
    /// Reads it for the first time.
    pub fn open(path: PathBuf) -> anyhow::Result<(Self, String)> {
        let stamp = Stamp::of(&path);
        let text = read(&path)?;
        let watched = Self {
            path: path.into(),
            stamp,
            text: Some(text.clone()),
        };
        Ok((watched, text))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its text, where that is another than the last time; an error once, where
    /// it can't be read.
    pub async fn changed(&mut self) -> Option<anyhow::Result<String>> {
        let stamp = settled(&self.path, self.stamp.as_ref()).await?;
        let path = Arc::clone(&self.path);
        let read = tokio::task::spawn_blocking(move || read(&path))
            .await
            .ok()?;
        // It changed again while it was read: what was read may be a mixture.
        if stamp_now(&self.path).await != stamp {
            return None;
        }
        self.stamp = stamp;
        let text = match read {
            Ok(text) => text,
            // Told when it went away, not each time it is still away.
            Err(error) => return self.text.take().map(|_| Err(error)),
        };
        if self.text.as_ref() == Some(&text) {
            return None;
        }
        self.text = Some(text.clone());
        Some(Ok(text))
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_is_seen_once_and_a_loss_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        fs::write(&path, "a").unwrap();
        let (mut watched, text) = Watched::open(path.clone()).unwrap();
        assert_eq!(text, "a");
        assert!(watched.changed().await.is_none());
        fs::write(&path, "bc").unwrap();
        assert_eq!(watched.changed().await.unwrap().unwrap(), "bc");
        assert!(watched.changed().await.is_none());
        fs::remove_file(&path).unwrap();
        assert!(watched.changed().await.unwrap().is_err());
        assert!(watched.changed().await.is_none());
        fs::write(&path, "bc").unwrap();
        assert_eq!(watched.changed().await.unwrap().unwrap(), "bc");
    }
}
