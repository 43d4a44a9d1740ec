//! Producers that send what they make up, to aggregators and to a gateway's log.

use std::{
    fs::{self, File},
    io::Write as _,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use prost::Message as _;
use weir_harness::client;
use weir_wire::{proto::usage::UsageEvent, usage::line};

use crate::{
    books::{TOKENS, publish},
    made_up::{Maker, Truth, add},
};

/// The gateways' log, as a gateway writes it and logrotate moves it.
pub struct Log {
    /// Where it is.
    pub path: PathBuf,
    /// With how often it was rotated.
    file: Mutex<(File, u32)>,
    key: line::LineKey,
}

impl Log {
    /// An empty one.
    ///
    /// # Panics
    /// Where it can't be made.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self {
            file: Mutex::new((File::create(&path).unwrap(), 0)),
            key: line::LineKey::of_token(TOKENS[0]),
            path,
        }
    }

    fn append(&self, events: Vec<UsageEvent>) {
        let mut text = String::new();
        for event in events {
            text.push_str(&line::write(&event.encode_to_vec(), &self.key));
            text.push('\n');
        }
        let mut file = self.file.lock().unwrap();
        file.0.write_all(text.as_bytes()).unwrap();
    }

    /// Renames it, and begins a new one.
    ///
    /// # Panics
    /// Where it can't be renamed.
    pub fn rotate(&self) {
        let mut file = self.file.lock().unwrap();
        file.1 += 1;
        let old = self.path.with_extension(format!("log.{}", file.1));
        fs::rename(&self.path, old).unwrap();
        file.0 = File::create(&self.path).unwrap();
    }
}

/// Where producers send.
#[derive(Clone, Copy)]
pub struct Way<'a> {
    /// The tenants that use something.
    pub tenants: &'a [&'a str],
    /// The aggregators.
    pub addresses: &'a [String],
    /// The log that half of the gateways write.
    pub log: Option<&'a Log>,
    /// How many hours back requests go, this one included.
    pub hours: u64,
    /// Between two batches of a producer.
    pub pause: Duration,
}

/// Sends until it is told to stop; gives what it comes to.
fn produce(seed: u64, number: u64, way: &Way<'_>, stop: &AtomicBool) -> Truth {
    let http = client::client();
    let mut maker = Maker::new(seed, number, way.tenants, way.hours);
    // What is told later than the rest.
    let mut late: Vec<(usize, UsageEvent)> = Vec::new();
    // Each begins with another.
    let mut addresses = way.addresses.to_vec();
    let first = usize::try_from(number).unwrap() % addresses.len();
    addresses.rotate_left(first);
    let send = |teller: usize, events: Vec<UsageEvent>| match way.log {
        // Half of the gateways write a log.
        Some(log) if teller == 0 && number.is_multiple_of(2) => log.append(events),
        _ => publish(&http, &addresses, teller, events),
    };
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
            send(teller, events);
        }
        thread::sleep(way.pause);
    }
    for (teller, event) in late {
        send(teller, vec![event]);
    }
    maker.truth
}

/// Where every random number comes from; `WEIR_SEED` repeats a run.
///
/// # Panics
/// Where the machine has no randomness.
#[must_use]
pub fn seed() -> u64 {
    let given = std::env::var("WEIR_SEED").ok().and_then(|s| s.parse().ok());
    let seed = given.unwrap_or_else(|| {
        let mut bytes = [0; 4];
        getrandom::fill(&mut bytes).unwrap();
        u64::from(u32::from_be_bytes(bytes))
    });
    println!("WEIR_SEED={seed}");
    seed
}

/// Runs `work` while producers send; gives what they sent.
///
/// # Panics
/// Where a producer does, or `work`.
pub fn under_load<T>(
    seed: u64,
    producers: u64,
    way: &Way<'_>,
    work: impl FnOnce() -> T,
) -> (Truth, T) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let producers: Vec<_> = (0..producers)
            .map(|n| {
                let stop = &stop;
                scope.spawn(move || produce(seed, n, way, stop))
            })
            .collect();
        // Producers end also where the work fails.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        stop.store(true, Relaxed);
        let done = match done {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let mut truth = Truth::new();
        for producer in producers {
            add(&mut truth, producer.join().unwrap());
        }
        (truth, done)
    })
}
