//! Booking: from events to witnesses, postings, buckets and the journal.

use std::collections::BTreeMap;

use prost::Message as _;
use sha2::{Digest as _, Sha256};
use weir_wire::{
    ids::{IdError, RequestId, TenantId},
    proto::usage::{Kind, UsageEvent, UsageSource, Witness},
};

use super::{Books, BucketKey, Discrepancy, DiscrepancyKind, RequestKey, RequestRow};
use crate::{
    fold::{self, Arrival, Quantities, arrival, decisive, fold},
    journal::{self, Line},
    policy::Policy,
    tariff::Tariff,
};

/// How far the embedded stream was booked, by [`Books::progress`].
pub const STREAM: &str = "stream";

/// What is booked how.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// What is billed.
    pub tariff: &'a Tariff,
    /// How long is waited.
    pub policy: &'a Policy,
}

/// The key of an event of the stream.
///
/// # Errors
/// [`IdError`] where its ids are none, which ingest lets no event have.
pub fn key(event: &UsageEvent) -> Result<RequestKey, IdError> {
    Ok(RequestKey {
        id: RequestId::parse(&event.request_id)?,
        tenant: TenantId::new(event.tenant.as_str())?,
    })
}

/// Books events of a stream that numbers them, and from which all are read in order by
/// whoever booked the ones before: each with its number, which grow. What was booked before,
/// by [`STREAM`], is passed over, so a batch may be given again.
///
/// # Errors
/// Where the store fails.
pub fn book_numbered<B: Books>(
    books: &mut B,
    mut events: Vec<(i64, UsageEvent)>,
    rules: &Rules<'_>,
    now_ms: i64,
) -> Result<(), B::Error> {
    let upto = books.progress(STREAM)?;
    let Some(last) = events.last().map(|(seq, _)| *seq).filter(|seq| *seq > upto) else {
        return Ok(());
    };
    events.retain(|(seq, _)| *seq > upto);
    let events = events.into_iter().map(|(_, event)| event);
    book(books, events, Some((STREAM, last)), rules, now_ms)
}

/// Books events, in the order in which their stream has them. One that was booked before
/// changes nothing, so what was read may be given again, alone or with others. An event
/// without ids is passed over: ingest lets none pass.
///
/// `progress` is for a stream whose reader is told by the ledger where to go on: its name,
/// and the number up to which all is booked then. It is set as it is said, also to a
/// smaller one than before: a stream that was made anew begins with small numbers again,
/// and nobody but the shard's holder gets here.
///
/// # Errors
/// Where the store fails.
pub fn book<B: Books>(
    books: &mut B,
    events: impl IntoIterator<Item = UsageEvent>,
    progress: Option<(&str, i64)>,
    rules: &Rules<'_>,
    now_ms: i64,
) -> Result<(), B::Error> {
    let mut arrived: BTreeMap<RequestKey, Vec<UsageEvent>> = BTreeMap::new();
    for mut event in events {
        if let Ok(key) = key(&event) {
            // It did its work at ingest, and is a third of the event.
            event.tenant_context.clear();
            arrived.entry(key).or_default().push(event);
        }
    }
    let keys: Vec<RequestKey> = arrived.keys().cloned().collect();
    let mut writing = Writing::new(now_ms);
    for (row, (key, events)) in books.requests(&keys)?.into_iter().zip(arrived) {
        let mut row = row.unwrap_or_default();
        let booked = Booked::of(&row);
        let mut has_changed = false;
        for event in events {
            has_changed |= writing.take(&key, &mut row, event);
        }
        if has_changed {
            settle(&key, &mut row, booked, rules, now_ms, &mut writing);
            writing.rows.push((key, row));
        }
    }
    writing.write(books)?;
    match progress {
        Some((name, number)) => books.set_progress(name, number),
        None => Ok(()),
    }
}

