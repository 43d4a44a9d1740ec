//! What an operator does with what could not be booked, and with what was lost.

use std::{fs, process::Output};

use serde_json::{Value, json};
use weir_wire::{
    ids::RequestId,
    proto::usage::UsageEvent,
    usage::{PROTO_CONTENT_TYPE, cloudevents},
};

use super::{CONTEXT_KEYS, Fixture, TOKENS, json_of, wait};

const DAY_MS: u64 = 86_400_000;

impl Fixture {
    /// Exit code, answer and what was said.
    fn run(&self, line: &str) -> (i32, Value, String) {
        let Output {
            status,
            stdout,
            stderr,
        } = self.command(line).output().unwrap();
        (
            status.code().unwrap(),
            serde_json::from_slice(&stdout).unwrap_or_default(),
            String::from_utf8_lossy(&stderr).into_owned(),
        )
    }

    /// An event of so long ago, by nobody's word but the operator's.
    fn event_ago(&self, n: u64, ago_ms: u64) -> UsageEvent {
        let mut event = self.event(n);
        let mut random = [0; 10];
        random[..8].copy_from_slice(&n.to_be_bytes());
        event.request_id = RequestId::mint(self.now_ms - ago_ms, random).to_string();
        event.tenant_context.clear();
        event
    }

    fn write_events(&self, name: &str, events: &[UsageEvent]) {
        let lines: Vec<String> = events
            .iter()
            .map(|event| cloudevents::encode(event).unwrap())
            .collect();
        fs::write(self.path(name), lines.join("\n")).unwrap();
    }
}

#[test]
fn what_is_in_quarantine_is_listed_and_stays_until_it_is_good() {
    let mut f = Fixture::new();
    f.start();
    let mut of_another_key = f.event(1);
    of_another_key.tenant_context = of_another_key.tenant_context.replace("v1.k.", "v1.m.");
    let mut of_nobody = f.event(2);
    of_nobody.tenant.clear();
    let events = vec![of_another_key, of_nobody, f.event(3)];
    assert_eq!(f.post(TOKENS[0], PROTO_CONTENT_TYPE, events).status(), 202);
    let (code, listed, _) = f.run("quarantine list --json");
    assert_eq!((code, &listed["total"]), (0, &json!(2)));
    let one = &listed["quarantine"][1];
    assert_eq!(one["request_id"], f.request_id(1).as_str());
    assert_eq!(
        (&one["producer"], &one["way"], &one["tenant"]),
        (&json!("gateway"), &json!("http"), &json!("acme"))
    );
    assert!(!listed.to_string().contains("v1.m."), "{listed}");
    let (_, tenants, _) = f.run("quarantine list --reason tenant --limit 1");
    assert_eq!(tenants["quarantine"].as_array().unwrap().len(), 1);

    // The same keys find the same.
    let (code, done, _) = f.run("quarantine replay --all");
    assert_eq!((code, &done["checked"]), (1, &json!(2)));
    assert_eq!(done["replayed"], 0);
    assert_eq!(done["stay"].as_object().unwrap().len(), 2);
    assert_eq!(f.run("quarantine replay").0, 2);
    assert_eq!(f.run("quarantine replay --all 1").0, 2);

    // Offline, by number; one that is not there is not asked for.
    f.kill();
    let (code, done, _) = f.run("quarantine replay 1 1 9");
    assert_eq!((code, &done["checked"]), (1, &json!(1)));
    f.start();
    f.wait_for_calls(1);
}

