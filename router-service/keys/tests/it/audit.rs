//! What is logged of changes, and what is left of it when writers are killed.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread::sleep,
    time::Instant,
};

use weir_router_core::directory::audit::{Action, Entry, State};

use super::*;

/// The lines of each change, oldest first.
fn changes(log: &Path) -> Vec<Vec<Entry>> {
    let text = fs::read_to_string(log).unwrap();
    let mut order: Vec<String> = Vec::new();
    let mut found: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
    let entries = text.lines().filter_map(|l| serde_json::from_str(l).ok());
    for entry in entries {
        let entry: Entry = entry;
        let lines = found.entry(entry.change.clone()).or_default();
        if lines.is_empty() {
            order.push(entry.change.clone());
        }
        lines.push(entry);
    }
    order.iter().map(|change| found[change].clone()).collect()
}

#[test]
fn each_change_says_who_what_and_which_version() {
    let folder = Folder::new();
    let log = folder.0.path().join("elsewhere.jsonl");
    let at = |line: &str| format!("--audit {} {line}", log.display());
    let first = folder.check(&at("make --tenant acme --plan pro"), "k1", 1);
    folder.check(&at("rotate --tenant acme --key k1 --grace 1h"), "k2", 2);
    folder.check(&at("limits --tenant acme --limit 5/1s"), "limits", 3);
    folder.check(&at("limits --tenant acme --limit 5/1s"), "already", 3);
    folder.check_refused(&at("suspend --tenant other"), "there is no other");
    folder.check(&at("revoke --tenant acme --key k1"), "revoked", 4);
    assert!(!folder.0.path().join("directory.yaml.audit.jsonl").exists());
    let text = fs::read_to_string(&log).unwrap();
    assert!(!text.contains(first.trim()), "a key is in the log");
    for key in &folder.file().tenants[0].keys {
        assert!(!text.contains(&key.sha256.to_string()), "a hash of a key");
    }
    let changes = changes(&log);
    use Action::{KeyMake, KeyRevoke, KeyRotate, TenantCreate, TenantLimits};
    let expected = [
        &[TenantCreate, KeyMake][..],
        &[KeyRotate],
        &[TenantLimits],
        &[KeyRevoke],
    ];
    assert_eq!(changes.len(), expected.len());
    for ((change, actions), after) in changes.iter().zip(expected).zip(1..) {
        let (intended, done) = change.split_at(change.len() / 2);
        for (lines, state) in [(intended, State::Intended), (done, State::Done)] {
            let found: Vec<Action> = lines.iter().map(|e| e.fact.action).collect();
            assert_eq!(found, actions);
            for entry in lines {
                assert_eq!(entry.state, state);
                assert_eq!(
                    (entry.version_before, entry.version_after),
                    (after - 1, after)
                );
                assert!(entry.actor.to_string().starts_with("cli:"));
            }
        }
    }
    let fact = &changes[1][0].fact;
    let names = [&fact.key, &fact.replaces].map(|name| name.as_ref().unwrap().as_str());
    assert_eq!(names, ["k2", "k1"]);
}

/// Kills writers at every moment of their lives. What took effect is in the log,
/// and nothing else is in it as done.
#[test]
fn killed_writers_leave_a_valid_file_and_a_log_that_agrees() {
    let folder = Folder::new();
    let log = folder.0.path().join("directory.yaml.audit.jsonl");
    folder.check("add-tenant --tenant acme --plan pro", "", 1);
    let start = Instant::now();
    folder.check("make --tenant acme", "", 2);
    // A third of them lives on.
    let longest = start.elapsed().mul_f32(1.5);
    for i in 0..300_u32 {
        let mut child = folder
            .command("make --tenant acme")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        sleep(longest * (i * 37 % 300) / 300);
        child.kill().unwrap();
        child.wait().unwrap();
        if i % 3 == 0 {
            folder.check("check", "valid", folder.file().version);
        }
        // The last change is in the log before anybody tidies up.
        let version = folder.file().version;
        let last = changes(&log).into_iter().flatten().rev();
        let mut of_version = last.filter(|e| e.version_after == version);
        assert!(of_version.any(|e| matches!(e.state, State::Intended | State::Done)));
    }
    let file = folder.file();
    folder.check("suspend --tenant acme", "", file.version + 1);
    let mut done = Vec::new();
    let mut keys = BTreeSet::new();
    for change in changes(&log) {
        let states: Vec<State> = change.iter().map(|e| e.state).collect();
        match states.as_slice() {
            [State::Intended, State::Done] => done.push(change[0].version_after),
            [State::Intended, State::Void] => continue,
            other => panic!("{other:?}"),
        }
        keys.extend(change[0].fact.key.clone());
    }
    let versions: Vec<u64> = (1..=file.version + 1).collect();
    assert_eq!(done, versions, "each version once, in order");
    let kept: BTreeSet<_> = file.tenants[0].keys.iter().map(|k| k.id.clone()).collect();
    assert_eq!(keys, kept);
    assert!(
        kept.len() > 2 && kept.len() < 300,
        "{} writers lived",
        kept.len()
    );
}
