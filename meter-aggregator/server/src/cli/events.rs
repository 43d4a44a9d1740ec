//! The command `events`: which requests, and how they are printed.

use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Usage,
    table::{Table, cell, time_cell},
};
use crate::operations::Events;

/// Which requests are shown.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Wanted {
    /// Of this tenant alone.
    #[arg(long)]
    tenant: Option<String>,
    /// This one alone, by the X-Weir-Request-ID of its answer.
    #[arg(long)]
    request: Option<String>,
    /// Not older: a time in RFC 3339, or so long ago (90s, 30m, 12h, 7d).
    #[arg(long)]
    since: Option<String>,
    /// How many at the most, up to 10,000.
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// Older than this request: the next page.
    #[arg(long, value_name = "ID")]
    before: Option<String>,
}

impl Wanted {
    /// As it is asked for.
    pub(super) fn events(self, now_ms: i64) -> Result<Events, Usage> {
        let since = self.since.map(|text| since_ms(&text, now_ms)).transpose()?;
        Ok(Events {
            tenant: self.tenant,
            request: self.request,
            since_ms: since,
            before: self.before,
            limit: Some(self.limit),
        })
    }
}

/// Reads a time, or how long ago it was.
fn since_ms(text: &str, now_ms: i64) -> Result<i64, Usage> {
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(time.unix_timestamp().saturating_mul(1_000));
    }
    let units = [
        ("s", 1_000),
        ("m", 60_000),
        ("h", 3_600_000),
        ("d", 86_400_000),
    ];
    let unit = units.into_iter().find(|(unit, _)| text.ends_with(unit));
    let Some((number, ms)) = unit.and_then(|(u, ms)| Some((text.strip_suffix(u)?, ms))) else {
        return Err(Usage(format!(
            "--since: must be a time such as 2026-11-27T09:00:00Z or 30m, found {text:?}"
        )));
    };
    let number: u32 = number
        .parse()
        .map_err(|_| Usage(format!("--since: {text:?} begins with no number")))?;
    Ok(now_ms.saturating_sub(i64::from(number).saturating_mul(ms)))
}

/// The requests, a line each.
pub(super) fn table(answer: &Value) -> String {
    let mut table = Table::new(&[
        "REQUEST",
        "TIME (UTC)",
        "TENANT",
        "CLASS",
        "ASKED",
        "SERVED",
        "PROVIDER",
        "INPUT",
        "CACHED",
        "WRITTEN",
        "OUTPUT",
        "REASONING",
        "AUDIO",
        "SOURCE",
        "OUTCOME",
        "WITNESSES",
    ]);
    for request in answer["requests"].as_array().into_iter().flatten() {
        table.row(row(request));
    }
    table.text()
}

/// The cells of one request.
fn row(request: &Value) -> [String; 16] {
    let text = |name: &str| cell(&request[name]);
    let audio = ["audio_input_tokens", "audio_output_tokens"]
        .map(|name| request[name].as_u64().unwrap_or(0));
    let counted = request["counted"].as_str().unwrap_or_default();
    let witnesses = request["witnesses"].as_array().into_iter().flatten();
    let witnesses: Vec<String> = witnesses
        .filter_map(Value::as_str)
        .map(|name| match name == counted {
            true => format!("{name}*"),
            false => name.to_owned(),
        })
        .collect();
    let outcome = format!(
        "{} {} {}ms",
        text("outcome"),
        request["status"],
        request["duration_ms"]
    );
    [
        text("request_id"),
        time_cell(&request["time_ms"]),
        text("tenant"),
        text("class"),
        text("model_asked"),
        text("model_served"),
        text("provider"),
        text("input_tokens"),
        text("cached_input_tokens"),
        text("cache_write_input_tokens"),
        text("output_tokens"),
        text("reasoning_tokens"),
        format!("{}/{}", audio[0], audio[1]),
        text("source"),
        outcome,
        witnesses.join(" "),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn since_is_a_time_or_how_long_ago() {
        let check = |text: &str, expected: Result<i64, &str>| {
            let found = since_ms(text, 100_000_000).map_err(|e| e.to_string());
            match expected {
                Ok(ms) => assert_eq!(found, Ok(ms), "{text}"),
                Err(names) => assert!(found.unwrap_err().contains(names), "{text}"),
            }
        };
        check("90s", Ok(99_910_000));
        check("30m", Ok(98_200_000));
        check("1d", Ok(13_600_000));
        check("1970-01-01T00:01:00Z", Ok(60_000));
        for wrong in ["yesterday", "5", "-5m", "m"] {
            check(wrong, Err("--since"));
        }
    }

    #[test]
    fn a_request_is_a_line_with_the_witness_that_counts_marked() {
        let request = json!({
            "request_id": "id", "time_ms": 0, "tenant": "acme", "class": "chat",
            "model_asked": "a\u{1b}[2J", "model_served": "", "provider": "openai",
            "input_tokens": 1, "cached_input_tokens": 2, "cache_write_input_tokens": 3,
            "output_tokens": 4, "reasoning_tokens": 5, "audio_input_tokens": 6,
            "audio_output_tokens": 7, "source": "reported", "outcome": "completed",
            "status": 200, "duration_ms": 12, "witnesses": ["gateway", "router"],
            "counted": "router",
        });
        let text = table(&json!({"requests": [request]}));
        let line: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(
            line,
            [
                "id",
                "1970-01-01T00:00:00Z",
                "acme",
                "chat",
                "a[2J",
                "-",
                "openai",
                "1",
                "2",
                "3",
                "4",
                "5",
                "6/7",
                "reported",
                "completed",
                "200",
                "12ms",
                "gateway",
                "router*"
            ]
        );
    }
}
