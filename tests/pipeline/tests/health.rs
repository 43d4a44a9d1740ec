//! An aggregator on Postgres and Redis says that billing falls behind, and why: where the
//! ledger is away, where the stream is, where Stripe takes nothing; and that it keeps up
//! again.

use std::{
    thread,
    time::{Duration, Instant},
};

use reqwest::blocking::Client;
use serde_json::json;
use weir_harness::{aggregators::free_address, client, postgres::Postgres, redis::Redis};
use weir_pipeline_tests::{
    books::{Replica, World, members, publish},
    made_up::Maker,
};

const TENANTS: [&str; 2] = ["acme", "solo"];

/// What must come, comes in that time.
const PATIENCE: Duration = Duration::from_secs(90);

struct Asked<'a> {
    http: Client,
    address: &'a str,
}

impl Asked<'_> {
    fn get(&self, path: &str) -> (u16, String) {
        let url = format!("http://{}{path}", self.address);
        let answer = self.http.get(url).send().unwrap();
        (answer.status().as_u16(), answer.text().unwrap())
    }

    /// Waits until it says that, in words and to Prometheus.
    #[track_caller]
    fn becomes(&self, status: u16, words: &str) {
        let begun = Instant::now();
        loop {
            let (found, said) = self.get("/health/billing");
            if found == status && said.contains(words) {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{found} {said}, not {words}");
            thread::sleep(Duration::from_millis(100));
        }
        let expected = format!("weir_aggregator_billing_behind {}", u8::from(status != 200));
        let text = self.get("/metrics").1;
        assert!(text.lines().any(|line| line == expected), "{text}");
        assert_eq!(self.get("/healthz").0, 200);
    }
}

#[test]
fn billing_that_is_behind_says_so() {
    let world = World::new(&TENANTS);
    let mut postgres = Postgres::start(world.folder.path()).unwrap();
    let mut redis = Redis::durable(world.folder.path()).unwrap();
    let mut config = members();
    config["ledger"] = json!({"postgres": {"url_env": "WEIR_DATABASE_URL"}});
    config["stream"] = json!({"redis": {"url_env": "WEIR_REDIS_URL"}});
    config["health"] = json!({"unbooked_after_s": 2, "unbilled_after_s": 2});
    let (database, stream, listen) = (postgres.url(), redis.url(), free_address().unwrap());
    let replica = Replica {
        name: "aggregator",
        data: "data",
        listen: &listen,
        access_log: None,
        members: config,
        variables: &[
            ("WEIR_DATABASE_URL", &database),
            ("WEIR_REDIS_URL", &stream),
        ],
    };
    let _running = world.start(&replica);
    let asked = Asked {
        http: client::client(),
        address: &listen,
    };
    asked.becomes(200, "ok");

    postgres.kill9().unwrap();
    asked.becomes(503, "it is not known how far billing is");
    postgres.restart().unwrap();
    asked.becomes(200, "ok");

    redis.kill9();
    asked.becomes(503, "the stream can't be looked at");
    redis.restart().unwrap();
    asked.becomes(200, "ok");

    // Of the hour that is not over: it is no late hour that shows.
    let mut maker = Maker::new(20_261_127, 0, &TENANTS, 1);
    for (teller, event) in (0..20).flat_map(|_| maker.request()).collect::<Vec<_>>() {
        publish(
            &asked.http,
            std::slice::from_ref(&listen),
            teller,
            vec![event],
        );
    }
    world.refuse_all();
    thread::scope(|scope| {
        let closing = scope.spawn(|| world.command(&replica, &["close-hour", "--json"]));
        asked.becomes(503, "Stripe refuses the key");
        world.heal();
        let closed = closing.join().unwrap();
        let said = String::from_utf8_lossy(&closed.stderr);
        assert!(closed.status.success(), "{said}");
    });
    world.check_adds_up(&replica, &maker.truth);
    asked.becomes(200, "ok");
}
