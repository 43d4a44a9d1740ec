//! The commands of intents and adjustments.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{
    Admin,
    table::{Table, cell, hour_cell, show, time_cell},
};
use crate::{
    operations::{
        AdjustmentReject, AdjustmentsApprove, AdjustmentsList, IntentRetry, IntentWord,
        IntentsList, Operation,
    },
    reach::Reach,
};

/// Which ones are listed.
#[derive(Debug, clap::Args)]
pub(super) struct Page {
    #[command(flatten)]
    admin: Admin,
    /// In this state alone.
    #[arg(long)]
    state: Option<String>,
    /// Of this tenant alone.
    #[arg(long)]
    tenant: Option<String>,
    /// How many at the most, up to 10,000.
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// Older than this number: the next page.
    #[arg(long, value_name = "ID")]
    before: Option<i64>,
}

/// Which one, and why.
#[derive(Debug, clap::Args)]
pub(super) struct Word {
    #[command(flatten)]
    admin: Admin,
    /// Its number.
    id: i64,
    /// Why; the ledger keeps it.
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Intents {
    /// List what Stripe is to have, or has, the newest first.
    List(Page),
    /// Send one again that is held, or that you know Stripe does not have.
    Retry {
        #[command(flatten)]
        admin: Admin,
        /// Its number.
        id: i64,
    },
    /// Decide that Stripe is not to have one: the use is not billed.
    Cancel(Word),
    /// Say that Stripe has one.
    Accept(Word),
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Adjustments {
    /// List changes of hours that are final, the newest first.
    List(Page),
    /// Bill one, or all that wait.
    #[command(group = clap::ArgGroup::new("which").required(true))]
    Approve {
        #[command(flatten)]
        admin: Admin,
        /// Its number.
        #[arg(group = "which")]
        id: Option<i64>,
        /// All that wait.
        #[arg(long, group = "which")]
        all: bool,
        /// Of all, those of this tenant.
        #[arg(long, requires = "all")]
        tenant: Option<String>,
    },
    /// Decide that one is not billed.
    Reject(Word),
}

pub(super) async fn intents(command: Intents) -> anyhow::Result<ExitCode> {
    let (admin, operation) = match command {
        Intents::List(page) => {
            let list = IntentsList {
                state: page.state,
                tenant: page.tenant,
                before: page.before,
                limit: Some(page.limit),
            };
            (page.admin, Operation::IntentsList(list))
        }
        Intents::Retry { admin, id } => (admin, Operation::IntentRetry(IntentRetry { id })),
        Intents::Cancel(word) => {
            let (admin, word) = word.intent();
            (admin, Operation::IntentCancel(word))
        }
        Intents::Accept(word) => {
            let (admin, word) = word.intent();
            (admin, Operation::IntentAccept(word))
        }
    };
    let answer = Reach::open(&admin.config).await?.perform(operation).await?;
    show(&answer, admin.json, intents_table)?;
    Ok(ExitCode::SUCCESS)
}

impl Word {
    fn intent(self) -> (Admin, IntentWord) {
        let word = IntentWord {
            id: self.id,
            reason: self.reason,
        };
        (self.admin, word)
    }
}

pub(super) async fn adjustments(command: Adjustments) -> anyhow::Result<ExitCode> {
    match command {
        Adjustments::List(page) => {
            let list = Operation::AdjustmentsList(AdjustmentsList {
                state: page.state,
                tenant: page.tenant,
                before: page.before,
                limit: Some(page.limit),
            });
            let answer = Reach::open(&page.admin.config).await?.perform(list).await?;
            show(&answer, page.admin.json, adjustments_table)?;
            Ok(ExitCode::SUCCESS)
        }
        Adjustments::Approve {
            admin,
            id,
            all,
            tenant,
        } => {
            let approve = Operation::AdjustmentsApprove(AdjustmentsApprove { id, all, tenant });
            let answer = Reach::open(&admin.config).await?.perform(approve).await?;
            show(&answer, admin.json, approved_table)?;
            let is_all = answer
                .get("refused")
                .and_then(Value::as_array)
                .is_none_or(Vec::is_empty);
            Ok(if is_all {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        Adjustments::Reject(word) => {
            let reject = Operation::AdjustmentReject(AdjustmentReject {
                id: word.id,
                reason: word.reason,
            });
            let answer = Reach::open(&word.admin.config)
                .await?
                .perform(reject)
                .await?;
            show(&answer, word.admin.json, intents_table)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Of a list, or of the one that was decided.
fn intents_table(answer: &Value) -> String {
    let mut table = Table::new(&[
        "ID",
        "TENANT",
        "METER",
        "HOUR (UTC)",
        "REVISION",
        "QUANTITY",
        "STATE",
        "TRIED (UTC)",
        "FOR",
        "REASON",
    ]);
    let one = json!([answer]);
    let all = answer.get("intents").unwrap_or(&one);
    for intent in all.as_array().into_iter().flatten() {
        table.row([
            cell(&intent["id"]),
            cell(&intent["tenant"]),
            cell(&intent["meter"]),
            hour_cell(&intent["hour_start_s"]),
            format!("{}.{}", intent["revision"], intent["generation"]),
            cell(&intent["delta"]),
            cell(&intent["state"]),
            time_cell(&intent["last_attempt_ms"]),
            cell(&intent["carried_from"]),
            cell(&intent["reason"]),
        ]);
    }
    table.text()
}

fn adjustments_table(answer: &Value) -> String {
    let mut table = Table::new(&[
        "ID",
        "TENANT",
        "METER",
        "HOUR (UTC)",
        "QUANTITY",
        "KIND",
        "STATE",
        "PROPOSED (UTC)",
        "OF",
        "INTENT",
    ]);
    for one in answer["adjustments"].as_array().into_iter().flatten() {
        table.row([
            cell(&one["id"]),
            cell(&one["tenant"]),
            cell(&one["meter"]),
            hour_cell(&one["hour_start_s"]),
            cell(&one["delta"]),
            cell(&one["kind"]),
            cell(&one["state"]),
            time_cell(&one["proposed_ms"]),
            cell(&one["source"]),
            cell(&one["intent"]),
        ]);
    }
    table.text()
}

fn approved_table(answer: &Value) -> String {
    let mut text = intents_table(answer);
    for kept in answer["refused"].as_array().into_iter().flatten() {
        text.push_str(&cell(&kept["reason"]));
        text.push('\n');
    }
    text
}