#[test]
fn what_was_quarantined_for_a_lost_key_is_billed_once_after_it_is_back() {
    let mut f = Fixture::new();
    f.start();
    f.kill();
    let events: Vec<UsageEvent> = (1..=5).map(|n| f.event(n)).collect();
    f.keys = "k:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";
    f.start();
    let answer = f.post(TOKENS[0], PROTO_CONTENT_TYPE, events.clone());
    assert_eq!(answer.status(), 202);
    assert_eq!(f.ask("status --json")["quarantined"], 5);
    f.kill();
    f.keys = CONTEXT_KEYS;
    f.start();
    // What stands there and comes once more is billed once.
    f.post(TOKENS[0], PROTO_CONTENT_TYPE, events[..2].to_vec());
    let (code, done, _) = f.run("quarantine replay --reason context");
    assert_eq!((code, &done["replayed"]), (0, &json!(5)));
    assert_eq!(done["stay"], json!({}));
    f.wait_for_calls(5);
    assert_eq!(f.run("quarantine replay --all").1["checked"], 0);
    assert_eq!(f.ask("status --json")["quarantined"], 0);
}

#[test]
fn an_operator_brings_in_what_was_lost_once() {
    let mut f = Fixture::new();
    f.start();
    let mut events: Vec<UsageEvent> = (1..=3).map(|n| f.event(n)).collect();
    // As they stand on the stream, without their contexts.
    for event in &mut events {
        event.tenant_context.clear();
    }
    events.push(f.event(4));
    events.push(f.event_ago(5, 36 * DAY_MS));
    f.write_events("lost.jsonl", &events);
    f.append("lost.jsonl", "\n{\"not\": \"one\"}\n\n");
    let check = |f: &Fixture, line: &str, expected: [u64; 5], code: i32| {
        let (found_code, found, said) = f.run(line);
        let found = ["lines", "events", "accepted", "quarantined", "invalid"]
            .map(|name| found[name].as_u64().unwrap());
        assert_eq!((found, found_code), (expected, code), "{line}: {said}");
        said
    };
    let said = check(&f, "backfill --dry-run lost.jsonl", [6, 5, 4, 1, 1], 1);
    assert!(
        said.contains("lost.jsonl:5: request_id is older than 35 days"),
        "{said}"
    );
    assert!(said.contains("lost.jsonl:6: not a usage event"), "{said}");
    assert_eq!(f.calls(), 0);
    // Online, again, and offline: each once.
    check(&f, "backfill lost.jsonl", [6, 5, 4, 1, 1], 1);
    check(&f, "backfill lost.jsonl --as gateway", [6, 5, 4, 1, 1], 1);
    f.wait_for_calls(4);
    f.kill();
    check(&f, "backfill lost.jsonl", [6, 5, 4, 1, 1], 1);
    f.write_events("more.jsonl", &[f.event(6)]);
    check(&f, "backfill more.jsonl", [1, 1, 1, 0, 0], 0);
    // Status, too, where none runs.
    assert_eq!(f.calls(), 5);
    assert_eq!(f.ask("status --json")["quarantined"], 1);
    let (_, listed, _) = f.run("quarantine list");
    assert_eq!(listed["quarantine"][0]["way"], "backfill");
    let (code, _, said) = f.run("backfill --as nobody more.jsonl");
    assert_eq!(code, 2, "{said}");
    assert!(
        said.contains("must be one of gateway, router, storage"),
        "{said}"
    );
    check(&f, "backfill --as router more.jsonl", [1, 1, 0, 1, 0], 1);
}

#[test]
fn commands_work_where_none_runs_and_say_what_they_lack() {
    let mut f = Fixture::new();
    let (code, _, said) = f.run("status");
    assert_eq!(code, 1);
    assert!(said.contains("no aggregator has run on"), "{said}");
    f.start();
    f.append("usage.log", &format!("{}\n", f.line(1)));
    f.wait_for_calls(1);
    f.kill();
    let id = f.request_id(1);
    let (code, found, _) = f.run(&format!("events --request {id}"));
    assert_eq!((code, &found["requests"][0]["request_id"]), (0, &json!(id)));
    assert_eq!(f.run("events --limit 0").0, 2);
    assert_eq!(f.run("events --since never").0, 2);
    assert_eq!(f.run(&format!("events --request {}", f.request_id(9))).0, 1);
    // Stripe is away: what there is stays to be sent.
    let mut command = f.command("close-hour --json");
    let output = command.env_remove("STRIPE").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("stripe.api_key_env"), "{said}");
    // What only reads needs neither Stripe's key nor the operator's token.
    let mut command = f.command("status --json");
    command.env_remove("STRIPE").env_remove("WEIR_ADMIN_TOKEN");
    let status = json_of(&command.output().unwrap());
    assert_eq!(status["unbooked"], 0, "{status}");
}

