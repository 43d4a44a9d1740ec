//! The file and its log, whatever happens in between.

use std::os::unix::fs::PermissionsExt as _;

use weir_router_core::directory::{change::NewKey, file::TenantState};
use weir_wire::ids::TenantId;

use super::*;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn directory(&self) -> DirectoryFile {
        DirectoryFile::new(&self.path("directory.yaml"), None, BTreeSet::new())
    }

    fn change(&self, change: Change) -> Result<Changed, DirectoryError> {
        let (actor, now) = (Actor::cli("ann").unwrap(), Timestamp::from_ms(1_000));
        self.directory().change(change, &actor, now.unwrap())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("directory.yaml.audit.jsonl")).unwrap()
    }

    /// Version after, and state, of each whole line.
    fn states(&self) -> Vec<(u64, State)> {
        let log = self.log();
        let entries = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Entry>(line).ok());
        entries.map(|e| (e.version_after, e.state)).collect()
    }
}

fn acme() -> TenantId {
    TenantId::new("acme").unwrap()
}

fn add(plan: &str) -> Change {
    Change::AddTenant {
        tenant: acme(),
        plan: PlanName::new(plan).unwrap(),
        limits: None,
    }
}

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

#[test]
fn what_took_effect_is_in_the_log_twice_and_without_the_key() {
    let folder = Folder::new();
    folder.change(add("pro")).unwrap();
    let made = folder.change(Change::Make {
        tenant: acme(),
        plan: None,
        key: NewKey {
            name: None,
            expires_at: None,
            secret: new_secret().unwrap(),
        },
    });
    let made = made.ok().unwrap();
    // No change, and a refused one.
    folder.change(add("pro")).unwrap();
    assert!(folder.change(add("free")).is_err());
    let log = folder.log();
    assert_eq!(log.lines().count(), 4, "{log}");
    assert_eq!(log.matches("\"actor\":\"cli:ann\"").count(), 4);
    let secret = made.done.secret.unwrap();
    assert!(!log.contains(secret.reveal()) && !log.contains(&secret.hash().to_string()));
    assert!(log.contains(&secret.prefix()));
    use State::{Done, Intended};
    let expected = [(1, Intended), (1, Done), (2, Intended), (2, Done)];
    assert_eq!(folder.states(), expected);
    for name in ["directory.yaml.audit.jsonl", "directory.yaml"] {
        let mode = fs::metadata(folder.path(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

/// The log as a writer leaves it that is killed after its intent, and the file
/// before and after.
#[test]
fn a_change_that_was_left_open_is_told_by_the_next() {
    for (file_after, outcome) in [
        (Some("new"), State::Done),
        (Some("old"), State::Void),
        (Some("by hand"), State::Unknown),
    ] {
        for torn in ["", "{\"time\":\"19"] {
            let folder = Folder::new();
            folder.change(add("pro")).unwrap();
            let file = folder.path("directory.yaml");
            let old = fs::read_to_string(&file).unwrap();
            folder.change(Change::Suspend(acme())).unwrap();
            let new = fs::read_to_string(&file).unwrap();
            let log = folder.log();
            let kept: Vec<&str> = log.lines().take(3).collect();
            let cut = format!("{}\n{torn}", kept.join("\n"));
            fs::write(folder.path("directory.yaml.audit.jsonl"), cut).unwrap();
            let text = match file_after {
                Some("new") => new,
                Some("old") => old,
                _ => new.replace("version: 2", "version: 3"),
            };
            fs::write(&file, text).unwrap();
            let was_suspended = folder.directory().read().unwrap().tenants[0].state;
            let next = match was_suspended {
                TenantState::Active => Change::Suspend(acme()),
                TenantState::Suspended => Change::Resume(acme()),
            };
            let version = folder.change(next).unwrap().file.version;
            use State::{Done, Intended};
            let mut expected = vec![(1, Intended), (1, Done), (2, Intended), (2, outcome)];
            expected.extend([(version, Intended), (version, Done)]);
            assert_eq!(folder.states(), expected);
        }
    }
}

#[test]
fn a_log_that_cannot_be_written_refuses_the_change() {
    let folder = Folder::new();
    folder.change(add("pro")).unwrap();
    let before = fs::read(folder.path("directory.yaml")).unwrap();
    let audit = folder.path("directory.yaml.audit.jsonl");
    fs::remove_file(&audit).unwrap();
    fs::create_dir(&audit).unwrap();
    let error = folder.change(Change::Suspend(acme())).err().unwrap();
    let text = error.to_string();
    assert!(text.contains("audit.jsonl: cannot be opened"), "{text}");
    // A disk that is full.
    let full = DirectoryFile::new(
        &folder.path("directory.yaml"),
        Some(Path::new("/dev/full")),
        BTreeSet::new(),
    );
    let (actor, now) = (Actor::cli("ann").unwrap(), Timestamp::from_ms(1_000));
    let changed = full.change(Change::Suspend(acme()), &actor, now.unwrap());
    let text = changed.err().unwrap().to_string();
    assert!(text.contains("/dev/full: cannot be written"), "{text}");
    assert_eq!(fs::read(folder.path("directory.yaml")).unwrap(), before);
}

#[test]
fn a_file_that_cannot_be_replaced_voids_the_change() {
    let folder = Folder::new();
    folder.change(add("pro")).unwrap();
    // Nobody can write there, and nobody can remove it.
    fs::create_dir_all(folder.path("directory.yaml.partial/x")).unwrap();
    let error = folder.change(Change::Suspend(acme())).err().unwrap();
    assert!(error.to_string().contains("cannot be written"), "{error}");
    assert_eq!(folder.states().last(), Some(&(2, State::Void)));
    assert_eq!(folder.directory().read().unwrap().version, 1);
}
