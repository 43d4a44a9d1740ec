//! The commands that look whether all is right: `discrepancies`, `reconcile`, `prove`.

use std::process::ExitCode;

use serde_json::Value;

use super::{
    Admin, progress,
    table::{Table, cell, hour_cell, show, time_cell},
};
use crate::{
    operations::{Discrepancies, Operation, Prove, Reconcile},
    reach::Reach,
};

#[derive(Debug, clap::Args)]
pub(super) struct DiscrepanciesArguments {
    #[command(flatten)]
    admin: Admin,
    /// Of this kind alone: single_witness, conflict, witnesses_differ or stripe_differs.
    #[arg(long)]
    kind: Option<String>,
    /// Of this tenant alone.
    #[arg(long)]
    tenant: Option<String>,
    /// With those that were resolved.
    #[arg(long)]
    all: bool,
    /// How many at the most, up to 10,000.
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// Older than this number: the next page.
    #[arg(long, value_name = "ID")]
    before: Option<i64>,
}

#[derive(Debug, clap::Args)]
pub(super) struct ReconcileArguments {
    #[command(flatten)]
    admin: Admin,
    /// What was confirmed in so many hours is asked about again, too.
    #[arg(long, value_name = "N")]
    hours: Option<u32>,
    /// Of that, only this tenant's.
    #[arg(long, requires = "hours")]
    tenant: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct ProveArguments {
    #[command(flatten)]
    admin: Admin,
    /// in_.../il_..., a line of an invoice of Stripe's; or TENANT/METER/TIME, the time
    /// being an hour (2026-11-23T14), a day or a month in UTC.
    line: String,
    /// How many requests are listed at the most, up to 10,000; all are counted.
    #[arg(long, default_value_t = 100)]
    limit: u32,
}

pub(super) async fn discrepancies(arguments: DiscrepanciesArguments) -> anyhow::Result<ExitCode> {
    let list = Operation::Discrepancies(Discrepancies {
        kind: arguments.kind,
        tenant: arguments.tenant,
        all: arguments.all,
        before: arguments.before,
        limit: Some(arguments.limit),
    });
    let answer = Reach::open(&arguments.admin.config)
        .await?
        .perform(list)
        .await?;
    show(&answer, arguments.admin.json, discrepancies_table)?;
    Ok(well(is_empty(&answer)))
}

pub(super) async fn reconcile(arguments: ReconcileArguments) -> anyhow::Result<ExitCode> {
    let reach = Reach::open(&arguments.admin.config).await?;
    reach.needs_stripe()?;
    let bar = progress::waiting("asking Stripe's sums");
    let answer = reach
        .perform(Operation::Reconcile(Reconcile {
            tenant: arguments.tenant,
            hours: arguments.hours,
        }))
        .await?;
    bar.finish_and_clear();
    show(&answer, arguments.admin.json, |answer| {
        format!(
            "asked again: {} intents; asked: {} hours\n{}",
            answer["rechecked"],
            answer["asked"],
            discrepancies_table(answer)
        )
    })?;
    Ok(well(is_empty(&answer)))
}

pub(super) async fn prove(arguments: ProveArguments) -> anyhow::Result<ExitCode> {
    let reach = Reach::open(&arguments.admin.config).await?;
    let prove = Prove {
        line: arguments.line,
        limit: Some(arguments.limit),
    };
    let answer = match &reach {
        Reach::Running(_) => {
            let bar = progress::waiting("walking the journal");
            let answer = reach.perform(Operation::Prove(prove)).await?;
            bar.finish_and_clear();
            answer
        }
        Reach::Offline { parts, .. } => {
            let bar = progress::count(Some(0));
            let moving = bar.clone();
            let proven = prove.perform(parts, move |done, all| {
                moving.set_length(all);
                moving.set_position(done);
            });
            let proven = proven.await?;
            bar.finish_and_clear();
            serde_json::to_value(proven)?
        }
    };
    show(&answer, arguments.admin.json, proof_text)?;
    Ok(well(answer.get("holds") == Some(&Value::Bool(true))))
}

fn well(is_well: bool) -> ExitCode {
    match is_well {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn is_empty(answer: &Value) -> bool {
    let open = answer["discrepancies"].as_array().into_iter().flatten();
    open.filter(|one| one["resolved_ms"].is_null()).count() == 0
}

fn discrepancies_table(answer: &Value) -> String {
    let mut table = Table::new(&[
        "ID",
        "KIND",
        "TENANT",
        "REQUEST",
        "METER",
        "HOUR (UTC)",
        "NOTED (UTC)",
        "RESOLVED (UTC)",
        "WHAT",
    ]);
    for one in answer["discrepancies"].as_array().into_iter().flatten() {
        table.row([
            cell(&one["id"]),
            cell(&one["kind"]),
            cell(&one["tenant"]),
            cell(&one["request_id"]),
            cell(&one["meter"]),
            hour_cell(&one["hour_start_s"]),
            time_cell(&one["noted_ms"]),
            time_cell(&one["resolved_ms"]),
            cell(&one["detail"]),
        ]);
    }
    table.text()
}

fn proof_text(answer: &Value) -> String {
    let mut table = Table::new(&["REQUEST", "QUANTITY", "WITNESS", "EVENT (SHA-256)"]);
    for one in answer["behind"].as_array().into_iter().flatten() {
        let named = |name: &str| cell(&one[name]);
        table.row([
            named("request_id"),
            named("quantity"),
            named("witness"),
            named("event"),
        ]);
    }
    let mut text = table.text();
    let mut say = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    let of = |name: &str| cell(&answer[name]);
    say(format!(
        "{} {} from {} to {}: {} requests come to {}",
        of("tenant"),
        of("meter"),
        of("from"),
        of("to"),
        of("requests"),
        of("used")
    ));
    say(format!(
        "ledger: {}, planned: {}, at Stripe: {} (accepted: {}, confirmed: {}), waived: {}",
        of("total"),
        of("planned"),
        of("at_stripe"),
        of("accepted"),
        of("confirmed"),
        of("waived")
    ));
    if !answer["stripe"].is_null() {
        say(format!("the invoice's line: {}", of("stripe")));
    }
    say(format!("journal: {} lines walked", of("journal_lines")));
    for problem in answer["problems"].as_array().into_iter().flatten() {
        say(format!("does not hold: {}", cell(problem)));
    }
    if answer["holds"] == true {
        say("all of it holds".to_owned());
    }
    text
}
