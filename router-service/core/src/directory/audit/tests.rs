//! Logs that end in every way.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

fn entry(change: &str, state: State) -> Entry {
    Entry {
        time: Timestamp::from_ms(1_000).unwrap(),
        change: change.to_owned(),
        state,
        actor: Actor::cli("ann").unwrap(),
        fact: Fact {
            key: Some(KeyName::new("k1").unwrap()),
            prefix: Some("weir_sk_AAAAAAAA".to_owned()),
            ..Fact::new(Action::KeyMake, &TenantId::new("acme").unwrap())
        },
        version_before: 6,
        version_after: 7,
        file_sha256: format!("of {change}"),
    }
}

#[test]
fn a_line_is_json_that_people_can_read() {
    let line = lines(b"", &[entry("a", State::Intended)]).unwrap();
    assert_eq!(
        String::from_utf8(line).unwrap(),
        "{\"time\":\"1970-01-01T00:00:01Z\",\"change\":\"a\",\"state\":\"intended\",\
         \"actor\":\"cli:ann\",\"action\":\"key.make\",\"tenant\":\"acme\",\"key\":\"k1\",\
         \"prefix\":\"weir_sk_AAAAAAAA\",\"version_before\":6,\"version_after\":7,\
         \"file_sha256\":\"of a\"}\n"
    );
}

#[test]
fn what_is_open_is_found_however_the_log_ends() {
    use State::{Done, Intended, Void};
    let mut create = entry("b", Intended);
    create.fact.action = Action::TenantCreate;
    let both = [create.clone(), entry("b", Intended)];
    let a = [entry("a", Intended), entry("a", Done)];
    for (entries, still_open) in [
        (vec![], 0),
        (a.to_vec(), 0),
        (vec![entry("a", Intended)], 1),
        ([&a[..], &both].concat(), 2),
        (
            [&a[..], &both, &[create.turned(Done, create.time)]].concat(),
            1,
        ),
        (
            [&a[..], &[entry("b", Intended), entry("b", Void)]].concat(),
            0,
        ),
    ] {
        let whole = lines(b"", &entries).unwrap();
        assert_eq!(open(&whole).len(), still_open);
        // Whatever of the next line is there, it is open only where it is whole,
        // and what is appended then stands in lines of its own.
        let next = lines(&whole, &[entry("c", Intended)]).unwrap();
        for cut in 0..next.len() {
            let torn = [&whole[..], &next[..cut]].concat();
            let is_whole = cut + 1 == next.len();
            let expected = if is_whole { 1 } else { still_open };
            assert_eq!(open(&torn).len(), expected, "{cut}");
            let more = lines(&torn, &[entry("d", Intended)]).unwrap();
            let healed = [torn, more].concat();
            assert_eq!(open(&healed), [entry("d", Intended)], "{cut}");
        }
    }
}

#[test]
fn the_file_tells_what_became_of_a_change() {
    let check = |version: u64, sha256: &str, state: State| {
        let file = FileIs {
            version,
            sha256: sha256.to_owned(),
        };
        assert_eq!(entry("a", State::Intended).outcome(&file), state);
    };
    check(7, "of a", State::Done);
    check(6, "of what was before", State::Void);
    check(7, "of a hand", State::Unknown);
    check(8, "of a hand", State::Unknown);
}

#[test]
fn an_actor_has_a_name() {
    let service = Actor::service("spiffe://weir/console").unwrap();
    assert_eq!(service.to_string(), "service:spiffe://weir/console");
    let error = Actor::cli("").unwrap_err().to_string();
    assert!(error.contains("found 0"), "{error}");
    assert!(Actor::service(&"x".repeat(257)).is_err());
}
