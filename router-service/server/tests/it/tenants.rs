//! The port of tenants' paths: a catalogue that changes, TLS, and the switch for
//! development.

use std::path::PathBuf;

use super::*;

const PLANS: &str = "plans: {pro: {tiers: [fast]}}\n";

const TRUSTING: &str = "development: {trust_tenant_headers: true}\n";

fn client() -> reqwest::ClientBuilder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy()
}

/// The models that a tenant of the plan `pro` has, by bare headers.
async fn models(address: &str) -> Result<Vec<String>, reqwest::StatusCode> {
    let request = client()
        .build()
        .unwrap()
        .get(format!("http://{address}/v1/models"))
        .header("x-tenant-id", "acme")
        .header("x-tenant-plan", "pro");
    let answer = request.send().await.unwrap();
    if !answer.status().is_success() {
        return Err(answer.status());
    }
    let body: serde_json::Value = answer.json().await.unwrap();
    let models = body["data"].as_array().unwrap().iter();
    Ok(models
        .map(|m| m["id"].as_str().unwrap().to_owned())
        .collect())
}

async fn wait_until(folder: &Path, says: &str) {
    let start = Instant::now();
    while !fs::read_to_string(folder.join("log"))
        .unwrap()
        .contains(says)
    {
        assert!(start.elapsed() < Duration::from_secs(30), "no {says}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_catalogue_is_followed_and_a_wrong_one_is_not_served() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut router = start(folder, &[PLANS, TRUSTING], TOKEN);
    let address = wait_for("address", || fs::read_to_string(folder.join("ready")).ok());
    wait_until(folder, "trust_tenant_headers is on").await;
    let before = models(&address).await.unwrap();
    assert!(before.contains(&"gpt-4o-mini".to_owned()), "{before:?}");

    let path = folder.join("catalogue.yaml");
    let shipped = fs::read_to_string(&path).unwrap();
    fs::write(&path, shipped.replace("tier: fast", "teir: fast")).unwrap();
    wait_until(folder, "teir").await;
    assert_eq!(models(&address).await.unwrap(), before);
    fs::write(&path, shipped.replace("gpt-4o-mini", "gpt-4o-tiny")).unwrap();
    wait_until(folder, "serving a new catalogue").await;
    let after = models(&address).await.unwrap();
    assert!(after.contains(&"gpt-4o-tiny".to_owned()), "{after:?}");
    router.stop(|| fs::read_to_string(folder.join("log")).unwrap());
}

#[tokio::test]
async fn bare_headers_are_nobodys_without_the_switch() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let _router = start(folder, &[PLANS], TOKEN);
    let address = wait_for("address", || fs::read_to_string(folder.join("ready")).ok());
    assert_eq!(models(&address).await.unwrap_err(), 401);
}

/// A certificate for `localhost` of an authority of its own, in `folder`; gives the
/// authority's.
fn certificate(folder: &Path) -> (PathBuf, String) {
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let authority_text = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned()];
    let params = rcgen::CertificateParams::new(names).unwrap();
    let signed = params.signed_by(&key, &issuer).unwrap();
    fs::write(folder.join("router.crt"), signed.pem()).unwrap();
    fs::write(folder.join("router.key"), key.serialize_pem()).unwrap();
    let path = folder.join("ca.crt");
    fs::write(&path, &authority_text).unwrap();
    (path, authority_text)
}

#[tokio::test]
async fn tenants_and_services_are_served_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (_, authority) = certificate(folder);
    let sections = concat!(
        "tls: {cert: router.crt, key: router.key}\n",
        "services: {listen: '127.0.0.1:0', tls: {cert: router.crt, key: router.key, client_ca: ca.crt}}\n"
    );
    let _router = start(folder, &[PLANS, sections], TOKEN);
    let port = |name: &str| {
        let address = wait_for(name, || fs::read_to_string(folder.join(name)).ok());
        address.rsplit_once(':').unwrap().1.to_owned()
    };
    let root = reqwest::Certificate::from_pem(authority.as_bytes()).unwrap();
    let client = client().tls_certs_only([root]).build().unwrap();
    let tenants = format!("https://localhost:{}/healthz", port("ready"));
    let answer = client.get(&tenants).send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "ok");
    let plain = client.get(tenants.replace("https", "http")).send().await;
    assert!(plain.is_err(), "{plain:?}");
    // Who has no certificate does not even get to say a token.
    let services = format!("https://localhost:{}/", port("services-ready"));
    let refused = client.get(&services).bearer_auth(TOKEN).send().await;
    assert!(refused.is_err(), "{refused:?}");
}

#[test]
fn services_that_others_reach_need_tls() {
    let folder = tempfile::tempdir().unwrap();
    let open = "services: {listen: '0.0.0.0:0'}\n";
    check_no_start(
        folder.path(),
        &[PLANS, open],
        TOKEN,
        &["services.tls", "0.0.0.0"],
    );
    let short = "services: {listen: '127.0.0.1:0'}\n";
    check_no_start(
        folder.path(),
        &[PLANS, short],
        "short",
        &["WEIR_SERVICE_TOKEN"],
    );
}
