//! The router grants quota by the directory's newest state, and stops.

use weir_wire::{
    proto::quota::{AcquireRequest, AcquireResponse, Outcome},
    quota::ACQUIRE_PATH,
};

use super::*;

const LIMITED: &str = "plans: {pro: {tiers: [], limits: [{requests: 2, window_s: 60}]}}\n";

const QUOTA: &str = "quota: {listen: '127.0.0.1:0'}\n";

/// Asks for one request of tenant `a`.
fn ask(address: &str, id: u8) -> AcquireResponse {
    let request = AcquireRequest {
        tenant: "a".to_owned(),
        plan: "pro".to_owned(),
        acquire_id: vec![id; 16],
        wanted: 1,
        life_ms: 2_000,
        ..Default::default()
    };
    let answer = super::ask(address, ACQUIRE_PATH, &request);
    AcquireResponse::decode(answer.as_slice()).unwrap()
}

#[test]
fn a_tenants_limits_are_those_of_the_newest_directory() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let file = folder.join("directory.yaml");
    let log = || fs::read_to_string(folder.join("log")).unwrap();
    fs::write(&file, "version: 1\ntenants: [{id: a, plan: pro}]\n").unwrap();
    let mut router = start(folder, &[LIMITED, DIRECTORY, QUOTA], TOKEN);
    let ready = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let address = wait_for("address", || ready("quota-ready"));
    for (id, outcome) in [
        (1, Outcome::Granted),
        (2, Outcome::Granted),
        (3, Outcome::Denied),
    ] {
        assert_eq!(ask(&address, id).outcome(), outcome);
    }

    // What counted under the plan counts under the tenant's own limits.
    let raised = "version: 2\ntenants: [{id: a, plan: pro, limits: [{requests: 4, window_s: 60}]}]";
    fs::write(&file, raised).unwrap();
    let granted = wait_for("grant", || {
        let answer = ask(&address, 4);
        (answer.outcome() == Outcome::Granted).then_some(answer)
    });
    let limit = &granted.limits[0];
    assert_eq!((limit.requests, limit.remaining), (4, 1));

    let _idle = TcpStream::connect(&address).unwrap();
    router.stop(log);
    assert!(TcpStream::connect(&address).is_err());
    assert!(!log().contains(TOKEN));
}

#[test]
fn what_is_wrong_at_the_start_is_named() {
    let check = |sections: &[&str], token: &str, says: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        check_no_start(folder.path(), sections, token, says);
    };
    let quota = |more: &str| format!("quota: {{listen: '127.0.0.1:0', {more}}}\n");
    let redis = |more: &str| quota(&format!("redis: {{{more}}}"));
    let long = LIMITED.replace("60", "86401");
    check(&[&long], TOKEN, &["plans.pro.limits[0].window_s: must be "]);
    check(&[PLANS, QUOTA], "short", &["WEIR_QUOTA_TOKEN", "found 5"]);
    check(&[PLANS, &quota("rediss: {}")], TOKEN, &["rediss"]);
    check(
        &[PLANS, &quota("ratelimit_domain: ''")],
        TOKEN,
        &["quota.ratelimit_domain: "],
    );
    check(
        &[PLANS, &redis("url_env: NO_SUCH_URL")],
        TOKEN,
        &["quota.redis.url_env: ", "NO_SUCH_URL"],
    );
    check(
        &[PLANS, &redis("url_env: P_KEY, timeout_ms: 0")],
        TOKEN,
        &["quota.redis.timeout_ms: ", "found 0"],
    );
    check(
        &[PLANS, &redis("url_env: P_KEY")],
        TOKEN,
        &["quota.redis: "],
    );
}
