//! Tests of counts: against known ones, of time, and of the approximation against
//! what it approximates.

use bytes::Bytes;
use proptest::prelude::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;
use weir_dialects::routes::Endpoint;

use super::*;

const AS_MANY: Tokenizer = Tokenizer::Approximate { percent: 100 };

#[test]
fn each_model_has_its_tokenizer() {
    let anthropic = Tokenizer::Approximate { percent: 120 };
    let open = Tokenizer::Approximate { percent: 125 };
    for (kind, model, expected) in [
        (ProviderKind::OpenAi, "gpt-4o-2024-08-06", Tokenizer::O200k),
        (ProviderKind::OpenAi, "gpt-4.1-mini", Tokenizer::O200k),
        (ProviderKind::OpenAi, "o3", Tokenizer::O200k),
        (ProviderKind::OpenAi, "o4", Tokenizer::O200k),
        (ProviderKind::OpenAi, "gpt-5.2", Tokenizer::O200k),
        (ProviderKind::OpenAi, "gpt-9", Tokenizer::O200k),
        (ProviderKind::OpenAi, "gpt-4-0613", Tokenizer::Cl100k),
        (ProviderKind::OpenAi, "gpt-3.5-turbo", Tokenizer::Cl100k),
        (
            ProviderKind::OpenAi,
            "text-embedding-3-small",
            Tokenizer::Cl100k,
        ),
        (ProviderKind::Anthropic, "claude-opus-5-5", anthropic),
        (ProviderKind::OpenAiCompatible, "mistralai/Mistral-7B", open),
        (
            ProviderKind::OpenAiCompatible,
            "openai/gpt-oss-20b",
            Tokenizer::O200k,
        ),
    ] {
        assert_eq!(Tokenizer::of(kind, model), expected, "{model}");
    }
}

/// OpenAI's own examples (Cookbook, "How to count tokens with tiktoken").
#[test]
fn known_texts_have_their_counts() {
    for (text, cl100k, o200k) in [
        ("", 0, 0),
        ("antidisestablishmentarianism", 6, 6),
        ("2 + 2 = 4", 7, 7),
        ("お誕生日おめでとう", 9, 8),
        ("<|endoftext|>", 7, 7),
    ] {
        assert_eq!(Tokenizer::Cl100k.count(text), cl100k, "{text}");
        assert_eq!(Tokenizer::O200k.count(text), o200k, "{text}");
    }
}

/// The example of the cookbook: what the API itself reported for it.
#[test]
fn a_chat_counts_as_the_cookbook_says() {
    let body = serde_json::json!({"model": "gpt-4o", "messages": [
        {"role": "system", "content": "You are a helpful, pattern-following assistant that translates corporate jargon into plain English."},
        {"role": "system", "name": "example_user", "content": "New synergies will help drive top-line growth."},
        {"role": "system", "name": "example_assistant", "content": "Things working well together will increase revenue."},
        {"role": "system", "name": "example_user", "content": "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage."},
        {"role": "system", "name": "example_assistant", "content": "Let's talk later when we're less busy about how to do better."},
        {"role": "user", "content": "This late pivot means we don't have time to boil the ocean for the client deliverable."},
    ]});
    let input = Input::new(Endpoint::ChatCompletions, body.to_string().into());
    assert_eq!(input.tokens(Tokenizer::Cl100k), 129);
    assert_eq!(input.tokens(Tokenizer::O200k), 124);
}

#[track_caller]
fn check_input(endpoint: Endpoint, body: &str, expected: u64) {
    let input = Input::new(endpoint, Bytes::copy_from_slice(body.as_bytes()));
    assert_eq!(input.tokens(Tokenizer::O200k), expected, "{body}");
}

