//! What the scan finds and refuses, wherever a text is cut.

use std::sync::Arc;

use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::Value;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

const NAMES: [&str; 3] = ["content", "text", "arguments"];

fn scan(pointers: &[&str], text: Text, max: usize, chunks: &[&[u8]]) -> Scan {
    let mut scan = Scan::new(Arc::new(Places::new(pointers).unwrap()), text, max);
    for chunk in chunks {
        let _ = scan.feed(chunk);
    }
    let _ = scan.finish();
    scan
}

/// Kind, start, end and bytes.
type Place = (Kind, u64, Option<u64>, Option<String>);

/// What a scan came to, to compare.
#[derive(Debug, PartialEq)]
struct Outcome {
    found: Vec<Option<Place>>,
    twice: Option<usize>,
    text_bytes: Option<u64>,
    broken: Option<Broken>,
    is_whole: bool,
    offset: u64,
}

fn outcome(pointers: &[&str], text: Text, max: usize, chunks: &[&[u8]]) -> Outcome {
    let scan = scan(pointers, text, max, chunks);
    let raw = |raw: &[u8]| String::from_utf8_lossy(raw).into_owned();
    let found = (0..pointers.len()).map(|i| scan.found(i));
    Outcome {
        found: found
            .map(|f| f.map(|f| (f.kind, f.start, f.end, f.raw.map(raw))))
            .collect(),
        twice: scan.twice(),
        // How much of a broken string was counted depends on the chunks.
        text_bytes: scan.broken.is_none().then(|| scan.text_bytes()),
        broken: scan.broken,
        is_whole: scan.is_whole(),
        offset: scan.offset(),
    }
}

