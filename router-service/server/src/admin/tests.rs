//! The service as operators see it, on a port, over a real file.

mod refusals;

use std::{collections::BTreeSet, fs, path::PathBuf, time::Duration};

use axum::Extension;
use tokio::net::TcpListener;
use tonic::{Code, Request, Status, transport::Channel};
use weir_process::ClientCertificate;
use weir_router_core::directory::{
    audit::{Entry, State},
    change::{Change, NewKey},
    file::File,
};
use weir_router_store::directory::new_secret;
use weir_wire::{
    ids::{PlanName, TenantId},
    key_hash::KeyHash,
    timestamp::Timestamp,
};

use super::{
    proto::{tenants_client::TenantsClient, update_tenant_request::LimitsChange, *},
    *,
};

struct Service {
    folder: tempfile::TempDir,
    client: TenantsClient<Channel>,
}

impl Service {
    /// Ends with the test. Callers are who their certificate says they are, which
    /// is `name`'s for all.
    async fn start(name: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let directory = directory(&folder);
        fs::write(path(&folder), "# Ours.\nversion: 1\ntenants: []\n").unwrap();
        let service = tenants_server(directory, |_, extensions| {
            let client = extensions.get::<ClientCertificate>()?;
            Actor::service(client.names.first()?).ok()
        });
        let names: Vec<String> = name.into_iter().map(str::to_owned).collect();
        let caller = Extension(ClientCertificate {
            names: names.into(),
        });
        let (_, routes) =
            weir_process::grpc::routes(&[SERVICE_NAME], crate::proto::FILE_DESCRIPTOR_SET)
                .await
                .unwrap();
        let routes = routes.add_service(service).into_axum_router().layer(caller);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(weir_process::serve(
            listener,
            routes,
            std::future::pending(),
            Duration::ZERO,
        ));
        let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
        let client = TenantsClient::new(channel);
        Self { folder, client }
    }

    fn file(&self) -> File {
        File::parse(&fs::read_to_string(path(&self.folder)).unwrap()).unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("directory.yaml.audit.jsonl")).unwrap()
    }

    async fn create(&mut self, tenant: &str) -> Tenant {
        let created = self.client.create_tenant(create(tenant, "pro")).await;
        created.unwrap().into_inner()
    }
}

fn path(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("directory.yaml")
}

fn directory(folder: &tempfile::TempDir) -> DirectoryFile {
    let plans = ["pro", "free"].map(|p| PlanName::new(p).unwrap());
    DirectoryFile::new(&path(folder), None, BTreeSet::from(plans))
}

fn create(tenant: &str, plan: &str) -> CreateTenantRequest {
    CreateTenantRequest {
        tenant: tenant.to_owned(),
        plan: plan.to_owned(),
        limits: None,
    }
}

fn update(plan: Option<&str>, limits_change: Option<LimitsChange>) -> UpdateTenantRequest {
    UpdateTenantRequest {
        tenant: "acme".to_owned(),
        plan: plan.map(str::to_owned),
        limits_change,
    }
}

fn limits(requests: u32, class: &str) -> Limits {
    let limit = Limit {
        requests,
        window_s: 60,
        class: class.to_owned(),
    };
    Limits {
        limits: vec![limit],
    }
}

fn make(tenant: &str, name: &str, expires_in_s: Option<i64>) -> MakeKeyRequest {
    let now_s = weir_process::now_ms() / 1_000;
    MakeKeyRequest {
        tenant: tenant.to_owned(),
        name: name.to_owned(),
        expires_at: expires_in_s.map(|s| prost_types::Timestamp {
            seconds: now_s.saturating_add(s),
            nanos: 0,
        }),
    }
}

fn rotate(key: &str, grace_s: Option<i64>) -> RotateKeyRequest {
    RotateKeyRequest {
        tenant: "acme".to_owned(),
        key: key.to_owned(),
        grace: grace_s.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
        ..Default::default()
    }
}

fn revoke(tenant: &str, which: revoke_key_request::Which) -> RevokeKeyRequest {
    RevokeKeyRequest {
        tenant: tenant.to_owned(),
        which: Some(which),
    }
}

