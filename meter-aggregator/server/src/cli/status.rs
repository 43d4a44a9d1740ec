//! What `status` and `close-hour` print.

use std::process::ExitCode;

use serde_json::Value;

use super::table::{hour_cell, print};

/// Prints the status; fails where Stripe does not have everything.
pub(super) fn show(status: &Value, json: bool) -> anyhow::Result<ExitCode> {
    print(&match json {
        true => format!("{status:#}\n"),
        false => table(status),
    })?;
    let lines = status["lines"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let number = |line: &Value, name: &str| line[name].as_i64().unwrap_or(0);
    // What the operator waived is not to be there.
    let whole = lines.iter().all(|line| {
        let settled = number(line, "accepted").saturating_add(number(line, "waived"));
        number(line, "total") == settled
    });
    if let Some(problem) = status["problem"].as_str() {
        eprintln!("{problem}");
    }
    let differs = status["discrepancies"].as_array().into_iter().flatten();
    let differs = differs
        .filter(|kind| kind["state"] == "stripe_differs")
        .count();
    if differs > 0 {
        eprintln!("Stripe counts something else than it took: discrepancies --kind stripe_differs");
    }
    Ok(if whole && differs == 0 && status["problem"].is_null() {
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
            hour_cell(&used["hour_start_s"]),
            used["total"].to_string(),
            used["accepted"].to_string()
        ));
    }
    line(format!(
        "open intents: {}, adjustments: {}, waiting requests: {}, unbooked events: {}",
        status["open"], status["adjustments"], status["waiting"], status["unbooked"]
    ));
    line(format!(
        "quarantined events: {}, conflicts: {}, missing events: {}",
        status["quarantined"], status["conflicts"], status["missing"]
    ));
    for intent in status["stuck"].as_array().into_iter().flatten() {
        line(format!(
            "{} {} {}: {}; what comes after it waits: {}",
            intent["tenant"].as_str().unwrap_or_default(),
            intent["meter"].as_str().unwrap_or_default(),
            hour_cell(&intent["hour_start_s"]),
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
