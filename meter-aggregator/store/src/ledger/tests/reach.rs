//! How Postgres is reached.

use super::*;
use crate::testing::{self, Server};

fn use_it(place: &Place) {
    let ledger = Ledger::open_at(place).unwrap();
    assert_eq!(ledger.another().unwrap().progress("x").unwrap(), 0);
}

#[test]
fn it_may_be_used_wherever_the_caller_runs() {
    let place = testing::postgres().database();
    use_it(&place);
    let mut one = tokio::runtime::Builder::new_current_thread();
    let mut many = tokio::runtime::Builder::new_multi_thread();
    for builder in [&mut one, many.worker_threads(1)] {
        let runtime = builder.enable_all().build().unwrap();
        runtime.block_on(async {
            use_it(&place);
            let place = place.clone();
            tokio::task::spawn(async move {
                use_it(&place);
                tokio::task::spawn_blocking(move || use_it(&place))
                    .await
                    .unwrap();
            })
            .await
            .unwrap();
        });
    }
}

#[test]
fn the_url_is_never_shown() {
    for url in [
        "postgres://weir:sesame@127.0.0.1:1/x",
        "postgres://weir:sesame@nowhere.invalid/x?sslmode=none",
        "postgres://weir:sesame@[/x",
        "sesame",
    ] {
        let settings = PostgresSettings { url: url.into() };
        let place = Place::Postgres(settings);
        let error = Ledger::open_at(&place).err().unwrap();
        let said = format!("{error:#} {error:?} {place:?}");
        assert!(!said.contains("sesame"), "{said}");
    }
}

/// A port that nobody has, just now.
fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

#[test]
fn tls_is_as_the_url_says() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (made, other) = (certificate(), certificate());
    let write = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        testing::give_to_postgres(&path);
        path.display().to_string()
    };
    let own = write("own.pem", made.cert.pem());
    let key = write("key.pem", made.signing_key.serialize_pem());
    let stranger = write("other.pem", other.cert.pem());
    testing::give_to_postgres(folder.path());
    let port = free_port();
    let server = Server::start(&[
        "fsync=off",
        "ssl=on",
        &format!("ssl_cert_file={own}"),
        &format!("ssl_key_file={key}"),
        "listen_addresses=127.0.0.1",
        &format!("port={port}"),
    ]);
    let connect = |options: &str| {
        let url = format!("postgres://weir@localhost:{port}/postgres?{options}");
        let connection = Connection::of(Session::new(&url).unwrap());
        connection.query_row(
            "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
            [],
            |row| row.get::<_, bool>(0),
        )
    };
    let is_tls = |options: &str| connect(options).unwrap();
    assert!(is_tls(&format!("sslmode=verify-full&sslrootcert={own}")));
    assert!(is_tls("sslmode=require"));
    assert!(!is_tls("sslmode=disable"));
    let error = connect(&format!("sslmode=verify-full&sslrootcert={stranger}"));
    assert!(error.is_err());
    server.stop();
}
