//! Single requests, as an operator looks them up.

use prost::Message as _;
use rusqlite::params;
use weir_meter_core::shown::{self, Request};
use weir_wire::proto::usage::UsageEvent;

use super::{Ledger, LedgerError};

pub(super) const SCHEMA: &str = "
CREATE INDEX IF NOT EXISTS witness_request ON witness (request_id);
";

/// Which requests are looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Of that tenant alone.
    pub tenant: Option<String>,
    /// That one alone.
    pub request_id: Option<String>,
    /// Not older; milliseconds of the Unix epoch.
    pub since_ms: Option<i64>,
    /// Older than this one.
    pub before: Option<String>,
    /// How many at the most.
    pub limit: u32,
}

impl Ledger {
    /// The newest requests that are wanted, the newest first.
    pub fn requests(&self, wanted: &Wanted) -> Result<Vec<Request>, LedgerError> {
        // Request ids are in the order of their time.
        let (from, before) = match &wanted.request_id {
            Some(id) => (id.clone(), format!("{id}~")),
            None => (
                wanted.since_ms.map(first_id).unwrap_or_default(),
                wanted.before.clone().unwrap_or_else(|| "~".to_owned()),
            ),
        };
        let found: Vec<(String, String)> = self
            .connection
            .prepare_cached(
                "SELECT DISTINCT tenant, request_id FROM witness
                 WHERE request_id >= ?1 AND request_id < ?2 AND (?3 IS NULL OR tenant = ?3)
                 ORDER BY request_id DESC LIMIT ?4",
            )?
            .query_map(params![from, before, wanted.tenant, wanted.limit], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?
            .collect::<rusqlite::Result<_>>()?;
        let mut requests = Vec::with_capacity(found.len());
        for (tenant, request_id) in found {
            requests.extend(shown::request(&self.witnesses(&tenant, &request_id)?));
        }
        Ok(requests)
    }

    fn witnesses(&self, tenant: &str, request_id: &str) -> Result<Vec<UsageEvent>, LedgerError> {
        let blobs: Vec<Vec<u8>> = self
            .connection
            .prepare_cached("SELECT event FROM witness WHERE tenant = ?1 AND request_id = ?2")?
            .query_map([tenant, request_id], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        Ok(blobs
            .iter()
            .filter_map(|bytes| UsageEvent::decode(bytes.as_slice()).ok())
            .collect())
    }
}

/// What the ids of that millisecond begin with (RFC 9562, section 5.7).
fn first_id(ms: i64) -> String {
    let ms = ms.clamp(0, (1 << 48) - 1);
    format!("{:08x}-{:04x}", ms >> 16, ms & 0xffff)
}
