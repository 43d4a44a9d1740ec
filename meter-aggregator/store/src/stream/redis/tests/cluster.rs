//! A cluster of three masters, whose slots move.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use weir_meter_core::lease::Shard;

use super::server::Server;
use crate::stream::{
    body::{Reading, events, shard, texts},
    redis::{RedisSettings, RedisStream},
    transport::{Lane, LaneReader, Transport},
};

const LONG: Duration = Duration::from_secs(40);
const SHORT: Duration = Duration::from_millis(20);

/// The slots of each node at first.
const SLOTS: [[&str; 2]; 3] = [["0", "5460"], ["5461", "10922"], ["10923", "16383"]];

struct Cluster {
    nodes: Vec<Server>,
}

impl Cluster {
    fn start() -> Self {
        let nodes: Vec<_> = SLOTS.iter().map(|_| Server::start_node(&[])).collect();
        let port = nodes[0].port.to_string();
        for (node, ([from, to], epoch)) in nodes.iter().zip(SLOTS.iter().zip(["1", "2", "3"])) {
            node.run::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", epoch]);
            node.run::<()>(&["CLUSTER", "ADDSLOTSRANGE", from, to]);
            if node.port != nodes[0].port {
                node.run::<()>(&["CLUSTER", "MEET", "127.0.0.1", &port]);
            }
        }
        let is_up = |node: &Server| {
            let info = node.run::<String>(&["CLUSTER", "INFO"]);
            let has = |line: &str| info.lines().any(|l| l.trim() == line);
            has("cluster_state:ok") && has("cluster_known_nodes:3") && has("cluster_size:3")
        };
        let end = Instant::now() + LONG;
        while !nodes.iter().all(is_up) {
            assert!(Instant::now() < end, "the cluster does not come up");
            std::thread::sleep(SHORT);
        }
        Self { nodes }
    }

    async fn stream(&self, consumer: &str) -> Arc<dyn Transport> {
        let settings = RedisSettings {
            ledger: "one".to_owned(),
            ..self.nodes[0].settings(consumer)
        };
        Arc::new(RedisStream::open(settings).await.unwrap())
    }

    /// The nodes' numbers by shard, at first.
    fn owners(&self) -> Vec<usize> {
        let owner = |shard: Shard| {
            let key = key(shard.number());
            let slot = self.nodes[0].run::<u32>(&["CLUSTER", "KEYSLOT", &key]);
            let is_its = |[_, to]: &[&str; 2]| slot <= to.parse().unwrap();
            SLOTS.iter().position(is_its).unwrap()
        };
        Shard::all().map(owner).collect()
    }

    /// How many entries a shard has at that node, which has its slot.
    fn length(&self, node: usize, number: u16) -> u64 {
        self.nodes[node].run(&["XLEN", &key(number)])
    }

    /// Gives a shard's slot to another node, as `redis-cli --cluster reshard` does.
    fn give(&self, number: u16, from: usize, to: usize) {
        let (source, target) = (&self.nodes[from], &self.nodes[to]);
        let id = |node: &Server| node.run::<String>(&["CLUSTER", "MYID"]);
        let slot = source.run::<u32>(&["CLUSTER", "KEYSLOT", &key(number)]);
        let slot = slot.to_string();
        let set = |node: &Server, how: &str, other: &Server| {
            node.run::<()>(&["CLUSTER", "SETSLOT", &slot, how, &id(other)]);
        };
        set(target, "IMPORTING", source);
        set(source, "MIGRATING", target);
        let port = target.port.to_string();
        loop {
            let keys: Vec<String> = source.run(&["CLUSTER", "GETKEYSINSLOT", &slot, "1"]);
            let Some(key) = keys.first() else { break };
            source.run::<()>(&["MIGRATE", "127.0.0.1", &port, key, "0", "20000"]);
            // Meanwhile it is asked of both.
            std::thread::sleep(SHORT);
        }
        set(target, "NODE", target);
        set(source, "NODE", target);
        for node in &self.nodes {
            set(node, "NODE", target);
        }
    }
}

