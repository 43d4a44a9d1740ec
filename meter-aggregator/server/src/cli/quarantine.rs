//! The commands of quarantine.

use std::{collections::BTreeMap, process::ExitCode};

use serde_json::{Value, json};

use super::{
    progress,
    table::{Table, cell, show, time_cell},
};
use crate::{
    operations::{Operation, QuarantineList, QuarantineReplay, Replayed},
    reach::Reach,
};

/// Numbers in one call.
const IDS_MAX: usize = 1_000;

/// The most reasons that are told apart.
const REASONS_MAX: usize = 100;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Quarantine {
    /// List what is in quarantine, the newest first.
    List {
        #[command(flatten)]
        admin: super::Admin,
        /// With this text in the reason.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// How many at the most, up to 10,000.
        #[arg(long, default_value_t = 100)]
        limit: u32,
        /// Older than this number: the next page.
        #[arg(long, value_name = "ID")]
        before: Option<i64>,
    },
    /// Check again what is in quarantine, by the keys and the configuration of now: what
    /// is good goes to the stream, the rest stays.
    #[command(group = clap::ArgGroup::new("which").required(true))]
    Replay {
        #[command(flatten)]
        admin: super::Admin,
        /// These numbers.
        #[arg(group = "which", value_name = "ID")]
        ids: Vec<i64>,
        /// All there is.
        #[arg(long, group = "which")]
        all: bool,
        /// What has this text in the reason.
        #[arg(long, group = "which", value_name = "TEXT")]
        reason: Option<String>,
    },
}

pub(super) async fn run(command: Quarantine) -> anyhow::Result<ExitCode> {
    match command {
        Quarantine::List {
            admin,
            reason,
            limit,
            before,
        } => {
            let list = QuarantineList {
                reason,
                before,
                limit: Some(limit),
            };
            let reach = Reach::open(&admin.config).await?;
            let answer = reach.perform(Operation::QuarantineList(list)).await?;
            show(&answer, admin.json, list_table)?;
            Ok(ExitCode::SUCCESS)
        }
        Quarantine::Replay {
            admin,
            ids,
            all,
            reason,
        } => {
            let reach = Reach::open(&admin.config).await?;
            let done = replay(&reach, ids, all, reason).await?;
            let stays = !done.stay.is_empty();
            let answer = json!({
                "checked": done.checked, "replayed": done.replayed, "stay": done.stay,
            });
            show(&answer, admin.json, |_| replay_table(&done))?;
            Ok(if stays {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            })
        }
    }
}

/// One call after the other, until there are no more.
async fn replay(
    reach: &Reach,
    mut ids: Vec<i64>,
    all: bool,
    reason: Option<String>,
) -> anyhow::Result<Replayed> {
    ids.sort_unstable();
    ids.dedup();
    let parts: Vec<Option<Vec<i64>>> = match ids.is_empty() {
        true => vec![None],
        false => ids.chunks(IDS_MAX).map(|ids| Some(ids.to_vec())).collect(),
    };
    let bar = progress::count(None);
    let mut done = Replayed::default();
    for ids in parts {
        let mut next = QuarantineReplay {
            ids,
            reason: reason.clone(),
            all,
            after: 0,
        };
        loop {
            let answer = reach
                .insist(Operation::QuarantineReplay(next.clone()))
                .await?;
            let answer: Replayed = serde_json::from_value(answer)?;
            done.checked = done.checked.saturating_add(answer.checked);
            done.replayed = done.replayed.saturating_add(answer.replayed);
            add(&mut done.stay, answer.stay);
            bar.set_position(done.checked);
            if !answer.more {
                break;
            }
            next.after = answer.last;
        }
    }
    bar.finish_and_clear();
    Ok(done)
}

/// Reasons quote what was found: their number is bounded.
fn add(to: &mut BTreeMap<String, u64>, stay: BTreeMap<String, u64>) {
    for (reason, count) in stay {
        let name = match to.len() < REASONS_MAX || to.contains_key(&reason) {
            true => reason,
            false => "other reasons".to_owned(),
        };
        let sum = to.entry(name).or_default();
        *sum = sum.saturating_add(count);
    }
}

fn list_table(answer: &Value) -> String {
    let mut table = Table::new(&[
        "ID",
        "TIME (UTC)",
        "PRODUCER",
        "WAY",
        "KIND",
        "WITNESS",
        "TENANT",
        "REQUEST",
        "BYTES",
        "REASON",
        "PLACE",
    ]);
    for one in answer["quarantine"].as_array().into_iter().flatten() {
        let named = |name: &str| cell(&one[name]);
        table.row([
            named("id"),
            time_cell(&one["at_ms"]),
            named("producer"),
            named("way"),
            named("kind"),
            named("witness"),
            named("tenant"),
            named("request_id"),
            named("bytes"),
            named("reason"),
            named("place"),
        ]);
    }
    format!("{}{} in quarantine\n", table.text(), answer["total"])
}

fn replay_table(done: &Replayed) -> String {
    let mut text = format!("checked: {}, replayed: {}\n", done.checked, done.replayed);
    for (reason, count) in &done.stay {
        text.push_str(&format!("stay: {count}, {}\n", cell(&json!(reason))));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_a_context_nor_bytes_are_in_the_table() {
        let answer = json!({"total": 1, "quarantine": [{
            "id": 7, "at_ms": 0, "reason": "tenant context: unknown key", "producer": "gateway",
            "way": "grpc", "place": null, "bytes": 9, "kind": "request", "witness": "gateway",
            "tenant": "acme", "request_id": "id",
        }]});
        let text = list_table(&answer);
        let row: Vec<&str> = text.lines().nth(1).unwrap().split("  ").collect();
        assert!(row[0].starts_with('7') && row.contains(&"acme"), "{text}");
        assert!(text.ends_with("1 in quarantine\n"));
    }

    #[test]
    fn reasons_are_bounded() {
        let mut to = BTreeMap::new();
        for n in 0..1_000 {
            add(&mut to, BTreeMap::from([(format!("{n:04}"), 2)]));
        }
        assert_eq!(to.len(), REASONS_MAX + 1);
        assert_eq!(to.values().sum::<u64>(), 2_000);
    }
}