/// Books requests whose second witness did not come in time, or all that wait where an
/// operator closes the books; `limit` at the most. Says how many.
///
/// # Errors
/// Where the store fails.
pub fn book_waiting<B: Books>(
    books: &mut B,
    rules: &Rules<'_>,
    now_ms: i64,
    all: bool,
    limit: usize,
) -> Result<usize, B::Error> {
    let due = books.due_requests(if all { i64::MAX } else { now_ms }, limit)?;
    let mut writing = Writing::new(now_ms);
    for (row, key) in books.requests(&due)?.into_iter().zip(&due) {
        if let Some(mut row) = row {
            let waited = Some(Booked { event: None });
            settle(key, &mut row, waited, rules, now_ms, &mut writing);
            writing.rows.push((key.clone(), row));
        }
    }
    writing.write(books)?;
    Ok(due.len())
}

/// A request that waits for nothing any more.
#[derive(Clone, Copy)]
struct Booked {
    /// The event that the journal has it billed by, if it is billed.
    event: Option<[u8; 32]>,
}

impl Booked {
    /// What a request is before an event comes; `None` where it is new or waits.
    fn of(row: &RequestRow) -> Option<Self> {
        let is_booked = !row.events.is_empty() && row.due_ms.is_none();
        is_booked.then(|| Self {
            event: match row.posted.is_empty() {
                true => None,
                false => decisive(&row.events).map(event_hash),
            },
        })
    }
}

/// Books what a request comes to, or lets it wait.
fn settle(
    key: &RequestKey,
    row: &mut RequestRow,
    booked: Option<Booked>,
    rules: &Rules<'_>,
    now_ms: i64,
    writing: &mut Writing,
) {
    let quantities = fold(&row.events, rules.tariff);
    let told = row.events.iter().filter(|e| e.kind() == Kind::Request);
    let is_whole = !rules.policy.two_witnesses || told.count() != 1;
    // What bills nothing is not worth waiting for.
    let is_single = !is_whole && !quantities.is_empty();
    if is_single && booked.is_none() {
        let due_ms = now_ms.saturating_add(rules.policy.wait_ms);
        if due_ms > now_ms {
            row.due_ms = Some(row.due_ms.unwrap_or(due_ms));
            return;
        }
    }
    row.due_ms = None;
    if is_single {
        let witness = row.events.first().map(UsageEvent::witness);
        writing.found.push(Discrepancy {
            kind: DiscrepancyKind::SingleWitness,
            tenant: key.tenant.clone(),
            request: Some(key.clone()),
            bucket: None,
            detail: match witness {
                Some(Witness::Gateway) => "the router did not tell of it",
                _ => "the gateway did not tell of it",
            }
            .to_owned(),
            event: None,
        });
    } else if booked.is_some() && row.events.len() > 1 {
        writing.resolved.push(key.clone());
    }
    writing.found.extend(difference(key, &row.events));
    writing.post(key, row, quantities, booked.and_then(|booked| booked.event));
}

/// What both witnesses heard from the provider must be the same.
fn difference(key: &RequestKey, events: &[UsageEvent]) -> Option<Discrepancy> {
    let reported = |event: &&UsageEvent| {
        let mut paid = event.usage.iter().filter(|u| !u.unbilled).peekable();
        paid.peek().is_some() && paid.all(|u| u.source() == UsageSource::Reported)
    };
    let mut heard = events.iter().filter(reported);
    let (first, second) = (heard.next()?, heard.next()?);
    let sums = [first, second].map(|event| {
        let paid = event.usage.iter().filter(|u| !u.unbilled);
        paid.fold([0_u64; 2], |[input, output], u| {
            let all_input = fold::uncached_input(u).saturating_add(u.cached_input_tokens);
            [
                input.saturating_add(all_input),
                output.saturating_add(fold::output(u)),
            ]
        })
    });
    let [first_sum, second_sum] = sums;
    (first_sum != second_sum).then(|| Discrepancy {
        kind: DiscrepancyKind::WitnessesDiffer,
        tenant: key.tenant.clone(),
        request: Some(key.clone()),
        bucket: None,
        detail: format!(
            "input and output tokens are {first_sum:?} by the {}, {second_sum:?} by the {}",
            crate::shown::witness(first.witness()),
            crate::shown::witness(second.witness()),
        ),
        event: None,
    })
}

