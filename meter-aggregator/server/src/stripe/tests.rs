//! The client against a Stripe of a few lines.

use std::time::Instant;

use super::{
    stub::{Canned, KEY, good, start},
    *,
};

const INVOICE: &str = r#"{"id":"in_1","customer":"cus_1","status":"open","attempt_count":1,
    "period_start":0,"period_end":1}"#;

#[tokio::test]
async fn what_passes_is_asked_again_and_what_does_not_is_told() {
    let check = async |answers: Vec<Canned>, asked: usize, wanted: Result<(), &str>| {
        let (stub, stripe) = start(answers, 1_000).await;
        let found = stripe.invoice("in_1").await.map(|_| ());
        let found = found.map_err(|e| format!("{:#}", anyhow::Error::new(e)));
        match (found, wanted) {
            (Ok(()), Ok(())) => {}
            (Err(found), Err(wanted)) => {
                assert!(found.contains(wanted), "{found} should say {wanted}");
                assert!(!found.contains(KEY));
            }
            (found, wanted) => panic!("{found:?} is not {wanted:?}"),
        }
        assert_eq!(stub.asked.lock().unwrap().len(), asked);
    };
    let error = |status: u16| (status, &[][..], String::new());
    check(vec![good(INVOICE)], 1, Ok(())).await;
    check(vec![error(500), error(429), good(INVOICE)], 3, Ok(())).await;
    check(vec![error(503); 9], 4, Err("Stripe answered 503")).await;
    let no: &[_] = &[("stripe-should-retry", "false")];
    check(vec![(500, no, String::new())], 1, Err("500")).await;
    let yes: &[_] = &[("stripe-should-retry", "true")];
    check(vec![(400, yes, String::new()), good(INVOICE)], 2, Ok(())).await;
    // Longer than is waited here: the one who asked comes again.
    let later: &[_] = &[("retry-after", "60")];
    check(vec![(429, later, String::new())], 1, Err("429")).await;
    check(vec![error(401)], 1, Err("stripe.api_key_env")).await;
    check(vec![error(403)], 1, Err("restricted key")).await;
    check(vec![good("{}")], 1, Err("missing field `id`")).await;
    check(
        vec![good("<html>")],
        1,
        Err("not what Stripe's API promises"),
    )
    .await;
}

#[tokio::test]
async fn a_pause_that_stripe_asks_for_is_kept() {
    let later: &[_] = &[("retry-after", "1")];
    let answers = vec![(429, later, String::new()), good(INVOICE)];
    let (_, stripe) = start(answers, 1_000).await;
    let begun = Instant::now();
    stripe.invoice("in_1").await.unwrap();
    assert!(begun.elapsed().as_millis() >= 1_000);
}

#[tokio::test]
async fn each_call_says_who_asks_in_which_version() {
    let (stub, stripe) = start(vec![good("{}"), good(INVOICE)], 1_000).await;
    let event = MeterEvent {
        event_name: "calls",
        customer_key: "stripe_customer_id",
        value_key: "value",
        customer: "cus_1",
        value: 7,
        identifier: "weir_1",
        timestamp_s: 3_600,
        idempotency_key: "weir_1-0",
    };
    let attempt = stripe.send_unless(&event, || false).await.unwrap();
    assert!(matches!(attempt, Attempt::Answered { status: 200, .. }));
    stripe.invoice("in_1").await.unwrap();
    let asked = stub.asked.lock().unwrap();
    for (_, _, headers) in asked.iter() {
        assert_eq!(headers["authorization"], format!("Bearer {KEY}"));
        assert_eq!(headers["stripe-version"], stripe::VERSION);
    }
    assert_eq!(asked[0].2["idempotency-key"], "weir_1-0");
    assert_eq!(
        asked[0].2["content-type"],
        "application/x-www-form-urlencoded"
    );
    assert_eq!(
        (asked[0].0.as_str(), asked[0].1.as_str()),
        ("POST", "/v1/billing/meter_events")
    );
}

