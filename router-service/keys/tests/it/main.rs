//! The real weir-keys on real files.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)] // tests

mod audit;

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use weir_router_core::{
    allowance::{AtCeiling, Counts},
    directory::file::{File, KeyState, TenantState},
};
use weir_wire::key_hash::KeyHash;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("directory.yaml")
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir-keys"));
        command.arg("--file").arg(self.path()).args(line.split(' '));
        command
    }

    fn file(&self) -> File {
        File::parse(&fs::read_to_string(self.path()).unwrap()).unwrap()
    }

    /// Runs a command that works, says that on standard error and leaves that
    /// version; gives its standard output.
    #[track_caller]
    fn check(&self, line: &str, says: &str, version: u64) -> String {
        let output = self.command(line).output().unwrap();
        let (out, err) = texts(&output);
        assert!(output.status.success(), "{line}: {err}");
        assert!(
            err.contains(says) || out.contains(says),
            "{line}: {err}{out}"
        );
        assert_eq!(self.file().version, version, "{line}");
        out
    }

    /// Runs a command that fails, says that and changes nothing.
    #[track_caller]
    fn check_refused(&self, line: &str, says: &str) {
        let before = fs::read(self.path()).ok();
        let output = self.command(line).output().unwrap();
        let (out, err) = texts(&output);
        assert!(!output.status.success() && out.is_empty(), "{line}: {out}");
        assert!(err.contains(says), "{line}: {err}");
        assert_eq!(fs::read(self.path()).ok(), before, "{line}");
    }
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_key_lives_and_ends() {
    let folder = Folder::new();
    folder.check_refused("make --tenant acme", "directory.yaml: cannot be read");
    folder.check_refused("check", "cannot be read");
    let out = folder.check("make --tenant acme --plan pro", "acme k1", 1);
    assert_eq!(mode(&folder.path()), 0o600);
    let key = out.strip_suffix('\n').unwrap();
    assert!(
        key.starts_with("weir_sk_") && key.len() == 51,
        "one key alone"
    );
    let kept = &folder.file().tenants[0].keys[0];
    assert_eq!(kept.sha256, KeyHash::of(key.as_bytes()));
    assert_eq!(kept.prefix.as_deref(), Some(&key[..16]));
    assert!(!fs::read_to_string(folder.path()).unwrap().contains(key));

    folder.check_refused("make --tenant acme --plan pro", "the command plan");
    folder.check_refused("make --tenant other", "--plan adds it");
    folder.check_refused("make --tenant acme --name k1", "has a key k1 already");
    folder.check_refused(
        "make --tenant acme --expires-at 2001-01-01T00:00:00Z",
        "must be after now",
    );
    folder.check_refused("make --tenant acme --expires-in soon", "24h");
    folder.check_refused("make --tenant a$b", "tenant must be");
    folder.check(
        "make --tenant acme --name ci --expires-in 90d",
        "expires 20",
        2,
    );

    let new = folder.check(
        "rotate --tenant acme --key k1 --grace 24h",
        "acme k1 expires",
        3,
    );
    assert_ne!(new, out);
    let ci = "rotate --tenant acme --key ci --grace 0s";
    folder.check_refused(ci, "--never-expires");
    folder.check_refused(&format!("{ci} --expires-in 0s"), "must be after now");
    folder.check_refused(
        &format!("{ci} --expires-in 1d --never-expires"),
        "cannot be used",
    );
    folder.check(&format!("{ci} --expires-in 90d"), "acme ci expires", 4);
    folder.check_refused("rotate --tenant acme --key ci --grace 1h", "has expired");
    let list = folder.check("list --tenant acme", "TENANT", 4);
    for (name, state) in [
        ("k1", "expires 20"),
        ("k2", "active"),
        ("ci", "expired"),
        ("k3", "expires 20"),
    ] {
        let row = |line: &&str| line.contains(&format!("  {name} ")) && line.contains(state);
        assert!(list.lines().any(|l| row(&l)), "{name} {state} in {list}");
    }
    assert!(!list.contains(key) && !list.contains(new.trim()));

    folder.check("revoke --tenant acme --key k1", "acme k1 is revoked", 5);
    folder.check("revoke --tenant acme --key k1", "is revoked already", 5);
    folder.check_refused("rotate --tenant acme --key k1 --grace 1h", "is revoked");
    let prefix = &new[..16];
    folder.check_refused("revoke --prefix weir_sk_", "at least 12");
    folder.check_refused("revoke --key k1", "--tenant");
    folder.check_refused("revoke", "required");
    folder.check(
        &format!("revoke --prefix {prefix}"),
        "acme k2 is revoked",
        6,
    );
    let hash = folder.file().tenants[0].keys[1].sha256;
    folder.check(&format!("revoke --sha256 {hash}"), "acme ci is revoked", 7);
    folder.check_refused(
        &format!("revoke --sha256 {}", "0".repeat(64)),
        "no such key",
    );
    let states: Vec<KeyState> = folder.file().tenants[0]
        .keys
        .iter()
        .map(|k| k.state)
        .collect();
    use KeyState::{Active, Revoked};
    assert_eq!(states, [Revoked, Revoked, Revoked, Active]);
    folder.check(
        "check",
        "version 7, 1 tenants, 1 active keys, 0 expired, 3 revoked",
        7,
    );
    let json: serde_json::Value =
        serde_json::from_str(&folder.check("list --json", "k3", 7)).unwrap();
    assert_eq!(json[0]["keys"][0]["state"], "revoked");
}

