//! The router serves its directory, follows the file and stops.

use weir_wire::{
    directory::{Page, SNAPSHOT_PATH, Version},
    proto::directory::SnapshotRequest,
};

use super::*;

fn ask(address: &str, held: Option<Version>) -> Page {
    let request = SnapshotRequest {
        held: held.map(Into::into),
        ..Default::default()
    };
    Page::decode(&super::ask(address, SNAPSHOT_PATH, &request)).unwrap()
}

#[test]
fn the_file_is_followed_until_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let file = folder.join("directory.yaml");
    let log = || fs::read_to_string(folder.join("log")).unwrap();
    fs::write(&file, "version: 1\ntenants: [{id: a, plan: pro}]\n").unwrap();
    let mut router = start(folder, &[PLANS, DIRECTORY], TOKEN);
    let ready = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let address = wait_for("address", || ready("directory-ready"));
    wait_for("router", || ready("ready"));
    let first = ask(&address, None);
    assert_eq!(
        (first.version.number, first.base, first.tenants.len()),
        (1, None, 1)
    );

    fs::write(&file, "version: 2\ntenants: [{id: a, plan: free}]\n").unwrap();
    wait_for("error", || log().contains("tenants[0].plan").then_some(()));
    assert_eq!(ask(&address, None).version, first.version);

    fs::write(&file, "version: 2\ntenants: [{id: b, plan: pro}]\n").unwrap();
    let next = wait_for("version 2", || {
        let page = ask(&address, Some(first.version));
        (page.version.number == 2).then_some(page)
    });
    assert_eq!(next.base, Some(first.version));
    assert_eq!((next.tenants.len(), next.removed.len()), (1, 1));

    // A gateway that is connected and silent keeps nothing from stopping.
    let _idle = TcpStream::connect(&address).unwrap();
    router.stop(log);
    assert!(TcpStream::connect(&address).is_err());
    assert!(!log().contains(TOKEN));
    assert_eq!(
        log().matches("tenants[0].plan").count(),
        1,
        "told once: {}",
        log()
    );
}

#[test]
fn what_is_wrong_at_the_start_is_named() {
    let check = |directory: &str, token: &str, says: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("directory.yaml"), directory).unwrap();
        check_no_start(folder.path(), &[PLANS, DIRECTORY], token, says);
    };
    check(
        "version: 1\ntenants: []\n",
        "short",
        &["WEIR_DIRECTORY_TOKEN", "found 5"],
    );
    check(
        "version: 0\ntenants: []\n",
        TOKEN,
        &["directory.yaml: version: ", "found 0"],
    );
    check("tenants: []\n", TOKEN, &["directory.yaml", "version"]);
}
