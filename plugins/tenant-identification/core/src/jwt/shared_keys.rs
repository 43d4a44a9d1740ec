//! Issuers' keys, fetched by one worker of a gateway for all of them.
//!
//! When to fetch and what came stands in the host's shared data, one slot for
//! each set. Whoever changes a slot from "due" to "under way" makes the call.

use super::{
    Fetched, Issuers, JwksError, JwksUriConfig, SET_MAX_BYTES, Skipped,
    remote::{Schedule, WORDS},
};
use crate::board::{Board, WORD_BYTES, read_words, words};

/// A call to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// The issuer's position.
    pub issuer: usize,
    /// Where its keys are.
    pub uri: JwksUriConfig,
}

/// What comes of asking for a key that is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Make this call.
    Begun(Fetch),
    /// One is on its way.
    UnderWay,
    /// Other keys had been fetched by another worker, and are here now.
    Arrived,
    /// One was made a short time ago, or nothing is fetched for this issuer.
    Paused,
}

/// The slots of the issuers' sets.
#[derive(Debug, Clone, Copy)]
pub struct SharedKeys {
    /// Whether a slot must keep its size, as on Kong.
    fixed: bool,
}

impl SharedKeys {
    /// `fixed` where the host wants values to keep their size.
    #[must_use]
    pub const fn new(fixed: bool) -> Self {
        Self { fixed }
    }

    /// Takes over what other workers have fetched, and says which calls this
    /// worker is to make now, at `mono_ms` of the clock that all workers share.
    pub fn due(&self, board: &impl Board, issuers: &mut Issuers, mono_ms: u64) -> Vec<Fetch> {
        let mut fetches = Vec::new();
        for (issuer, uri) in remotes(issuers) {
            if !follow(board, issuers, issuer, &uri, mono_ms).is_due(mono_ms) {
                continue;
            }
            let begun = self.change(board, &uri, None, |schedule| {
                let is_due = schedule.is_due(mono_ms);
                if is_due {
                    schedule.begin(mono_ms);
                }
                is_due
            });
            if begun == Some(true) {
                fetches.push(Fetch { issuer, uri });
            }
        }
        fetches
    }

    /// Asks for a key that is not known: at most once in the issuer's pause for
    /// all workers together.
    pub fn ask(
        &self,
        board: &impl Board,
        issuers: &mut Issuers,
        issuer: usize,
        mono_ms: u64,
    ) -> Ask {
        let Some(uri) = issuers.remote(issuer).cloned() else {
            return Ask::Paused;
        };
        let before = issuers.generation(issuer);
        follow(board, issuers, issuer, &uri, mono_ms);
        if issuers.generation(issuer) != before {
            return Ask::Arrived;
        }
        let asked = self.change(board, &uri, None, |schedule| {
            (schedule.is_under_way(mono_ms), schedule.ask(mono_ms))
        });
        match asked {
            Some((_, true)) => Ask::Begun(Fetch { issuer, uri }),
            Some((true, false)) => Ask::UnderWay,
            Some((false, false)) | None => Ask::Paused,
        }
    }

    /// Whether a call for the issuer's keys is on its way, on whatever worker.
    #[must_use]
    pub fn is_under_way(
        &self,
        board: &impl Board,
        issuers: &Issuers,
        issuer: usize,
        mono_ms: u64,
    ) -> bool {
        issuers.remote(issuer).is_some_and(|uri| {
            let value = board.read(&key(uri));
            let (schedule, _) = slot(uri, value.as_deref());
            schedule.is_under_way(mono_ms)
        })
    }

    /// Takes what this worker's call brought, `None` where it failed, and hands
    /// it on.
    ///
    /// # Errors
    /// [`JwksError`]: the set that was there goes on serving until it is too old.
    pub fn arrived(
        &self,
        board: &impl Board,
        issuers: &mut Issuers,
        issuer: usize,
        mono_ms: u64,
        body: Option<&[u8]>,
    ) -> Result<(Fetched, Skipped), JwksError> {
        let uri = issuers
            .remote(issuer)
            .cloned()
            .ok_or(JwksError::NotRemote)?;
        let outcome = body
            .ok_or(JwksError::NotFetched)
            .and_then(|body| issuers.adopt(issuer, mono_ms, mono_ms, body));
        if outcome.is_err() {
            self.change(board, &uri, None, |schedule| schedule.failed(mono_ms));
            issuers.forget_old(issuer, mono_ms);
        } else {
            self.change(board, &uri, body, |schedule| schedule.succeeded(mono_ms));
        }
        outcome
    }

