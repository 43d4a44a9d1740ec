//! What `status` and `close-hour` print.

use std::process::ExitCode;

use serde_json::Value;

/// Prints the status; fails where Stripe does not have everything.
pub(super) fn show(status: &Value, json: bool) -> anyhow::Result<ExitCode> {
    super::print(&match json {
        true => format!("{status:#}\n"),
        false => table(status),
    })?;
    let lines = status["lines"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let whole = lines.iter().all(|l| l["total"] == l["accepted"]);
    if let Some(problem) = status["problem"].as_str() {
        eprintln!("{problem}");
    }
    Ok(if whole && status["problem"].is_null() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn table(status: &Value) -> String {
    let mut text = String::new();
    let mut line = |row: String| {
        text.push_str(&row);
        text.push('\n');
    };
    line(format!(
        "{:<20} {:<15} {:<20} {:>14} {:>14}",
        "TENANT", "METER", "HOUR (UTC)", "USED", "AT STRIPE"
    ));
    for used in status["lines"].as_array().into_iter().flatten() {
        line(format!(
            "{:<20} {:<15} {:<20} {:>14} {:>14}",
            used["tenant"].as_str().unwrap_or_default(),
            used["meter"].as_str().unwrap_or_default(),
            hour_text(used["hour_start_s"].as_i64().unwrap_or(0)),
            used["total"].to_string(),
            used["accepted"].to_string()
        ));
    }
    line(format!(
        "open intents: {}, quarantined events: {}, conflicts: {}, missing events: {}",
        status["open"], status["quarantined"], status["conflicts"], status["missing"]
    ));
    for intent in status["stuck"].as_array().into_iter().flatten() {
        line(format!(
            "{} {} {}: {}; what comes after it waits: {}",
            intent["tenant"].as_str().unwrap_or_default(),
            intent["meter"].as_str().unwrap_or_default(),
            hour_text(intent["hour_start_s"].as_i64().unwrap_or(0)),
            intent["state"].as_str().unwrap_or_default(),
            intent["reason"]
                .as_str()
                .unwrap_or("Stripe did not answer for 20 hours")
        ));
    }
    for gap in status["gaps"].as_array().into_iter().flatten() {
        line(format!(
            "events {} to {} of the {}'s run {} are missing",
            gap["first"],
            gap["last"],
            gap["witness"].as_str().unwrap_or_default(),
            gap["run"].as_str().unwrap_or_default()
        ));
    }
    for log in status["logs"].as_array().into_iter().flatten() {
        line(log_text(log));
    }
    for tenant in status["without_customer"].as_array().into_iter().flatten() {
        line(format!(
            "tenants.{}.stripe_customer is not configured; its use waits",
            tenant.as_str().unwrap_or_default()
        ));
    }
    text
}

/// How a log is doing.
fn log_text(log: &Value) -> String {
    let path = log["path"].as_str().unwrap_or_default();
    let mut text = if log["is_waiting"] == true {
        format!("{path}: not there yet")
    } else {
        format!(
            "{path}: {} events, {} torn, {} bytes behind",
            log["events"], log["torn"], log["behind_bytes"]
        )
    };
    for problem in ["error", "truncated"] {
        if let Some(problem) = log[problem].as_str() {
            text.push_str("; ");
            text.push_str(problem);
        }
    }
    text
}

/// Such as `2026-11-23 14:00`.
fn hour_text(start_s: i64) -> String {
    let days = start_s.div_euclid(86_400);
    let hour = start_s.rem_euclid(86_400).div_euclid(3_600);
    let date = time::OffsetDateTime::from_unix_timestamp(days.saturating_mul(86_400))
        .map(|t| t.date().to_string())
        .unwrap_or_default();
    format!("{date} {hour:02}:00")
}