#[tokio::test]
async fn a_tenant_lives() {
    let mut service = Service::start(Some("spiffe://weir/console")).await;
    let created = service.create("acme").await;
    assert_eq!(
        (created.plan.as_str(), created.directory_version),
        ("pro", 2)
    );
    assert_eq!(created.state(), TenantState::Active);
    let client = &mut service.client;
    for (change, version, says) in [
        (update(Some("free"), None), 3, (None, "free")),
        (update(Some("free"), None), 3, (None, "free")),
        (
            update(Some("pro"), Some(LimitsChange::Limits(limits(5, "chat")))),
            4,
            (Some(limits(5, "chat")), "pro"),
        ),
        (
            update(None, Some(LimitsChange::Limits(Limits::default()))),
            5,
            (Some(Limits::default()), "pro"),
        ),
        (
            update(None, Some(LimitsChange::LimitsOfPlan(true))),
            6,
            (None, "pro"),
        ),
    ] {
        let tenant = client.update_tenant(change).await.unwrap().into_inner();
        assert_eq!(tenant.directory_version, version);
        assert_eq!((tenant.limits, tenant.plan.as_str()), says);
    }
    let tenant = || "acme".to_owned();
    for _ in 0..2 {
        let suspend = SuspendTenantRequest { tenant: tenant() };
        let found = client.suspend_tenant(suspend).await.unwrap().into_inner();
        assert_eq!(found.state(), TenantState::Suspended);
        assert_eq!(found.directory_version, 7);
    }
    for _ in 0..2 {
        let resume = ResumeTenantRequest { tenant: tenant() };
        let found = client.resume_tenant(resume).await.unwrap().into_inner();
        assert_eq!(found.state(), TenantState::Active);
    }
    let get = GetTenantRequest { tenant: tenant() };
    let found = client.get_tenant(get).await.unwrap().into_inner();
    assert_eq!(found.directory_version, service.file().version);
    let text = fs::read_to_string(path(&service.folder)).unwrap();
    assert!(text.starts_with("# Ours.\nversion: 8\n"), "{text}");
    let log = service.log();
    let actor = "\"actor\":\"service:spiffe://weir/console\"";
    assert_eq!(log.matches(actor).count(), log.lines().count());
    // The change of plan and limits at once is two facts.
    assert_eq!(log.lines().count(), 2 * 8, "{log}");
}

#[tokio::test]
async fn a_key_is_told_once_and_ends() {
    let mut service = Service::start(Some("console")).await;
    service.create("acme").await;
    let client = &mut service.client;
    let made = client.make_key(make("acme", "", Some(3_600))).await;
    let first = made.unwrap().into_inner();
    let key = first.key.unwrap();
    assert_eq!((key.key.as_str(), key.state()), ("k1", KeyState::Active));
    assert!(first.secret.starts_with(&key.prefix));

    let unsaid = client.rotate_key(rotate("k1", Some(60))).await;
    check(
        unsaid,
        Code::FailedPrecondition,
        "expires_at: acme k1 expires",
    );
    let mut endless = rotate("k1", Some(0));
    endless.never_expires = true;
    let rotated = client.rotate_key(endless).await.unwrap().into_inner();
    let (new, old) = (rotated.key.unwrap(), rotated.replaced.unwrap());
    assert_eq!((new.key.as_str(), new.expires_at), ("k2", None));
    assert_eq!((old.key.as_str(), old.state()), ("k1", KeyState::Expired));
    assert_ne!(rotated.secret, first.secret);

    let hash = KeyHash::of(rotated.secret.as_bytes()).to_string();
    use revoke_key_request::Which;
    for (tenant, which, key) in [
        ("acme", Which::Key("k1".to_owned()), "k1"),
        ("", Which::Prefix(new.prefix.clone()), "k2"),
        ("", Which::Sha256(hash.clone()), "k2"),
    ] {
        let found = client.revoke_key(revoke(tenant, which)).await.unwrap();
        let found = found.into_inner();
        let shown = found.key.unwrap();
        assert_eq!((found.tenant.as_str(), shown.key.as_str()), ("acme", key));
        assert_eq!(shown.state(), KeyState::Revoked);
    }
    let file = service.file();
    let hashes: Vec<String> = file.tenants[0]
        .keys
        .iter()
        .map(|k| k.sha256.to_string())
        .collect();
    assert_eq!(
        hashes,
        [KeyHash::of(first.secret.as_bytes()).to_string(), hash]
    );
    let log = service.log();
    for never in hashes.iter().chain([&first.secret, &rotated.secret]) {
        assert!(!log.contains(never.as_str()), "{log}");
    }
    assert_eq!(file.version, 6);
}