    /// Changes the schedule of a slot, and its body where there is another.
    fn change<T>(
        &self,
        board: &impl Board,
        uri: &JwksUriConfig,
        body: Option<&[u8]>,
        mut change: impl FnMut(&mut Schedule<'_>) -> T,
    ) -> Option<T> {
        board.change(&key(uri), |found| {
            let (mut schedule, held) = slot(uri, found);
            let outcome = change(&mut schedule);
            (outcome, Some(self.write(&schedule, body.unwrap_or(held))))
        })
    }

    /// The value of a slot: schedule, length of the body, body.
    fn write(&self, schedule: &Schedule<'_>, body: &[u8]) -> Vec<u8> {
        let length = u64::try_from(body.len()).unwrap_or(0);
        let header = words(schedule.to_words()).chain(length.to_le_bytes());
        let mut bytes: Vec<u8> = header.chain(body.iter().copied()).collect();
        if self.fixed {
            bytes.resize(HEADER_BYTES.saturating_add(SET_MAX_BYTES), 0);
        }
        bytes
    }
}

/// The schedule and the length of the body.
const HEADER_BYTES: usize = (WORDS + 1) * WORD_BYTES;

/// Reads what [`SharedKeys::write`] wrote. A slot that nobody wrote, or nobody as
/// this version does, is empty.
fn slot<'c, 'v>(uri: &'c JwksUriConfig, value: Option<&'v [u8]>) -> (Schedule<'c>, &'v [u8]) {
    let read = |value| {
        let (schedule, rest) = read_words(value)?;
        let ([length], rest) = read_words(rest)?;
        let body = usize::try_from(length)
            .ok()
            .and_then(|length| rest.get(..length));
        Some((
            Schedule::from_words(uri, schedule),
            body.unwrap_or_default(),
        ))
    };
    value
        .and_then(read)
        .unwrap_or_else(|| (Schedule::new(uri), &[]))
}

/// Adopts what the slot holds, if it is news; says when to fetch.
fn follow<'c>(
    board: &impl Board,
    issuers: &mut Issuers,
    issuer: usize,
    uri: &'c JwksUriConfig,
    mono_ms: u64,
) -> Schedule<'c> {
    let value = board.read(&key(uri));
    let (schedule, body) = slot(uri, value.as_deref());
    if let Some(fetched_at_ms) = schedule.fetched_at_ms() {
        // The worker that fetched it has said what is wrong with it.
        let _ = issuers.adopt(issuer, mono_ms, fetched_at_ms, body);
    }
    issuers.forget_old(issuer, mono_ms);
    schedule
}

/// A set has one slot, whichever issuers share it and whatever else the
/// configuration says.
fn key(uri: &JwksUriConfig) -> String {
    // None of them holds a space: all are visible ASCII.
    format!("weir/jwks/1/{} {} {}", uri.cluster, uri.authority, uri.path)
}