#[tokio::test]
async fn an_event_is_sent_once_whatever_comes() {
    for (answer, status) in [
        ((500, &[][..], String::new()), 500),
        ((429, &[][..], "x".into()), 429),
    ] {
        let (stub, stripe) = start(vec![answer], 1_000).await;
        let mapping = MeterEvent {
            event_name: "calls",
            customer_key: "c",
            value_key: "v",
            customer: "cus_1",
            value: 1,
            identifier: "i",
            timestamp_s: 0,
            idempotency_key: "k",
        };
        let attempt = stripe.send_unless(&mapping, || false).await.unwrap();
        assert!(matches!(attempt, Attempt::Answered { status: found, .. } if found == status));
        assert_eq!(stub.asked.lock().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn summaries_come_page_by_page_and_by_the_hour() {
    let summary = |id: &str, start: i64, end: i64, value: &str| {
        format!(
            r#"{{"id":"{id}","start_time":{start},"end_time":{end},"aggregated_value":{value}}}"#
        )
    };
    let page = |data: &[String], more: bool| {
        good(&format!(
            r#"{{"data":[{}],"has_more":{more}}}"#,
            data.join(",")
        ))
    };
    let first = [
        summary("b", 7_200, 10_800, "5.0"),
        summary("a", 3_600, 7_200, "-4"),
    ];
    let answers = vec![
        page(&first, true),
        page(&[summary("c", 0, 3_600, "3")], false),
    ];
    let (stub, stripe) = start(answers, 1_000).await;
    let hours = (Hour(0), Hour(3));
    let found = stripe.summaries("mtr_1", "cus_1", hours).await.unwrap();
    assert_eq!(found, [(Hour(0), 3), (Hour(1), -4), (Hour(2), 5)]);
    assert!(stub.asked.lock().unwrap()[1].1.contains("starting_after=a"));
    for bad in [
        summary("a", 0, 7_200, "1"),
        summary("a", 60, 3_660, "1"),
        summary("a", 0, 3_600, "0.5"),
    ] {
        let (_, stripe) = start(vec![page(&[bad], false)], 1_000).await;
        assert!(stripe.summaries("mtr_1", "cus_1", hours).await.is_err());
    }
    // More pages are promised, and none comes.
    let (_, stripe) = start(vec![page(&[], true)], 1_000).await;
    assert_eq!(stripe.summaries("mtr_1", "cus_1", hours).await.unwrap(), []);
}

#[tokio::test]
async fn no_second_has_more_calls_than_stripe_takes() {
    // The first one goes at once, each other one a while after the one before.
    for (calls_per_second, ms) in [(20, 50 * 5), (1_000, 40 * 5)] {
        let (_, stripe) = start(vec![good(INVOICE); 6], calls_per_second).await;
        let begun = Instant::now();
        for _ in 0..6 {
            stripe.invoice("in_1").await.unwrap();
        }
        assert!(
            begun.elapsed().as_millis() >= ms - 1,
            "{:?}",
            begun.elapsed()
        );
    }
}

/// A Stripe that says `head` and then hangs up.
async fn cut(head: &'static str) -> Stripe {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_, stripe) = start(Vec::new(), 1_000).await;
    let mut settings = stripe.settings;
    settings.api_base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = [0; 4_096];
            let _ = socket.read(&mut request).await;
            let _ = socket.write_all(head.as_bytes()).await;
        }
    });
    Stripe::new(settings).unwrap()
}

/// Of a refusal that is cut nobody knows whether it says that the event exists already.
#[tokio::test]
async fn a_cut_answer_is_none_unless_it_says_done() {
    let event = MeterEvent {
        event_name: "calls",
        customer_key: "c",
        value_key: "v",
        customer: "cus_1",
        value: 1,
        identifier: "i",
        timestamp_s: 0,
        idempotency_key: "k",
    };
    for (head, done) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{", true),
        (
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 99\r\n\r\n{",
            false,
        ),
        ("HTTP/1.1 200 O", false),
    ] {
        let attempt = cut(head).await.send_unless(&event, || false).await.unwrap();
        let answered = matches!(attempt, Attempt::Answered { status: 200, .. });
        assert_eq!(answered, done, "{head}: {attempt:?}");
    }
}

#[tokio::test]
async fn no_answer_is_none() {
    let (_, stripe) = start(Vec::new(), 1_000).await;
    let mut settings = stripe.settings;
    settings.api_base = "http://127.0.0.1:1".to_owned();
    let stripe = Stripe::new(settings).unwrap();
    assert_eq!(stripe.tenant("cus_1"), Some("acme"));
    let mapping = MeterEvent {
        event_name: "calls",
        customer_key: "c",
        value_key: "v",
        customer: "cus_1",
        value: 1,
        identifier: "i",
        timestamp_s: 0,
        idempotency_key: "k",
    };
    assert_eq!(
        stripe.send_unless(&mapping, || false).await.unwrap(),
        Attempt::Unanswered
    );
}