#[test]
fn all_that_a_model_reads_is_counted() {
    let chat = Endpoint::ChatCompletions;
    check_input(chat, "no json", 0);
    check_input(chat, r#"{"messages":[]}"#, 3);
    let hi = |more: &str| format!(r#"{{"messages":[{{"role":"user","content":"hi"}}]{more}}}"#);
    check_input(chat, &hi(""), 3 + 3 + 1 + 1);
    let parts = r#"{"messages":[{"role":"user","content":[{"type":"text","text":"hi"},
        {"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA","detail":"low"}},
        {"type":"image_url","image_url":{"url":"https://example.com/a"}}]}]}"#;
    check_input(chat, parts, 8 + 85 + 765);
    let called = r#"{"messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"call_1",
        "type":"function","function":{"name":"f","arguments":"{}"}}]}]}"#;
    check_input(chat, called, 3 + 3 + 1 + 1 + 1);
    // name, description; a property with its type; two values.
    let tools = r#","tools":[{"type":"function","function":{"name":"f","description":"run",
        "parameters":{"type":"object","properties":{"unit":{"type":"string","enum":["a","b"]}}}}}]"#;
    check_input(
        chat,
        &hi(tools),
        8 + (7 + 2) + 3 + (3 + 2) + 2 * (3 + 1) + 12,
    );

    let messages = r#"{"system":"hi","messages":[{"role":"user","content":[
        {"type":"image","source":{"type":"base64","data":"AAAA"}},
        {"type":"tool_result","tool_use_id":"t","content":[{"type":"text","text":"hi"}]}]}]}"#;
    check_input(
        Endpoint::Messages,
        messages,
        3 + (3 + 1) + (3 + 1 + 1_600 + 1),
    );
    check_input(Endpoint::Responses, r#"{"input":"hi"}"#, 3 + 1);
    check_input(Endpoint::Completions, r#"{"prompt":["hi",[1,2,3]]}"#, 4);
    check_input(Endpoint::Embeddings, r#"{"input":["hi","hi there"]}"#, 3);
}

const SAMPLES: [(&str, &str); 9] = [
    (
        "English",
        "The harbour was quiet that morning, and the old fisherman mended his nets while the gulls argued over yesterday's catch. Nobody expected the letter that arrived at noon, carried by a boy who had run all the way from the station; it said, in a few careful sentences, that the house on the hill would be sold before winter.",
    ),
    (
        "Rust",
        "impl Iterator for Counter {\n    type Item = u32;\n\n    fn next(&mut self) -> Option<Self::Item> {\n        if self.count < 5 {\n            self.count += 1;\n            Some(self.count)\n        } else {\n            None\n        }\n    }\n}\n",
    ),
    (
        "JSON",
        "{\"id\":\"order-48213\",\"customer\":{\"name\":\"Ada\",\"email\":\"ada@example.com\"},\"lines\":[{\"sku\":\"A-100\",\"quantity\":3,\"price\":19.99},{\"sku\":\"B-27\",\"quantity\":1,\"price\":240.5}],\"paid\":true,\"total\":300.47}",
    ),
    (
        "German",
        "Der Hafen lag an diesem Morgen still, und der alte Fischer flickte seine Netze, während sich die Möwen um den Fang von gestern stritten. Niemand hatte den Brief erwartet, der gegen Mittag ankam; darin stand, dass das Haus auf dem Hügel noch vor dem Winter verkauft würde.",
    ),
    (
        "Russian",
        "В то утро гавань была тиха, и старый рыбак чинил свои сети, пока чайки спорили из-за вчерашнего улова. Никто не ждал письма, которое пришло в полдень: в нём говорилось, что дом на холме продадут ещё до зимы.",
    ),
    (
        "Chinese",
        "那天早晨港口很安静，老渔夫在修补渔网，海鸥为昨天的收获争吵不休。没有人料到中午会有一封信送来，信里用几句谨慎的话说，山上的房子将在冬天之前卖掉。",
    ),
    (
        "Japanese",
        "その朝、港は静かで、年老いた漁師は網を繕い、カモメたちは昨日の獲物をめぐって争っていた。正午に届いた手紙のことは誰も予想していなかった。丘の上の家は冬が来る前に売られるという。",
    ),
    (
        "Arabic",
        "كان الميناء هادئًا في ذلك الصباح، وكان الصياد العجوز يصلح شباكه بينما تتشاجر النوارس على صيد الأمس. لم يتوقع أحد الرسالة التي وصلت عند الظهر وقالت إن البيت على التل سيباع قبل الشتاء.",
    ),
    (
        "Hindi",
        "उस सुबह बंदरगाह शांत था और बूढ़ा मछुआरा अपने जाल ठीक कर रहा था, जबकि समुद्री पक्षी कल की मछलियों के लिए झगड़ रहे थे। दोपहर को जो चिट्ठी आई उसकी किसी को उम्मीद नहीं थी।",
    ),
];

#[test]
fn the_approximation_is_near_what_it_approximates() {
    let mut wrong = Vec::new();
    for (name, text) in SAMPLES {
        let (real, guess) = (Tokenizer::O200k.count(text), AS_MANY.count(text));
        let percent = guess * 100 / real;
        if !(90..=110).contains(&percent) {
            wrong.push(format!("{name}: {guess} for {real}, {percent} %"));
        }
        let more = Tokenizer::Approximate { percent: 200 }.count(text);
        assert!((guess * 2).abs_diff(more) <= 1, "{name}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A megabyte that a tokenizer might get lost in; a test that hangs fails.
#[test]
fn no_text_takes_long() {
    for unit in [
        "a",
        "A",
        " ",
        "\n",
        " \n",
        "1",
        "!",
        "漢",
        "\u{301}",
        "a\u{301}",
        "aA",
        "<|endoftext|>",
    ] {
        let text = unit.repeat((1 << 20) / unit.len());
        for tokenizer in [Tokenizer::O200k, Tokenizer::Cl100k, AS_MANY] {
            let tokens = tokenizer.count(&text);
            assert!(tokens <= text.len() as u64, "{unit:?} {tokenizer:?}");
        }
    }
}

#[test]
fn long_texts_are_scaled_from_samples() {
    for (name, text) in SAMPLES {
        let long = text.repeat(4_000_000 / text.len());
        for tokenizer in [Tokenizer::O200k, AS_MANY] {
            let whole = tokenizer.count(text) * (4_000_000 / text.len()) as u64;
            let found = tokenizer.count(&long);
            assert!(
                found.abs_diff(whole) * 50 < whole,
                "{name}: {found} for {whole}"
            );
            let kept = tokenizer.count_kept(text, text.len() * 10);
            assert_eq!(kept, tokenizer.count(text) * 10, "{name}");
        }
    }
    // Images are no text, however long.
    let image = "A".repeat(2 << 20);
    let part = serde_json::json!({"type": "image_url", "image_url": {"url": image}});
    let text = serde_json::json!({"type": "text", "text": SAMPLES[0].1});
    let message = serde_json::json!({"role": "user", "content": [part, text]});
    let body = serde_json::json!({"messages": [message]}).to_string();
    let expected = Tokenizer::O200k.count(SAMPLES[0].1) + 7 + 765;
    check_input(Endpoint::ChatCompletions, &body, expected);
}

#[test]
fn depth_costs_no_more_than_length() {
    let deep = format!("{}\"hi\"{}", "[".repeat(100), "]".repeat(100));
    let body = format!(r#"{{"messages":{deep}}}"#);
    let input = Input::new(Endpoint::ChatCompletions, body.into());
    let tokens = input.tokens(Tokenizer::O200k);
    assert!((3..200).contains(&tokens), "{tokens}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn nothing_has_more_tokens_than_bytes_or_fewer_than_none(text in "(?s).{0,400}", times in 1_usize..40) {
        let text = text.repeat(times);
        for tokenizer in [Tokenizer::O200k, Tokenizer::Cl100k] {
            prop_assert!(tokenizer.count(&text) <= text.len() as u64);
            prop_assert_eq!(tokenizer.count(&text) == 0, text.is_empty());
        }
        prop_assert!(AS_MANY.count(&text) <= 2 * text.len() as u64);
    }

    #[test]
    fn any_body_is_counted(body in "[\\[\\]{}\":,a1 ]{0,200}") {
        let input = Input::new(Endpoint::ChatCompletions, body.into());
        let _ = input.tokens(AS_MANY);
    }
}