#[track_caller]
fn check<T>(found: Result<T, Status>, code: Code, says: &str) {
    let status = found.err().unwrap();
    assert_eq!(status.code(), code, "{status:?}");
    assert!(
        status.message().contains(says),
        "{status:?} should say {says}"
    );
}

#[tokio::test]
async fn pages_have_each_tenant_once() {
    let mut service = Service::start(Some("console")).await;
    let ids: Vec<String> = (0..25).map(|i| format!("t{i:02}")).collect();
    let tenants: Vec<String> = ids
        .iter()
        .rev()
        .map(|id| format!("  - {{id: {id}, plan: pro}}\n"))
        .collect();
    let text = format!("version: 9\ntenants:\n{}", tenants.concat());
    fs::write(path(&service.folder), text).unwrap();
    for page_size in [0, 1, 10, 25, 26] {
        let mut request = ListTenantsRequest {
            page_size,
            page_token: String::new(),
        };
        let mut found = Vec::new();
        loop {
            let page = service.client.list_tenants(request.clone()).await.unwrap();
            let page = page.into_inner();
            assert!(page_size == 0 || page.tenants.len() <= page_size as usize);
            found.extend(page.tenants.into_iter().map(|tenant| tenant.tenant));
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        assert_eq!(found, ids, "{page_size}");
    }
    let large = ListTenantsRequest {
        page_size: 1_001,
        page_token: String::new(),
    };
    let large = service.client.list_tenants(large).await;
    check(
        large,
        Code::InvalidArgument,
        "page_size: must be at most 1000",
    );
}

/// Operators on a command line and by gRPC at once: nobody's key is lost, and the
/// log has each version once.
#[tokio::test]
async fn two_writers_lose_nothing() {
    const EACH: u64 = 40;
    let mut service = Service::start(Some("console")).await;
    service.create("acme").await;
    let other = directory(&service.folder);
    let by_command = tokio::task::spawn_blocking(move || {
        let (ann, now) = (Actor::cli("ann").unwrap(), Timestamp::from_ms(1).unwrap());
        let make = |_| {
            let change = Change::Make {
                tenant: TenantId::new("acme").unwrap(),
                plan: None,
                key: NewKey {
                    name: None,
                    expires_at: None,
                    secret: new_secret().unwrap(),
                },
            };
            let done = other.change(change, &ann, now).ok().unwrap().done;
            done.secret.unwrap().hash()
        };
        (0..EACH).map(make).collect::<Vec<KeyHash>>()
    });
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..EACH {
        let mut client = service.client.clone();
        calls.spawn(async move {
            let made = client.make_key(Request::new(make("acme", "", None))).await;
            KeyHash::of(made.unwrap().into_inner().secret.as_bytes())
        });
    }
    let mut told: Vec<KeyHash> = calls.join_all().await;
    told.extend(by_command.await.unwrap());
    let file = service.file();
    let mut kept: Vec<KeyHash> = file.tenants[0].keys.iter().map(|key| key.sha256).collect();
    told.sort();
    kept.sort();
    assert_eq!(told, kept);
    assert_eq!(file.version, 2 + 2 * EACH);
    let log = service.log();
    let entries = log
        .lines()
        .map(|l| serde_json::from_str::<Entry>(l).unwrap());
    let done = entries.filter(|entry| entry.state == State::Done);
    let versions: Vec<u64> = done.map(|entry| entry.version_after).collect();
    assert_eq!(versions, (2..=file.version).collect::<Vec<u64>>());
}