/// The outcome, which is the same wherever the text is cut.
#[track_caller]
fn cut_anywhere(pointers: &[&str], text: Text, bytes: &[u8]) -> Outcome {
    let whole = outcome(pointers, text, 64, &[bytes]);
    for cut in 0..=bytes.len() {
        let (a, b) = bytes.split_at(cut);
        let found = outcome(pointers, text, 64, &[a, b]);
        assert_eq!(found, whole, "{:?} cut at {cut}", bytes.escape_ascii());
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(outcome(pointers, text, 64, &single), whole);
    whole
}

#[track_caller]
fn check_places(text: &str, expected: &[(&str, Option<&str>)]) {
    let pointers: Vec<&str> = expected.iter().map(|(p, _)| *p).collect();
    let outcome = cut_anywhere(&pointers, Text::None, text.as_bytes());
    assert_eq!(outcome.broken, None, "{text}");
    for ((pointer, expected), found) in expected.iter().zip(outcome.found) {
        if let Some((_, start, Some(end), Some(raw))) = &found {
            let span = usize::try_from(*start).unwrap()..usize::try_from(*end).unwrap();
            assert_eq!(&text[span], raw, "{text} {pointer}");
        }
        let raw = found.map(|(_, _, _, raw)| raw.unwrap());
        assert_eq!(raw.as_deref(), *expected, "{text} {pointer}");
    }
}

#[test]
fn finds_what_stands_in_a_place() {
    check_places(
        r#"{"a":{"model":"no"},"model" : "gpt" ,"b":["model",{"usage":2}],"usage":{"x":[1,{"y":2}]}}"#,
        &[
            ("/model", Some(r#""gpt""#)),
            ("/usage", Some(r#"{"x":[1,{"y":2}]}"#)),
            ("/usage/x/1/y", Some("2")),
            ("/a/model", Some(r#""no""#)),
            ("/b/0", Some(r#""model""#)),
            ("/b/1/usage", Some("2")),
            ("/b/2", None),
            ("/b/01", None),
            ("/missing/model", None),
        ],
    );
    check_places(
        r#"[-1.5e+3,true , null,[[]],{"0":false}]"#,
        &[
            ("/0", Some("-1.5e+3")),
            ("/1", Some("true")),
            ("/2", Some("null")),
            ("/3", Some("[[]]")),
            ("/3/0", Some("[]")),
            ("/4/0", Some("false")),
        ],
    );
    check_places(
        r#"{"a/b":1,"m~n":2,"":3," ":{"é":4}}"#,
        &[
            ("/a~1b", Some("1")),
            ("/m~0n", Some("2")),
            ("/", Some("3")),
            ("/ /é", Some("4")),
        ],
    );
}

#[test]
fn an_escaped_name_is_the_same_name() {
    check_places(
        r#"{"mod\u0065l":"m","\ud83d\ude00":1,"\ud83d":2,"a\n\"":3,"\u00e9":4,"models":5}"#,
        &[
            ("/model", Some(r#""m""#)),
            ("/😀", Some("1")),
            ("/a\n\"", Some("3")),
            ("/é", Some("4")),
        ],
    );
}

#[test]
fn strings_hide_what_they_hold() {
    check_places(
        r#"{"a":"\"model\":\"x\",","model":"q\"},\\","usage":null}"#,
        &[("/model", Some(r#""q\"},\\""#)), ("/usage", Some("null"))],
    );
}

#[test]
fn of_two_the_last_counts_and_is_told() {
    let cases: [(&str, &str, Option<&str>, bool); 7] = [
        (r#"{"m":1,"m":2}"#, "/m", Some("2"), true),
        (r#"{"m":1,"n":2}"#, "/m", Some("1"), false),
        (r#"{"a":{"m":1},"a":{}}"#, "/a/m", None, true),
        (r#"{"a":{},"a":{"m":1}}"#, "/a/m", Some("1"), true),
        (
            r#"{"a":{"m":1},"b":{"m":2,"m":3}}"#,
            "/a/m",
            Some("1"),
            false,
        ),
        (r#"[{"m":1},{"m":2}]"#, "/1/m", Some("2"), false),
        (r#"{"m":1,"\u006d":"x"}"#, "/m", Some("\"x\""), true),
    ];
    for (text, pointer, expected, twice) in cases {
        check_places(text, &[(pointer, expected)]);
        let outcome = outcome(&[pointer], Text::None, 64, &[text.as_bytes()]);
        assert_eq!(outcome.twice, twice.then_some(0), "{text}");
    }
}

#[test]
fn a_value_over_the_bound_is_found_and_not_kept() {
    let text = format!(r#"{{"a":"{}","b":1}}"#, "x".repeat(100));
    let outcome = cut_anywhere(&["/a", "/b"], Text::None, text.as_bytes());
    let end = u64::try_from(text.find(",\"b\"").unwrap()).unwrap();
    assert_eq!(outcome.found[0], Some((Kind::String, 5, Some(end), None)));
    assert_eq!(outcome.found[1].as_ref().unwrap().3.as_deref(), Some("1"));
}

#[test]
fn a_value_is_found_from_its_first_byte() {
    let mut scan = Scan::new(
        Arc::new(Places::new(&["/a"]).unwrap()),
        Text::AllBut(&[]),
        64,
    );
    scan.feed(br#" {"a":{"b":"#).unwrap();
    let found = scan.found(0).unwrap();
    assert_eq!(
        (found.kind, found.start, found.end),
        (Kind::Object, 6, None)
    );
    assert_eq!(found.raw, None);
    assert_eq!(scan.root(), Some((Kind::Object, 1)));
    scan.feed(br#""xyz"#).unwrap();
    assert_eq!((scan.text_bytes(), scan.is_whole()), (3, false));
    scan.reset();
    assert_eq!(scan.found(0), None);
    scan.feed(br#"{"a":1}"#).unwrap();
    assert_eq!(scan.found(0).unwrap().raw, Some(&b"1"[..]));
    assert_eq!(
        (scan.twice(), scan.is_whole(), scan.offset()),
        (None, true, 7)
    );
}

#[track_caller]
fn check_text(measure: Text, text: &str, expected: &[&str]) {
    let bytes: usize = expected.iter().map(|s| s.len()).sum();
    let found = cut_anywhere(&["/a"], measure, text.as_bytes()).text_bytes;
    assert_eq!(found, Some(u64::try_from(bytes).unwrap()), "{text}");
}

#[test]
fn text_is_measured_wherever_it_stands() {
    let text = r#"{"choices":[{"delta":{"role":"assistant","content":"h\u00e9 \"x\" ü"},
        "finish_reason":null},{"message":{"content":[{"type":"text","text":"four"}],"refusal":null,
        "tool_calls":[{"function":{"name":"n","arguments":"{}"}}]}}],"content_filter":{"contents":"no"}}"#;
    check_text(Text::Of(&NAMES), text, &["hu00e9 \"x\" ü", "four", "{}"]);
    check_text(Text::None, text, &[]);
    let items = r#"{"text":["a\\b",["cd"],{"x":"no","text":"e"},"f"],"x":"no","content":1}"#;
    check_text(Text::Of(&NAMES), items, &["a\\b", "cd", "e", "f"]);
    let media =
        r#"["one",{"image_url":{"url":"no","u\u0072l":["no"]},"x":["two",{"text":"three"}]}]"#;
    check_text(Text::AllBut(&["url"]), media, &["one", "two", "three"]);
    check_text(Text::AllBut(&["url"]), r#""root""#, &["root"]);
    check_text(Text::Of(&NAMES), r#""root""#, &[]);
}

#[test]
fn what_is_no_json_is_told_with_its_place() {
    let cases: [(&[u8], u64, &str); 35] = [
        (b"", 0, "unexpected end"),
        (b"  ", 2, "unexpected end"),
        (b"nul", 3, "unexpected end"),
        (b"nulx", 3, "expected true, false or null"),
        (b"{\"a\":1", 6, "unexpected end"),
        (b"{\"a", 3, "unexpected end"),
        (b"1 2", 2, "expected nothing after the value"),
        (b"{}}", 2, "expected nothing after the value"),
        (b"x", 0, "expected a value"),
        (b"\xef\xbb\xbf{}", 0, "expected a value"),
        (b"{a:1}", 1, "expected a name or }"),
        (b"{\"a\" 1}", 5, "expected a colon"),
        (b"{\"a\":1,}", 7, "expected a name"),
        (b"{\"a\":1 \"b\":2}", 7, "expected a comma or }"),
        (b"{\"a\":1]", 6, "expected a comma or }"),
        (b"[1}", 2, "expected a comma or ]"),
        (b"[1,]", 3, "expected a value"),
        (b"[,1]", 1, "expected a value or ]"),
        (b"[01]", 2, "expected a comma or ]"),
        (b"[-]", 2, "expected a digit"),
        (b"[1.]", 3, "expected a digit"),
        (b"[1e+]", 4, "expected a digit"),
        (b"[+1]", 1, "expected a value or ]"),
        (b"[.5]", 1, "expected a value or ]"),
        (b"[NaN]", 1, "expected a value or ]"),
        (b"-", 1, "unexpected end"),
        (b"\"a\nb\"", 2, "control character in a string"),
        (b"\"\\x\"", 2, "unknown escape"),
        (b"\"\\u12g4\"", 5, "expected four hexadecimal digits"),
        (b"\"\xff\"", 1, "no UTF-8"),
        (b"\"a\xc3\"", 2, "no UTF-8"),
        (b"\"\xed\xa0\x80\"", 1, "no UTF-8"),
        (b"\"\xf0\x9f\x98\\n\"", 1, "no UTF-8"),
        (b"{\"\xe2\x82\":1}", 2, "no UTF-8"),
        (b"'a'", 0, "expected a value"),
    ];
    for (text, at, what) in cases {
        let outcome = cut_anywhere(&["/a"], Text::AllBut(&[]), text);
        let shown = text.escape_ascii();
        assert_eq!(outcome.broken, Some(Broken { at, what }), "{shown}");
        assert!(!outcome.is_whole, "{shown}");
    }
}

#[test]
fn depth_has_a_bound() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let broken = |text: String| scan(&["/a"], Text::None, 9, &[text.as_bytes()]).broken;
    assert_eq!(broken(nested(DEPTH_MAX)), None);
    let (at, what) = (length(DEPTH_MAX), "nested too deep");
    assert_eq!(broken(nested(DEPTH_MAX + 1)), Some(Broken { at, what }));
}

#[test]
fn a_wrong_pointer_is_refused() {
    let long = "/a".repeat(9);
    let cases = [
        (vec!["model"], "begin with /"),
        (vec![""], "begin with /"),
        (vec!["/a~2"], "after each ~"),
        (vec!["/a~"], "after each ~"),
        (vec![long.as_str()], "8 steps"),
        (vec!["/a"; 33], "32 places"),
    ];
    for (pointers, names) in cases {
        let error = Places::new(&pointers).unwrap_err().to_string();
        assert!(error.contains(names), "{error} should name {names}");
    }
    assert_eq!(Places::new(&["/a"; 32]).unwrap().count(), 32);
    assert!(Places::new(&[&long[2..]]).is_ok());
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
        "[a-z\"\\\\]{0,90}".prop_map(Value::from),
    ];
    let name = prop_oneof!["[ab0-2]", ".{0,3}"];
    leaf.prop_recursive(5, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A text, and where to change a byte.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        prop::sample::select(b"{}[]\",:\\ue1.-+ \n\t0tfn\x00\x1f\xc3\xa9".to_vec()),
        any::<u8>()
    ];
    let change = (any::<prop::sample::Index>(), 0..4, byte);
    let text = (json(), any::<bool>()).prop_map(|(value, pretty)| match pretty {
        true => serde_json::to_vec_pretty(&value).unwrap(),
        false => serde_json::to_vec(&value).unwrap(),
    });
    (text, prop::collection::vec(change, 0..4)).prop_map(|(mut text, changes)| {
        for (at, how, byte) in changes {
            let at = at.index(text.len() + 1);
            match how {
                0 => text.insert(at, byte),
                1 if at < text.len() => drop(text.remove(at)),
                2 => text.truncate(at),
                _ if at < text.len() => text[at] = byte,
                _ => {}
            }
        }
        text
    })
}

/// What a parser that knows the grammar alone says; it looks at no UTF-8.
fn is_json(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok() && serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

const POINTERS: [&str; 8] = [
    "/a", "/b", "/a/b", "/0", "/1/a", "/a/0/b", "/b/a/1", "/2/2/2",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn accepts_what_a_parser_accepts(text in mutated()) {
        let scan = scan(&POINTERS, Text::Of(&NAMES), 64, &[&text]);
        prop_assert_eq!(scan.broken.is_none(), is_json(&text), "{}: {:?}", text.escape_ascii(), scan.broken);
    }

    #[test]
    fn takes_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let scan = scan(&POINTERS, Text::AllBut(&NAMES), 64, &[&bytes]);
        prop_assert_eq!(scan.broken.is_none(), is_json(&bytes));
    }

    #[test]
    fn chunks_make_no_difference(
        text in mutated(),
        mut cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        cuts.sort_by_key(|cut| cut.index(text.len() + 1));
        let mut chunks = Vec::new();
        let mut from = 0;
        for cut in cuts {
            let to = cut.index(text.len() + 1);
            chunks.push(&text[from..to]);
            from = to;
        }
        chunks.push(&text[from..]);
        for measure in [Text::Of(&NAMES), Text::AllBut(&NAMES)] {
            let cut = outcome(&POINTERS, measure, 64, &chunks);
            prop_assert_eq!(cut, outcome(&POINTERS, measure, 64, &[&text]));
        }
    }

    #[test]
    fn finds_what_a_tree_has(value in json(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        let text = text.unwrap();
        let scan = scan(&POINTERS, Text::None, usize::MAX, &[text.as_bytes()]);
        // Floats lose digits when they are parsed again.
        let value: Value = serde_json::from_str(&text).unwrap();
        for (i, pointer) in POINTERS.iter().enumerate() {
            let found = scan.found(i).map(|f| serde_json::from_slice::<Value>(f.raw.unwrap()).unwrap());
            prop_assert_eq!(found.as_ref(), value.pointer(pointer), "{} {}", text, pointer);
        }
        prop_assert_eq!(scan.twice(), None);
    }

    #[test]
    fn text_is_what_a_tree_has(value in json()) {
        fn sum(value: &Value, counts: bool) -> u64 {
            match value {
                Value::String(s) => u64::from(counts) * length(s.len()),
                Value::Array(items) => items.iter().map(|i| sum(i, counts)).sum(),
                Value::Object(members) => members.iter().map(|(n, v)| sum(v, n != "a")).sum(),
                _ => 0,
            }
        }
        // Without characters that are escaped, a string is as long as its text.
        let plain = serde_json::to_string(&value).unwrap();
        prop_assume!(!plain.contains('\\'));
        let scan = scan(&[], Text::AllBut(&["a"]), 0, &[plain.as_bytes()]);
        prop_assert_eq!(scan.text_bytes(), sum(&value, true));
    }
}
