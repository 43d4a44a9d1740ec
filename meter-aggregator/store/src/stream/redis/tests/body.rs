//! What every stream does, on one Redis and on a cluster.

use super::server::Server;

mod one {
    use super::Server;

    crate::stream::body::body_of_tests!(Some(Server::start()));
}

mod cluster {
    use super::Server;

    crate::stream::body::body_of_tests!(Some(Server::start_cluster()));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn speed() {
    for fsync in ["always", "everysec"] {
        let server = Server::start_with(&["--appendonly", "yes", "--appendfsync", fsync]);
        crate::stream::speed::measure(&format!("Redis, {fsync}"), &server).await;
    }
}
