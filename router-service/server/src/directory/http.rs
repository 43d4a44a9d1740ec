//! The directory's listener: one page for each request of a gateway.

use axum::{
    Router,
    body::Bytes,
    extract::{Request, State},
    response::Response,
    routing::get,
};
use http::StatusCode;
use weir_wire::{directory::SNAPSHOT_PATH, proto::directory::SnapshotRequest};

use super::Shared;
use crate::callout::{Gate, Refused, message};

/// The largest request: two versions and a number are some 50 bytes.
const BODY_MAX_BYTES: usize = 4 << 10;

#[derive(Clone)]
struct Listener {
    shared: Shared,
    gate: Gate,
}

/// Everything on the port.
pub fn routes(shared: Shared, token: &str) -> Router {
    let gate = Gate::new("directory", token, BODY_MAX_BYTES);
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route(SNAPSHOT_PATH, axum::routing::any(snapshot))
        .layer(gate.body_limit())
        .with_state(Listener { shared, gate })
}

async fn snapshot(State(listener): State<Listener>, request: Request) -> Response {
    message(listener.answer(request).await)
}

impl Listener {
    async fn answer(&self, request: Request) -> Result<Bytes, Refused> {
        let asked: SnapshotRequest = self.gate.read(request, "SnapshotRequest").await?;
        let page = self.shared.page(&asked);
        page.map_err(|gone| Refused::new(StatusCode::GONE, gone.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::header;
    use prost::Message as _;
    use weir_wire::{directory::Page, proto::directory::Version, usage::PROTO_CONTENT_TYPE};

    use super::*;
    use crate::callout::tests::{TOKEN, ask, check, check_refusals, request};

    fn routes() -> Router {
        let text = "version: 3\ntenants:\n  - {id: acme, plan: p}\n";
        let path = std::path::Path::new("directory.yaml");
        let state = super::super::understand(path, text, &Default::default()).unwrap();
        super::routes(
            Shared::new(state, crate::offers::tests::offers()).unwrap(),
            TOKEN,
        )
    }

    #[tokio::test]
    async fn a_gateway_gets_its_page() {
        let request = || request(SNAPSHOT_PATH);
        let (status, headers, body) = ask(routes(), request().body(Body::empty()).unwrap()).await;
        assert_eq!(
            (status, headers[header::CONTENT_TYPE].as_bytes()),
            (StatusCode::OK, PROTO_CONTENT_TYPE.as_bytes())
        );
        let page = Page::decode(&body).unwrap();
        assert_eq!(
            (page.version.number, page.base, page.tenants.len()),
            (3, None, 1)
        );
        let held = SnapshotRequest {
            held: Some(page.version.into()),
            ..Default::default()
        };
        let held = request().body(held.encode_to_vec().into()).unwrap();
        let (_, _, body) = ask(routes(), held).await;
        let same = Page::decode(&body).unwrap();
        assert_eq!((same.base, same.tenants.len()), (Some(page.version), 0));
    }

    #[tokio::test]
    async fn others_are_refused() {
        check_refusals(routes(), SNAPSHOT_PATH, "SnapshotRequest", BODY_MAX_BYTES).await;
        let reading = SnapshotRequest {
            reading: Some(Version {
                number: 2,
                digest: 1,
            }),
            ..Default::default()
        };
        let request = request(SNAPSHOT_PATH).body(reading.encode_to_vec().into());
        check(&ask(routes(), request.unwrap()).await, 410, "begin again");
    }
}