fn remotes(issuers: &Issuers) -> Vec<(usize, JwksUriConfig)> {
    (0..issuers.len())
        .filter_map(|i| Some((i, issuers.remote(i)?.clone())))
        .collect()
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use std::{cell::RefCell, collections::HashMap};

    use super::*;
    use crate::jwt::{
        Algorithm, Reason,
        tests::{claims_of, issuer_config_remote, issuers, jwk, jwks, sign_as, verify},
    };

    /// Shared data in memory, as strict about sizes as the host is.
    struct Memory {
        fixed: bool,
        values: RefCell<HashMap<String, Vec<u8>>>,
    }

    impl Memory {
        fn new(fixed: bool) -> Self {
            Self {
                fixed,
                values: RefCell::default(),
            }
        }
    }

    impl Board for Memory {
        fn read(&self, key: &str) -> Option<Vec<u8>> {
            self.values.borrow().get(key).cloned()
        }

        fn change<T>(
            &self,
            key: &str,
            mut decide: impl FnMut(Option<&[u8]>) -> (T, Option<Vec<u8>>),
        ) -> Option<T> {
            let found = self.read(key);
            let (outcome, write) = decide(found.as_deref());
            if let Some(value) = write {
                if let Some(found) = found.filter(|_| self.fixed) {
                    assert_eq!(found.len(), value.len(), "{key} keeps its size");
                }
                self.values.borrow_mut().insert(key.to_owned(), value);
            }
            Some(outcome)
        }
    }

    /// The pause between two fetches for an unknown key, by default.
    const PAUSE_MS: u64 = 30_000;

    struct Fleet {
        board: Memory,
        shared: SharedKeys,
        workers: Vec<Issuers>,
    }

    impl Fleet {
        fn new(workers: usize, fixed: bool) -> Self {
            Self {
                board: Memory::new(fixed),
                shared: SharedKeys::new(fixed),
                workers: (0..workers)
                    .map(|_| issuers(vec![issuer_config_remote()]))
                    .collect(),
            }
        }

        /// Which workers are told to make a call.
        fn due(&mut self, now: u64) -> Vec<usize> {
            let due = |w: &mut Issuers| !self.shared.due(&self.board, w, now).is_empty();
            let asked = self.workers.iter_mut().map(due).collect::<Vec<_>>();
            (0..asked.len()).filter(|i| asked[*i]).collect()
        }

        fn arrived(&mut self, worker: usize, now: u64, body: Option<&str>) -> bool {
            let body = body.map(str::as_bytes);
            self.shared
                .arrived(&self.board, &mut self.workers[worker], 0, now, body)
                .is_ok()
        }

        #[track_caller]
        fn check(&self, kid: &str, expected: Result<(), Reason>) {
            let header = format!(r#"{{"alg":"RS256","kid":"{kid}"}}"#);
            let token = sign_as(Algorithm::Rs256, &header, &claims_of("acme"));
            for worker in &self.workers {
                assert_eq!(verify(worker, &token).map(|_| ()), expected, "{kid}");
            }
        }
    }

    fn set(kid: &str) -> String {
        jwks(&[jwk("RSA", kid, "")])
    }

    #[test]
    fn one_worker_fetches_for_all() {
        for fixed in [false, true] {
            let mut fleet = Fleet::new(3, fixed);
            assert_eq!(fleet.due(1_000), [0]);
            assert_eq!(fleet.due(1_001), [0; 0], "one is under way");
            assert!(fleet.arrived(0, 1_100, Some(&set("k1"))));
            assert_eq!(fleet.due(1_200), [0; 0]);
            fleet.check("k1", Ok(()));
            assert_eq!(fleet.due(301_099), [0; 0]);
            assert_eq!(fleet.due(301_100), [0], "after refresh_s");
            assert!(fleet.arrived(0, 301_200, Some(&set("k2"))));
            fleet.due(301_300);
            fleet.check("k2", Ok(()));
            fleet.check("k1", Err(Reason::UnknownKid));
        }
    }

    #[test]
    fn an_unknown_key_is_asked_for_once_in_a_pause() {
        let mut fleet = Fleet::new(2, false);
        fleet.due(0);
        fleet.arrived(0, 0, Some(&set("k1")));
        let ask = |fleet: &mut Fleet, worker: usize, now| {
            fleet
                .shared
                .ask(&fleet.board, &mut fleet.workers[worker], 0, now)
        };
        assert_eq!(
            ask(&mut fleet, 1, 99),
            Ask::Arrived,
            "what is there already"
        );
        assert!(matches!(ask(&mut fleet, 1, 100), Ask::Begun(_)));
        assert_eq!(ask(&mut fleet, 0, 101), Ask::UnderWay);
        assert!(
            fleet
                .shared
                .is_under_way(&fleet.board, &fleet.workers[0], 0, 101)
        );
        fleet.arrived(1, 200, Some(&set("k2")));
        assert_eq!(ask(&mut fleet, 0, 300), Ask::Arrived);
        assert_eq!(ask(&mut fleet, 0, 301), Ask::Paused);
        fleet.check("k2", Ok(()));
        assert_eq!(ask(&mut fleet, 0, 99 + PAUSE_MS), Ask::Paused);
        assert!(matches!(ask(&mut fleet, 0, 100 + PAUSE_MS), Ask::Begun(_)));
    }

    #[test]
    fn the_old_set_serves_while_the_new_one_fails() {
        let mut fleet = Fleet::new(2, false);
        fleet.due(0);
        fleet.arrived(0, 0, Some(&set("k1")));
        let mut now = 300_000;
        for body in [None, Some("no JSON"), Some(r#"{"keys":[]}"#)] {
            let due = fleet.due(now);
            assert_eq!(due.len(), 1, "one of the workers, at {now}");
            assert!(!fleet.arrived(due[0], now, body));
            assert_eq!(fleet.due(now + 900), [0; 0], "not at once again");
            fleet.check("k1", Ok(()));
            now += 10_000;
        }
        // Until it is too old.
        fleet.due(86_400_000);
        fleet.check("k1", Err(Reason::KeysNotLoaded));
    }

    #[test]
    fn a_worker_that_comes_late_needs_no_call() {
        let mut fleet = Fleet::new(1, true);
        fleet.due(0);
        fleet.arrived(0, 0, Some(&set("k1")));
        fleet.workers.push(issuers(vec![issuer_config_remote()]));
        assert_eq!(fleet.due(1_000), [0; 0]);
        fleet.check("k1", Ok(()));
    }
}