fn key(number: u16) -> String {
    format!("{{weir:usage:{number}}}:events")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_lie_on_all_masters() {
    let cluster = Cluster::start();
    let owners = cluster.owners();
    let different: BTreeSet<_> = owners.iter().collect();
    assert_eq!(different.len(), 3, "{owners:?}");
    let stream = cluster.stream("a").await;
    let all = Shard::all().flat_map(|shard| events(shard.number(), "one", 10));
    stream.append(all.collect()).await.unwrap();
    let waits = || async {
        let waiting = stream.waiting().await.unwrap();
        assert_eq!(waiting.len(), 16);
        waiting.iter().map(|w| w.entries).sum::<u64>()
    };
    assert_eq!(waits().await, 16);
    for (number, owner) in (0..).zip(&owners) {
        assert_eq!(cluster.length(*owner, number), 1);
        let mut reading = Reading::begin(&stream, number, 0).await;
        assert_eq!(reading.take(10).await, texts(&events(number, "one", 10)));
        reading.book().await;
        assert!(reading.is_empty().await);
        assert_eq!(cluster.length(*owner, number), 0);
    }
    assert_eq!(waits().await, 0);
}

/// What is there goes with its slot, and a reader that waits goes after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_follows_its_slot() {
    let cluster = Cluster::start();
    let from = cluster.owners()[3];
    let stream = cluster.stream("a").await;
    stream.append(events(3, "booked", 10)).await.unwrap();
    let mut reading = Reading::begin(&stream, 3, 0).await;
    reading.take(10).await;
    reading.book().await;
    drop(reading);
    let following = tokio::spawn({
        let stream = Arc::clone(&stream);
        async move { follow(&stream, LONG, |booked, _| booked.len() == 10).await }
    });
    let end = Instant::now() + LONG;
    let is_waiting = || {
        let clients = cluster.nodes[from].run::<String>(&["INFO", "clients"]);
        clients.contains("blocked_clients:1\r")
    };
    while !is_waiting() {
        assert!(Instant::now() < end, "nobody waits");
        tokio::time::sleep(SHORT).await;
    }
    tokio::task::block_in_place(|| cluster.give(3, from, (from + 1) % 3));
    while let Err(error) = stream.append(events(3, "after", 10)).await {
        assert!(Instant::now() < end, "{error}");
        tokio::time::sleep(SHORT).await;
    }
    let expected = texts(&events(3, "after", 10)).into_iter().collect();
    assert_eq!(following.await.unwrap(), expected);
}

/// Reads and books as an aggregator does, until that is so of what the ledger has, and of
/// whether there was no more. A ledger knows each event once.
async fn follow(
    stream: &Arc<dyn Transport>,
    patience: Duration,
    is_done: impl Fn(&BTreeSet<String>, bool) -> bool,
) -> BTreeSet<String> {
    let mut booked = BTreeSet::new();
    let mut reader: Option<Box<dyn LaneReader>> = None;
    let end = Instant::now() + LONG * 2;
    loop {
        assert!(Instant::now() < end, "{}", booked.len());
        let Some(mut reading) = reader.take() else {
            reader = stream.reader(Lane::Of(shard(3)), 0).await.ok();
            tokio::time::sleep(SHORT).await;
            continue;
        };
        let Ok(chunk) = reading.read(30, patience).await else {
            continue;
        };
        assert!(chunk.lost.is_empty(), "{:?}", chunk.lost);
        let is_empty = chunk.events.is_empty();
        booked.extend(chunk.events.into_iter().map(|(_, text)| text));
        if reading.booked().await.is_ok() {
            if is_done(&booked, is_empty) {
                return booked;
            }
            reader = Some(reading);
        }
    }
}

/// Under load, there and back again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_loses_nothing() {
    let cluster = Arc::new(Cluster::start());
    let from = cluster.owners()[3];
    let to = (from + 1) % 3;
    let stream = cluster.stream("a").await;
    let taken = Arc::new(AtomicUsize::new(0));
    let is_over = Arc::new(AtomicBool::new(false));
    let appending = tokio::spawn({
        let stream = Arc::clone(&stream);
        let (taken, is_over) = (Arc::clone(&taken), Arc::clone(&is_over));
        async move {
            let mut acknowledged = BTreeSet::new();
            let mut n = 0_u32;
            while !is_over.load(Ordering::SeqCst) {
                n += 1;
                let part = events(3, &format!("part {n}"), 5);
                if stream.append(part.clone()).await.is_ok() {
                    acknowledged.extend(texts(&part));
                    taken.fetch_add(1, Ordering::SeqCst);
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            acknowledged
        }
    });
    let moving = tokio::task::spawn_blocking({
        let cluster = Arc::clone(&cluster);
        move || {
            let more_is_taken = || {
                let (end, before) = (Instant::now() + LONG, taken.load(Ordering::SeqCst));
                while taken.load(Ordering::SeqCst) < before + 20 {
                    assert!(Instant::now() < end, "nothing is taken");
                    std::thread::sleep(SHORT);
                }
            };
            more_is_taken();
            cluster.give(3, from, to);
            more_is_taken();
            cluster.give(3, to, from);
            more_is_taken();
        }
    });
    let ended = Arc::new(AtomicBool::new(false));
    let following = tokio::spawn({
        let (stream, ended) = (Arc::clone(&stream), Arc::clone(&ended));
        async move {
            let is_done = |_: &BTreeSet<String>, is_empty| is_empty && ended.load(Ordering::SeqCst);
            follow(&stream, SHORT, is_done).await
        }
    });
    moving.await.unwrap();
    is_over.store(true, Ordering::SeqCst);
    let acknowledged = appending.await.unwrap();
    ended.store(true, Ordering::SeqCst);
    let mut booked = following.await.unwrap();
    // Its last look may have been before the last append.
    booked.extend(follow(&stream, SHORT, |_, is_empty| is_empty).await);
    let lost: Vec<_> = acknowledged.difference(&booked).collect();
    assert!(lost.is_empty(), "{lost:?}");
    assert_eq!(cluster.length(from, 3), 0);
}
