//! Event summaries: sums, windows, alignment, and how late they may be.

use serde_json::{Value, json};

use crate::client::{FakeStripe, NOW};

const HOUR: i64 = 3_600;

/// A meter with one customer, and events at these offsets from the last full hour.
async fn with_events(formula: &str, events: &[(i64, &str)]) -> (FakeStripe, String, String, i64) {
    let fake = FakeStripe::start().await;
    let meter = fake.meter_of(formula, "tokens").await;
    let customer = fake.customer().await;
    let base = NOW - NOW % HOUR;
    for (offset, value) in events {
        let at = (base + offset).to_string();
        fake.event("tokens", &customer, value, &[("timestamp", &at)])
            .await
            .with_status(200);
    }
    (fake, meter, customer, base)
}

async fn summaries(
    fake: &FakeStripe,
    meter: &str,
    customer: &str,
    range: (i64, i64),
    more: &[(&str, &str)],
) -> Value {
    let (start, end) = (range.0.to_string(), range.1.to_string());
    let mut query = vec![
        ("customer", customer),
        ("start_time", &start),
        ("end_time", &end),
    ];
    query.extend(more);
    fake.get(
        &format!("/v1/billing/meters/{meter}/event_summaries"),
        &query,
    )
    .await
    .with_status(200)
    .json()
}

fn values(list: &Value) -> Vec<(i64, i64, i64)> {
    let number = |one: &Value, name: &str| one[name].as_i64().unwrap();
    let all = list["data"].as_array().unwrap().iter();
    all.map(|s| {
        (
            number(s, "start_time"),
            number(s, "end_time"),
            number(s, "aggregated_value"),
        )
    })
    .collect()
}

#[tokio::test]
async fn sums_are_by_the_events_time_start_included_end_not() {
    let events = [
        (-HOUR, "10"),
        (-1, "5"),
        (0, "100"),
        (59, "1"),
        (60, "1000"),
        (120, "-40"),
    ];
    let (fake, meter, customer, base) = with_events("sum", &events).await;
    let check = async |from: i64, to: i64, wanted: i64| {
        let list = summaries(&fake, &meter, &customer, (base + from, base + to), &[]).await;
        assert_eq!(values(&list), [(base + from, base + to, wanted)]);
    };
    check(-HOUR, 0, 15).await;
    check(0, 60, 101).await;
    check(60, 180, 960).await;
    check(-HOUR, HOUR, 1_076).await;
    check(-3 * HOUR, -HOUR, 0).await;
    let other = fake.customer().await;
    let list = summaries(&fake, &meter, &other, (base, base + HOUR), &[]).await;
    assert_eq!(list["data"][0]["aggregated_value"], 0);
    assert_eq!(list["data"][0]["object"], "billing.meter_event_summary");
    assert_eq!(list["data"][0]["meter"], meter);
}

#[tokio::test]
async fn windows_come_newest_first_and_are_paged() {
    let events = [
        (-5 * HOUR, "1"),
        (-5 * HOUR + 7, "2"),
        (-3 * HOUR, "4"),
        (-1, "8"),
        (0, "16"),
    ];
    let (fake, meter, customer, base) = with_events("sum", &events).await;
    let range = (base - 6 * HOUR, base + HOUR);
    let hour = ("value_grouping_window", "hour");
    let list = summaries(&fake, &meter, &customer, range, &[hour]).await;
    let window = |hours: i64, value: i64| (base + hours * HOUR, base + (hours + 1) * HOUR, value);
    assert_eq!(
        values(&list),
        [window(0, 16), window(-1, 8), window(-3, 4), window(-5, 3)]
    );
    let first = summaries(&fake, &meter, &customer, range, &[hour, ("limit", "2")]).await;
    assert_eq!(
        (values(&first).len(), &first["has_more"]),
        (2, &json!(true))
    );
    let last = first["data"][1]["id"].as_str().unwrap();
    let second = summaries(
        &fake,
        &meter,
        &customer,
        range,
        &[hour, ("starting_after", last)],
    )
    .await;
    assert_eq!(values(&second), [window(-3, 4), window(-5, 3)]);
    let day = base - base % (24 * HOUR);
    let daily = [("value_grouping_window", "day")];
    let list = summaries(&fake, &meter, &customer, (day, day + 24 * HOUR), &daily).await;
    assert_eq!(values(&list), [(day, day + 24 * HOUR, 31)]);
}

#[tokio::test]
async fn formulas() {
    let events = [(-100, "7"), (-300, "50"), (-100, "9")];
    for (formula, wanted) in [("sum", 66), ("count", 3), ("last", 9)] {
        let (fake, meter, customer, base) = with_events(formula, &events).await;
        let list = summaries(&fake, &meter, &customer, (base - HOUR, base), &[]).await;
        assert_eq!(values(&list)[0].2, wanted, "{formula}");
    }
}

#[tokio::test]
async fn ranges_that_are_not_aligned_are_refused() {
    let (fake, meter, customer, base) = with_events("sum", &[]).await;
    let check = async |start: i64, end: i64, window: Option<&str>, param: &str| {
        let (start, end) = (start.to_string(), end.to_string());
        let mut query = vec![
            ("customer", customer.as_str()),
            ("start_time", &start),
            ("end_time", &end),
        ];
        query.extend(window.map(|window| ("value_grouping_window", window)));
        let path = format!("/v1/billing/meters/{meter}/event_summaries");
        let reply = fake.get(&path, &query).await.with_status(400);
        assert_eq!(reply.json()["error"]["param"], param);
    };
    check(base + 1, base + 60, None, "start_time").await;
    check(base, base + 61, None, "end_time").await;
    check(base, base, None, "end_time").await;
    check(base + 60, base + HOUR, Some("hour"), "start_time").await;
    check(base, base + 60, Some("hour"), "end_time").await;
    check(base, base + HOUR, Some("day"), "start_time").await;
    check(base, base + HOUR, Some("minute"), "value_grouping_window").await;
    let path = format!("/v1/billing/meters/{meter}/event_summaries");
    for query in [
        vec![("start_time", "0"), ("end_time", "60")],
        vec![("customer", customer.as_str()), ("end_time", "60")],
        vec![("customer", customer.as_str()), ("start_time", "0")],
        vec![
            ("customer", "cus_nope"),
            ("start_time", "0"),
            ("end_time", "60"),
        ],
    ] {
        fake.get(&path, &query).await.with_status(400);
    }
}

#[tokio::test]
async fn summaries_may_lag_behind() {
    let (fake, meter, customer, base) = with_events("sum", &[]).await;
    let now =
        async || values(&summaries(&fake, &meter, &customer, (base, base + HOUR), &[]).await)[0].2;
    fake.control("/__fake/clock", &json!({"summary_lag_s": 60}))
        .await;
    fake.event("tokens", &customer, "5", &[])
        .await
        .with_status(200);
    assert_eq!(now().await, 0);
    fake.control("/__fake/clock", &json!({"offset_s": 60}))
        .await;
    assert_eq!(now().await, 5);
}