#[test]
fn a_tenant_is_added_changed_and_suspended() {
    let folder = Folder::new();
    folder.check("add-tenant --tenant acme --plan pro", "acme is added", 1);
    folder.check("add-tenant --tenant acme --plan pro", "is there already", 1);
    folder.check_refused("add-tenant --tenant acme --plan free", "the plan pro");
    folder.check(
        "plan --tenant acme --plan free",
        "no other tenant has the plan free",
        2,
    );
    folder.check("plan --tenant acme --plan free", "already", 2);
    folder.check("suspend --tenant acme", "acme is suspended", 3);
    folder.check("suspend --tenant acme", "already", 3);
    assert_eq!(folder.file().tenants[0].state, TenantState::Suspended);
    folder.check("make --tenant acme", "is suspended", 4);
    folder.check("resume --tenant acme", "acme is active", 5);
    folder.check_refused("resume --tenant other", "there is no other");
    let limits = "limits --tenant acme";
    folder.check(
        &format!("{limits} --limit 500/60s --limit 5/1s/chat"),
        "acme has 2 limits of its own",
        6,
    );
    let kept = folder.file().tenants[0].limits.clone().unwrap();
    assert_eq!(kept.all().len(), 2);
    folder.check(&format!("{limits} --unlimited"), "acme has no limits", 7);
    folder.check(&format!("{limits} --of-plan"), "limits of its plan", 8);
    folder.check(&format!("{limits} --of-plan"), "already", 8);
    assert_eq!(folder.file().tenants[0].limits, None);
    folder.check_refused(limits, "required");
    folder.check_refused(&format!("{limits} --unlimited --of-plan"), "cannot be used");
    folder.check_refused(&format!("{limits} --limit 5"), "such as 500/60s");
    let chess = format!("{limits} --limit 5/1s/chess");
    folder.check_refused(&chess, "limits[0].class: must be one of chat");
    folder.check_refused("list --tenant other", "there is no other");
    check_amounts(&folder);

    let router = folder.0.path().join("router.yaml");
    fs::write(&router, "listen: x\nplans:\n  free: {tiers: []}\n").unwrap();
    let line = format!("--router {} plan --tenant acme --plan", router.display());
    folder.check_refused(
        &format!("{line} gold"),
        "tenants[0].plan: must be one of free",
    );
}

#[test]
fn the_head_the_mode_and_a_link_are_kept() {
    let folder = Folder::new();
    let real = folder.0.path().join("real.yaml");
    let head = "# Ours.\n\n# Call Ann.\n";
    fs::write(&real, format!("{head}version: 41\ntenants: [] # none\n")).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    symlink("real.yaml", folder.path()).unwrap();
    folder.check("add-tenant --tenant acme --plan pro", "version 42", 42);
    assert!(fs::symlink_metadata(folder.path()).unwrap().is_symlink());
    assert_eq!(mode(&real), 0o640);
    assert!(
        fs::read_to_string(&real)
            .unwrap()
            .starts_with(&format!("{head}version: 42"))
    );
    let mut names: Vec<_> = fs::read_dir(folder.0.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let beside = ["real.yaml.audit.jsonl", "real.yaml.lock"];
    assert_eq!(names, ["directory.yaml", "real.yaml", beside[0], beside[1]]);

    // What is not valid is not written over, and a key in the wrong place is
    // not repeated.
    let wrong = "version: 42\ntenants: [{id: a, plan: p, keys: [{id: k, sha256: weir_sk_x}]}]\n";
    fs::write(&real, wrong).unwrap();
    folder.check_refused(
        "add-tenant --tenant acme --plan pro",
        "tenants[0].keys[0].sha256",
    );
    let (_, err) = texts(&folder.command("check").output().unwrap());
    assert!(!err.contains("weir_sk_x"), "{err}");
}

#[test]
fn several_at_once_lose_nothing() {
    let folder = Folder::new();
    folder.check("add-tenant --tenant acme --plan pro", "", 1);
    let running: Vec<_> = (0..24)
        .map(|_| {
            let mut command = folder.command("make --tenant acme");
            command
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut shown: Vec<KeyHash> = running
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success());
            KeyHash::of(output.stdout.strip_suffix(b"\n").unwrap())
        })
        .collect();
    let file = folder.file();
    assert_eq!(file.version, 25);
    let mut kept: Vec<KeyHash> = file.tenants[0].keys.iter().map(|k| k.sha256).collect();
    shown.sort();
    kept.sort();
    assert_eq!(shown, kept);
}

/// From version 8 to 8.
fn check_amounts(folder: &Folder) {
    let kept = fs::read(folder.path()).unwrap();
    let allow = |line: &str| format!("allow --tenant acme {line}");
    let all = "--monthly-usd 12.50 --at-ceiling reject --counts cost --downgrade-percent 20 --tokens-per-minute 900 --in-flight 3";
    folder.check(&allow(all), "12.50 dollars a month, 900 tokens", 9);
    folder.check(&allow(all), "already", 9);
    let own = folder.file().tenants[0].allowance;
    let budget = own.budget.unwrap();
    assert_eq!(budget.near_from(), 10_000_000);
    assert_eq!(
        (budget.at_ceiling, budget.counts),
        (AtCeiling::Reject, Counts::Cost)
    );
    folder.check(
        &allow("--of-plan budget,in-flight"),
        "acme has 900 tokens a minute of its own",
        10,
    );
    for (line, says) in [
        ("", "required"),
        ("--at-ceiling reject", "--monthly-usd"),
        ("--monthly-usd 1.0000001", "at most 6 digits"),
        (
            "--monthly-usd 1 --downgrade-percent 101",
            "downgrade-percent: must be 0 to 100",
        ),
        ("--in-flight 0", "--in-flight"),
        ("--in-flight 1 --of-plan in-flight", "say one of both"),
    ] {
        folder.check_refused(allow(line).trim_end(), says);
    }
    fs::write(folder.path(), kept).unwrap();
}
