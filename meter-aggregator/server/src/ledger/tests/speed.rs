//! What booking costs: `cargo test --release -p meter-aggregator speed -- --ignored
//! --nocapture`, with `WEIR_REQUESTS` other than a hundred thousand.

use std::time::Instant;

use weir_wire::usage::cloudevents;

use super::*;

const TENANTS: u64 = 1_000;

/// Events of one transaction, half of them of each witness.
const BATCH: u64 = 2_000;

/// Requests of a second.
const PER_S: u64 = 10_000;

fn numbered(n: u64, witness: Witness) -> UsageEvent {
    let mut random = [0; 10];
    random[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    let ms = NOW_MS.cast_unsigned() + n * 1_000 / PER_S;
    let request_id = RequestId::mint(ms, random).to_string();
    let is_router = witness == Witness::Router;
    UsageEvent {
        kind: Kind::Request.into(),
        event_id: request_id.clone(),
        tenant_context: format!("v1.k.{}", "x".repeat(150)),
        request_id,
        witness: witness.into(),
        tenant: format!("tenant-{}", n.wrapping_mul(7_919) % TENANTS),
        request_class: "chat".into(),
        model_asked: "gpt-5-mini".into(),
        outcome: Outcome::Completed.into(),
        status: 200,
        started_at_ms: ms.cast_signed(),
        duration_ms: 1_234,
        time_to_first_token_ms: Some(200),
        producer_run: format!("0192f0c1-0000-7000-8000-00000000000{}", witness as i32),
        sequence: n + 1,
        usage: vec![ModelUsage {
            model_served: "gpt-5-mini-2026-08-07".into(),
            provider: "openai".into(),
            attempt: 1,
            input_tokens: 500 + n % 100,
            cached_input_tokens: 64,
            output_tokens: 200,
            source: UsageSource::Reported.into(),
            cost_micros: is_router.then_some(1_000),
            price_micros: is_router.then_some(1_200),
            ..ModelUsage::default()
        }],
        ..UsageEvent::default()
    }
}

/// Processor time of this process, milliseconds.
fn cpu_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10
}

/// Resident memory, and the most of it that there was, MiB.
fn memory_mib() -> [u64; 2] {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    ["VmRSS:", "VmHWM:"].map(|name| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            / 1_024
    })
}

#[test]
#[ignore = "measures"]
fn speed() {
    let requests: u64 =
        std::env::var("WEIR_REQUESTS").map_or(100_000, |text| text.parse().unwrap());
    let mut f = Fixture::new();
    f.policy.two_witnesses = true;
    let names = ["api_calls", "input_tokens", "output_tokens"];
    let tariff = Tariff::new(names.map(meter), []);
    let half = BATCH / 2;
    let (mut decode_ms, mut book_ms, mut seq, mut bytes) = (0, 0, 0_i64, 0);
    let begun = Instant::now();
    for batch in 0..=requests.div_ceil(half) {
        // The gateway tells of a request one batch after the router.
        let of = |batch: u64, witness| {
            let numbers = batch * half..((batch + 1) * half).min(requests);
            numbers.map(move |n| numbered(n, witness))
        };
        let gateways = batch.checked_sub(1).into_iter();
        let gateways = gateways.flat_map(|batch| of(batch, Witness::Gateway));
        let events: Vec<UsageEvent> = of(batch, Witness::Router).chain(gateways).collect();
        let texts: Vec<String> = events
            .into_iter()
            .map(|event| cloudevents::encode(event).unwrap())
            .collect();
        bytes += texts.iter().map(String::len).sum::<usize>();
        let start = cpu_ms();
        let events: Vec<(i64, UsageEvent)> = texts
            .into_iter()
            .map(|text| {
                seq += 1;
                (seq, cloudevents::decode(text.as_bytes()).unwrap())
            })
            .collect();
        let decoded = cpu_ms();
        let rules = Rules {
            tariff: &tariff,
            policy: &f.policy,
        };
        f.ledger.book(events, &rules, NOW_MS).unwrap();
        decode_ms += decoded - start;
        book_ms += cpu_ms() - decoded;
    }
    let per_event = |ms: u64| ms as f64 * 1_000.0 / seq as f64;
    let size = |name: &str| {
        let length = std::fs::metadata(f.folder.path().join(name)).map_or(0, |m| m.len());
        length as f64 / seq as f64
    };
    println!(
        "{seq} events of {} bytes: {:.1} us decode, {:.1} us book, {:.1} s in all, {:?} MiB, \
         {:.0} bytes an event in the ledger, {:.0} in its log",
        bytes as i64 / seq,
        per_event(decode_ms),
        per_event(book_ms),
        begun.elapsed().as_secs_f64(),
        memory_mib(),
        size("ledger.db"),
        size("ledger.db-wal"),
    );
    let of_table = "SELECT name, SUM(pgsize) FROM dbstat GROUP BY name ORDER BY 2 DESC LIMIT 9";
    let sizes = columns::all(&f.ledger.connection, of_table, |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
    });
    for (name, size) in sizes.unwrap_or_default() {
        println!("  {name}: {:.0} bytes an event", size as f64 / seq as f64);
    }
    assert_eq!(f.ledger.waiting().unwrap(), 0);
}
