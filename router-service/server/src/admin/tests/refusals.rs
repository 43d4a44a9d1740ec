//! What is refused, and how callers are told.

use super::*;

#[tokio::test]
async fn refusals_of_tenants_have_their_codes_and_name_the_field() {
    use Code::{AlreadyExists, FailedPrecondition, InvalidArgument};
    let mut service = Service::start(Some("console")).await;
    service.create("acme").await;
    let client = &mut service.client;
    for (tenant, plan, code, says) in [
        ("", "pro", InvalidArgument, "tenant: "),
        ("a$", "pro", InvalidArgument, "tenant: "),
        (
            "new",
            "gold",
            InvalidArgument,
            "plan: must be one of free, pro, found gold",
        ),
        (
            "acme",
            "pro",
            AlreadyExists,
            "tenant: acme is there already",
        ),
        ("acme", "free", AlreadyExists, "with the plan pro"),
    ] {
        check(client.create_tenant(create(tenant, plan)).await, code, says);
    }
    for (change, says) in [
        (update(None, None), "plan: or limits"),
        (
            update(None, Some(LimitsChange::LimitsOfPlan(false))),
            "limits_of_plan: ",
        ),
        (
            update(None, Some(LimitsChange::Limits(limits(0, "")))),
            "limits[0].requests: must be at least 1",
        ),
        (
            update(None, Some(LimitsChange::Limits(limits(1, "chess")))),
            "limits[0].class: must be one of",
        ),
    ] {
        check(client.update_tenant(change).await, InvalidArgument, says);
    }
    fs::write(path(&service.folder), "version: 0\ntenants: []\n").unwrap();
    let broken = service.client.create_tenant(create("new", "pro")).await;
    check(broken, FailedPrecondition, "version: must be at least 1");
    fs::remove_file(path(&service.folder)).unwrap();
    let request = ListTenantsRequest::default();
    check(
        service.client.list_tenants(request).await,
        Code::Internal,
        "cannot be read",
    );
}

#[tokio::test]
async fn refusals_of_keys_have_their_codes_and_name_the_field() {
    use Code::{AlreadyExists, InvalidArgument, NotFound};
    let mut service = Service::start(Some("console")).await;
    service.create("acme").await;
    let client = &mut service.client;
    client.make_key(make("acme", "ci", None)).await.unwrap();
    for (request, code, says) in [
        (
            make("other", "", None),
            NotFound,
            "tenant: there is no other",
        ),
        (
            make("acme", "ci", None),
            AlreadyExists,
            "name: acme has a key ci",
        ),
        (make("acme", "$", None), InvalidArgument, "name: "),
        (
            make("acme", "", Some(-1)),
            InvalidArgument,
            "expires_at: must be after now",
        ),
    ] {
        check(client.make_key(request).await, code, says);
    }
    let ages = make("acme", "", Some(1 << 50));
    check(client.make_key(ages).await, InvalidArgument, "expires_at: ");
}

#[tokio::test]
async fn refusals_of_the_end_of_keys_have_their_codes_and_name_the_field() {
    use Code::{FailedPrecondition, InvalidArgument, NotFound};
    let mut service = Service::start(Some("console")).await;
    service.create("acme").await;
    let client = &mut service.client;
    client.make_key(make("acme", "ci", None)).await.unwrap();
    for (request, code, says) in [
        (rotate("ci", None), InvalidArgument, "grace: must be there"),
        (
            rotate("ci", Some(-1)),
            InvalidArgument,
            "grace: must be 0 s or more",
        ),
        (rotate("k9", Some(1)), NotFound, "key: acme has no k9"),
    ] {
        check(client.rotate_key(request).await, code, says);
    }
    use revoke_key_request::Which::{Key, Prefix, Sha256};
    for (request, code, says) in [
        (
            RevokeKeyRequest::default(),
            InvalidArgument,
            "key: or prefix",
        ),
        (
            revoke("", Key("ci".to_owned())),
            InvalidArgument,
            "tenant: ",
        ),
        (
            revoke("", Prefix("weir_sk_".to_owned())),
            InvalidArgument,
            "at least 12",
        ),
        (
            revoke("", Sha256("weir_sk_x".to_owned())),
            InvalidArgument,
            "sha256: ",
        ),
        (
            revoke("acme", Key("k9".to_owned())),
            NotFound,
            "no such key",
        ),
    ] {
        let found = client.revoke_key(request).await;
        assert!(
            !found
                .as_ref()
                .is_err_and(|e| e.message().contains("weir_sk_x"))
        );
        check(found, code, says);
    }
    let ci = revoke("acme", Key("ci".to_owned()));
    client.revoke_key(ci).await.unwrap();
    let revoked = client.rotate_key(rotate("ci", Some(1))).await;
    check(revoked, FailedPrecondition, "key: acme ci is revoked");
}

#[tokio::test]
async fn who_has_no_name_changes_nothing() {
    let mut service = Service::start(None).await;
    let nobody = service.client.create_tenant(create("acme", "pro")).await;
    check(nobody, Code::Unauthenticated, "names nobody");
    assert_eq!(service.file().version, 1);
}