#[test]
fn an_operator_decides_of_intents_and_adjustments() {
    let mut f = Fixture::new();
    f.start();
    f.kill();
    // Hours that are over, and one that is final.
    let events =
        [(1, DAY_MS / 8), (2, DAY_MS), (3, 5 * DAY_MS)].map(|(n, ago_ms)| f.event_ago(n, ago_ms));
    f.write_events("late.jsonl", &events);
    assert_eq!(f.run("backfill late.jsonl").0, 0);
    f.start();
    // Stripe is away: they wait to be sent.
    let intents = |line: &str| -> Vec<i64> {
        let (code, found, said) = f.run(line);
        assert_eq!(code, 0, "{line}: {said}");
        let intents = found["intents"].as_array().unwrap().iter();
        intents.map(|one| one["id"].as_i64().unwrap()).collect()
    };
    wait(|| (intents("intents list --state planned").len() == 2).then_some(()));
    let planned = intents("intents list --tenant acme --state planned");
    assert_eq!(intents("intents list --limit 1"), planned[..1]);
    assert!(intents("intents list --tenant solo").is_empty());
    let check = |line: &str, code: i32, says: &str| {
        let (found, answer, said) = f.run(line);
        let text = format!("{answer}{said}");
        assert_eq!(found, code, "{line}: {text}");
        assert!(text.contains(says), "{line}: {text}");
    };
    check(
        "intents list --state gone",
        2,
        "state: must be one of planned",
    );
    let id = planned[0];
    check(&format!("intents cancel {id}"), 2, "--reason");
    check(
        &format!("intents cancel {id} --reason "),
        2,
        "reason: must have 1 to",
    );
    check(
        &format!("intents cancel {id} --reason gift"),
        0,
        "cancelled",
    );
    check(&format!("intents retry {id}"), 1, "cancelled");
    check(
        &format!("intents accept {id} --reason seen"),
        1,
        "cancelled",
    );
    check("intents retry 999", 1, "there is none");

    // Offline, too.
    f.kill();
    let check = |line: &str, code: i32, says: &str| {
        let (found, answer, said) = f.run(line);
        let text = format!("{answer}{said}");
        assert_eq!(found, code, "{line}: {text}");
        assert!(text.contains(says), "{line}: {text}");
    };
    check("adjustments list --state proposed", 0, "api_calls");
    check("adjustments reject 9 --reason no", 1, "there is none");
    check(
        "adjustments approve --all --tenant solo",
        0,
        "\"intents\":[]",
    );
    check("adjustments approve --all", 0, "planned");
    check("adjustments approve 1", 1, "approved");
    check(
        "discrepancies --kind single_witness",
        1,
        &f.event_ago(3, 5 * DAY_MS).request_id,
    );
    check("discrepancies --kind none", 2, "kind: must be one of");
    let time = f.now_ms - DAY_MS / 8;
    let month = time::OffsetDateTime::from_unix_timestamp((time / 1_000).cast_signed()).unwrap();
    let month = format!("{:04}-{:02}", month.year(), u8::from(month.month()));
    let (code, proof, said) = f.run(&format!("prove acme/api_calls/{month}"));
    assert_eq!((code, &proof["holds"]), (0, &json!(true)), "{proof} {said}");
    assert_eq!(proof["used"], proof["total"]);
    assert_eq!(
        proof["behind"].as_array().unwrap().len() as i64,
        proof["requests"]
    );
    check("prove acme/api_calls/never", 2, "line: must end in");
}
