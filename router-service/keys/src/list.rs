//! What the file says, for people and for programs.

use anyhow::bail;
use serde::Serialize;
use weir_router_core::directory::file::{File, Key, KeyState, Tenant, TenantState};
use weir_wire::{ids::TenantId, timestamp::Timestamp};

#[derive(Serialize)]
struct TenantRow<'a> {
    tenant: &'a str,
    plan: &'a str,
    state: TenantState,
    keys: Vec<KeyRow<'a>>,
}

#[derive(Serialize)]
struct KeyRow<'a> {
    key: &'a str,
    prefix: Option<&'a str>,
    sha256: String,
    /// `active`, `expired` or `revoked`.
    state: &'static str,
    created_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
}

const HEADINGS: [&str; 6] = ["TENANT", "PLAN", "TENANT STATE", "KEY", "PREFIX", "STATE"];

/// `active`, `expired` or `revoked`, by that clock.
fn state(key: &Key, now: Timestamp) -> &'static str {
    match (key.state, key.expires_at) {
        (KeyState::Revoked, _) => "revoked",
        (KeyState::Active, Some(end)) if end <= now => "expired",
        (KeyState::Active, _) => "active",
    }
}

/// The tenants and their keys, in the file's order.
pub fn show(
    file: &File,
    only: Option<&TenantId>,
    json: bool,
    now: Timestamp,
) -> anyhow::Result<String> {
    let tenants = || {
        file.tenants
            .iter()
            .filter(|t| only.is_none_or(|only| *only == t.id))
    };
    if let Some(only) = only
        && tenants().next().is_none()
    {
        bail!("tenant: there is no {only}");
    }
    if json {
        let rows: Vec<TenantRow<'_>> = tenants().map(|t| row(t, now)).collect();
        return Ok(format!("{}\n", serde_json::to_string_pretty(&rows)?));
    }
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    for tenant in tenants() {
        rows.extend(lines(tenant, now));
    }
    Ok(table(&rows))
}

fn row(tenant: &Tenant, now: Timestamp) -> TenantRow<'_> {
    TenantRow {
        tenant: tenant.id.as_str(),
        plan: tenant.plan.as_str(),
        state: tenant.state,
        keys: tenant
            .keys
            .iter()
            .map(|key| KeyRow {
                key: key.id.as_str(),
                prefix: key.prefix.as_deref(),
                sha256: key.sha256.to_string(),
                state: state(key, now),
                created_at: key.created_at,
                expires_at: key.expires_at,
            })
            .collect(),
    }
}

fn lines(tenant: &Tenant, now: Timestamp) -> Vec<[String; 6]> {
    let line = |key: &str, prefix: &str, shown: String| {
        let tenant_state = match tenant.state {
            TenantState::Active => "active",
            TenantState::Suspended => "suspended",
        };
        [
            tenant.id.to_string(),
            tenant.plan.to_string(),
            tenant_state.to_owned(),
            key.to_owned(),
            prefix.to_owned(),
            shown,
        ]
    };
    if tenant.keys.is_empty() {
        return vec![line("-", "-", "no keys".to_owned())];
    }
    let shown = |key: &Key| match (state(key, now), key.expires_at) {
        ("active", Some(end)) => format!("expires {end}"),
        (state, _) => state.to_owned(),
    };
    tenant
        .keys
        .iter()
        .map(|key| {
            let prefix = key.prefix.as_deref().unwrap_or("-");
            line(key.id.as_str(), prefix, shown(key))
        })
        .collect()
}

/// Columns as wide as their widest; all is ASCII.
fn table(rows: &[[String; 6]]) -> String {
    let mut widths = [0_usize; 6];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// How much there is, in one line.
pub fn summary(file: &File, now: Timestamp) -> String {
    let count = |wanted| {
        let keys = file.tenants.iter().flat_map(|t| &t.keys);
        keys.filter(|key| state(key, now) == wanted).count()
    };
    format!(
        "valid: version {}, {} tenants, {} active keys, {} expired, {} revoked",
        file.version,
        file.tenants.len(),
        count("active"),
        count("expired"),
        count("revoked"),
    )
}
