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
    cpu_ms_of("self")
}

fn cpu_ms_of(process: &str) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
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

/// Events of the batch of that number: the gateway tells of a request one batch after the
/// router.
fn batch(number: u64, requests: u64) -> Vec<UsageEvent> {
    let half = BATCH / 2;
    let of = |number: u64, witness| {
        let numbers = number * half..((number + 1) * half).min(requests);
        numbers.map(move |n| numbered(n, witness))
    };
    let gateways = number.checked_sub(1).into_iter();
    let gateways = gateways.flat_map(|number| of(number, Witness::Gateway));
    of(number, Witness::Router).chain(gateways).collect()
}

fn requests() -> u64 {
    std::env::var("WEIR_REQUESTS").map_or(100_000, |text| text.parse().unwrap())
}

fn tariff() -> Tariff {
    let names = ["api_calls", "input_tokens", "output_tokens"];
    Tariff::new(names.map(meter), [])
}

/// A shard's booking in Postgres, with all its care for what is on disk, and how much of
/// the time is the server's.
#[test]
#[ignore = "measures"]
fn speed_of_postgres() {
    let server = crate::testing::Server::start(&["shared_buffers=256MB"]);
    let place = server.database();
    let mut ledger = Ledger::open_at(&place).unwrap();
    let shard = Shard::of(&tenant("acme"));
    let names: Vec<String> = (0..)
        .map(|n: u32| format!("tenant-{n}"))
        .filter(|name| Shard::of(&tenant(name)) == shard)
        .take(64)
        .collect();
    let (policy, tariff, requests) = (Policy::default(), tariff(), requests());
    let rules = Rules {
        tariff: &tariff,
        policy: &policy,
    };
    let pid: i64 = ledger
        .connection
        .query_row("SELECT pg_backend_pid()", [], |row| row.get(0))
        .unwrap();
    let (mut client_ms, mut server_ms, mut took, mut count) = (0, 0, 0.0, 0);
    let mut slowest: f64 = 0.0;
    for number in 0..=requests.div_ceil(BATCH / 2) {
        let events: Vec<(i64, UsageEvent)> = batch(number, requests)
            .into_iter()
            .map(|mut event| {
                let n = event.sequence as usize % names.len();
                event.tenant.clone_from(&names[n]);
                (number as i64, event)
            })
            .collect();
        count += events.len();
        let (begun, cpu) = (Instant::now(), [cpu_ms(), cpu_ms_of(&pid.to_string())]);
        let position = Some(("lane", number as i64));
        ledger
            .book(Scope::Asked(shard), events, &rules, NOW_MS, position)
            .unwrap();
        let elapsed = begun.elapsed().as_secs_f64();
        took += elapsed;
        slowest = slowest.max(elapsed);
        client_ms += cpu_ms() - cpu[0];
        server_ms += cpu_ms_of(&pid.to_string()) - cpu[1];
    }
    println!(
        "{count} events in {took:.2} s: {:.0} events/s; cpu us an event: {:.1} client, {:.1} \
         postgres; the slowest batch {:.0} ms",
        count as f64 / took,
        client_ms as f64 * 1_000.0 / count as f64,
        server_ms as f64 * 1_000.0 / count as f64,
        slowest * 1_000.0,
    );
    assert_eq!(ledger.waiting().unwrap(), 0);
    drop(ledger);
    server.stop();
}

#[test]
#[ignore = "measures"]
fn speed() {
    let requests = requests();
    let mut f = Fixture::<Sqlite>::new();
    f.policy.two_witnesses = true;
    let tariff = tariff();
    let (mut decode_ms, mut book_ms, mut seq, mut bytes) = (0, 0, 0_i64, 0);
    let begun = Instant::now();
    for number in 0..=requests.div_ceil(BATCH / 2) {
        let events = batch(number, requests);
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
        let position = Some((book::STREAM, seq));
        f.ledger
            .book(Scope::Whole, events, &rules, NOW_MS, position)
            .unwrap();
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
