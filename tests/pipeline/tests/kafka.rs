//! Aggregators on Kafka and Postgres. Kafka is librdkafka's own mock, in this process:
//! it speaks Kafka's protocol, and loses nothing while it runs.

use std::{thread, time::Duration};

use rdkafka::mocking::MockCluster;
use serde_json::json;
use weir_harness::{aggregators::free_address, client, postgres::Postgres};
use weir_pipeline_tests::{
    books::{Replica, World, members, publish},
    made_up::Maker,
};

const TENANTS: [&str; 6] = ["acme", "solo", "globex", "initech", "hooli", "wonka"];

const TOPIC: &str = "usage";

#[test]
fn what_came_through_kafka_is_billed_once() {
    let world = World::new(&TENANTS);
    let postgres = Postgres::start(world.folder.path()).unwrap();
    let kafka = MockCluster::new(3).unwrap();
    kafka.create_topic(TOPIC, 16, 3).unwrap();
    let mut config = members();
    config["ledger"] = json!({"postgres": {"url_env": "WEIR_DATABASE_URL", "lease_s": 3}});
    let servers: Vec<String> = kafka
        .bootstrap_servers()
        .split(',')
        .map(str::to_owned)
        .collect();
    config["stream"] = json!({"kafka": {"bootstrap_servers": servers, "topic": TOPIC}});
    let database = postgres.url();
    let variables = [("WEIR_DATABASE_URL", database.as_str())];
    let addresses = [free_address().unwrap(), free_address().unwrap()];
    let replica = |n: usize| Replica {
        name: ["kafka-1", "kafka-2"][n],
        data: ["data-1", "data-2"][n],
        listen: &addresses[n],
        access_log: None,
        members: config.clone(),
        variables: &variables,
    };
    let mut running = [0, 1].map(|n| world.start(&replica(n)));
    let http = client::client();
    let mut maker = Maker::new(20_261_127, 0, &TENANTS, 3);
    for round in 0..40 {
        for _ in 0..10 {
            for (teller, event) in maker.request() {
                publish(&http, &addresses, teller, vec![event]);
            }
        }
        // The offset goes with the booking: wherever one dies the next goes on from there.
        if round % 8 == 5 {
            let n = round / 8 % 2;
            running[n].process.kill();
            running[n] = world.start(&replica(n));
        }
        thread::sleep(Duration::from_millis(50));
    }
    world.check_adds_up(&replica(1), &maker.truth);
    let offsets = postgres.ask("SELECT count(*) FROM progress WHERE name LIKE 'kafka/usage/%'");
    assert!(offsets.unwrap().trim().parse::<u64>().unwrap() > 2);
}