/// What a transaction is to write.
struct Writing {
    now_ms: i64,
    rows: Vec<(RequestKey, RequestRow)>,
    lines: Vec<Line>,
    found: Vec<Discrepancy>,
    /// Requests whose second witness came.
    resolved: Vec<RequestKey>,
}

impl Writing {
    fn new(now_ms: i64) -> Self {
        Self {
            now_ms,
            rows: Vec::new(),
            lines: Vec::new(),
            found: Vec::new(),
            resolved: Vec::new(),
        }
    }

    /// Takes an event into its request; says whether that is another one now.
    fn take(&mut self, key: &RequestKey, row: &mut RequestRow, event: UsageEvent) -> bool {
        let known = row.events.iter_mut().find(|e| e.witness == event.witness);
        let Some(known) = known else {
            row.events.push(event);
            // Whichever came first, the row is the same.
            row.events.sort_by_key(|e| e.witness);
            return true;
        };
        let arrival = arrival(known, &event);
        match arrival {
            Arrival::Replace => *known = event,
            Arrival::Ignore => {}
            Arrival::Conflict => self.found.push(Discrepancy {
                kind: DiscrepancyKind::Conflict,
                tenant: key.tenant.clone(),
                request: Some(key.clone()),
                bucket: None,
                detail: format!(
                    "the {} told of it twice, and not the same; the first counts",
                    crate::shown::witness(event.witness())
                ),
                event: Some(event),
            }),
        }
        arrival == Arrival::Replace
    }

    /// Sets what a request is booked with. `was` is the event that the journal has it
    /// billed by: where another one says the same, that is a line, too.
    fn post(
        &mut self,
        key: &RequestKey,
        row: &mut RequestRow,
        quantities: Quantities,
        was: Option<[u8; 32]>,
    ) {
        let mut deltas = quantities.clone();
        for (meter, quantity) in &row.posted {
            let delta = deltas.entry(meter.clone()).or_default();
            *delta = delta.saturating_sub(*quantity);
        }
        deltas.retain(|_, delta| *delta != 0);
        row.posted = quantities;
        if deltas.is_empty() && was.is_none() {
            return;
        }
        let event = decisive(&row.events).map(event_hash).unwrap_or_default();
        if deltas.is_empty() && was == Some(event) {
            return;
        }
        self.lines.push(Line {
            tenant: key.tenant.clone(),
            request_id: key.id,
            event,
            deltas,
        });
    }

    fn write<B: Books>(self, books: &mut B) -> Result<(), B::Error> {
        books.put_requests(&self.rows)?;
        if !self.lines.is_empty() {
            let mut changes: BTreeMap<BucketKey, i64> = BTreeMap::new();
            let mut end = books.journal_end()?;
            let mut chained = Vec::with_capacity(self.lines.len());
            for line in self.lines {
                for (meter, delta) in &line.deltas {
                    let key = BucketKey {
                        hour: crate::hour::Hour::of_ms(line.request_id.time_ms()),
                        tenant: line.tenant.clone(),
                        meter: meter.clone(),
                    };
                    let change = changes.entry(key).or_default();
                    *change = change.saturating_add(*delta);
                }
                end = journal::chain(&end, &line);
                chained.push((line, end));
            }
            books.append_journal(&chained)?;
            let changes: Vec<(BucketKey, i64)> = changes.into_iter().collect();
            books.add_to_buckets(&changes)?;
        }
        if !self.found.is_empty() {
            books.note(&self.found, self.now_ms)?;
        }
        for key in &self.resolved {
            let kind = DiscrepancyKind::SingleWitness;
            books.resolve(kind, &key.tenant, Some(key), None, self.now_ms)?;
        }
        Ok(())
    }
}

/// SHA-256 of an event as the ledger keeps it: its protobuf without the tenant context.
#[must_use]
pub fn event_hash(event: &UsageEvent) -> [u8; 32] {
    Sha256::digest(event.encode_to_vec()).into()
}
