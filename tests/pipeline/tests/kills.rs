//! The aggregator is killed a hundred times while producers send and Stripe misbehaves:
//! what the ledger has is what was used, and what Stripe counts is what the ledger has.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use weir_pipeline_tests::{
    books::{Replica, World, members},
    load::{Way, under_load},
    made_up::{MADE, Random},
};

const KILLS: usize = 100;
const SEED: u64 = 7;
const TENANTS: [&str; 3] = ["acme", "solo", "third"];

#[test]
fn killed_a_hundred_times_nothing_is_lost_and_nothing_billed_twice() {
    let world = World::new(&TENANTS);
    let mut replica = Replica {
        name: "aggregator",
        data: "data",
        listen: "127.0.0.1:0",
        access_log: None,
        members: members(),
        variables: &[],
    };
    let mut aggregator = world.start(&replica);
    let address = aggregator.address.clone();
    replica.listen = &address;
    let way = Way {
        tenants: &TENANTS,
        addresses: std::slice::from_ref(&address),
        log: None,
        hours: 30,
        pause: Duration::from_millis(20),
    };
    let (truth, _running) = under_load(SEED, 4, &way, || {
        let mut random = Random::new(SEED, 100);
        for _ in 0..KILLS {
            world.misbehave(&mut random);
            std::thread::sleep(Duration::from_millis(20 + random.below(400)));
            aggregator.process.kill();
            aggregator = world.start(&replica);
        }
        aggregator
    });
    world.heal();
    world.check_adds_up(&replica, &truth);
    println!("{} events, {} sums", MADE.load(Relaxed), truth.len());
}
