//! The aggregator is killed a hundred times while producers send and Stripe misbehaves:
//! what the ledger has is what was used, and what Stripe counts is what the ledger has.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use weir_harness::client;
use weir_pipeline_tests::{
    books::{Replica, World, members, publish},
    made_up::{MADE, Maker, Random, Truth, add},
};
use weir_wire::proto::usage::UsageEvent;

const KILLS: usize = 100;
const SEED: u64 = 7;
const TENANTS: [&str; 3] = ["acme", "solo", "third"];

/// Sends until it is told to stop; gives what it comes to.
fn produce(number: u64, address: &str, stop: &AtomicBool) -> Truth {
    let (http, addresses) = (client::client(), [address.to_owned()]);
    let mut maker = Maker::new(SEED, number, &TENANTS, 30);
    // What is told later than the rest.
    let mut late: Vec<(usize, UsageEvent)> = Vec::new();
    while !stop.load(Relaxed) {
        let mut batches: [Vec<UsageEvent>; 2] = Default::default();
        for _ in 0..1 + maker.random().below(20) {
            for (teller, event) in maker.request() {
                match maker.random().below(6) {
                    0 => late.push((teller, event)),
                    _ => batches[teller].push(event),
                }
            }
        }
        if maker.random().below(5) == 0 {
            late.drain(..)
                .for_each(|(teller, e)| batches[teller].push(e));
        }
        for (teller, events) in batches.into_iter().enumerate() {
            publish(&http, &addresses, teller, events);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    for (teller, event) in late {
        publish(&http, &addresses, teller, vec![event]);
    }
    maker.truth
}

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
    let stop = AtomicBool::new(false);
    let truth = std::thread::scope(|scope| {
        let producers: Vec<_> = (0..4_u64)
            .map(|n| {
                scope.spawn({
                    let (stop, address) = (&stop, &address);
                    move || produce(n, address, stop)
                })
            })
            .collect();
        let mut random = Random::new(SEED, 100);
        for _ in 0..KILLS {
            world.misbehave(&mut random);
            std::thread::sleep(Duration::from_millis(20 + random.below(400)));
            aggregator.process.kill();
            aggregator = world.start(&replica);
        }
        stop.store(true, Relaxed);
        let mut truth = Truth::new();
        for producer in producers {
            add(&mut truth, producer.join().unwrap());
        }
        truth
    });
    world.heal();
    world.check_adds_up(&replica, &truth);
    println!("{} events, {} sums", MADE.load(Relaxed), truth.len());
}
