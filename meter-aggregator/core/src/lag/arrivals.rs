//! When what waits in a stream came, where the stream itself says only how far it goes.

use std::collections::VecDeque;

/// So many looks are remembered of what waits; of more every second is forgotten, and what
/// is said gets coarser.
const LOOKS_MAX: usize = 512;

/// What was seen of a stream's end. Memory is bounded.
#[derive(Debug, Clone, Default)]
pub struct Arrivals {
    /// Of at most one it is booked what came before: the first.
    looks: VecDeque<Look>,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    /// The number of the event that comes next.
    end: i64,
    /// When that was seen at first, and at last.
    first_ms: i64,
    last_ms: i64,
}

/// When the oldest event came that waits; milliseconds of the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Oldest {
    /// Not earlier; unknown of what waited at the first look.
    pub after_ms: Option<i64>,
    /// Not later.
    pub by_ms: i64,
}

impl Oldest {
    /// Exactly then.
    #[must_use]
    pub fn at(ms: i64) -> Self {
        Self {
            after_ms: Some(ms),
            by_ms: ms,
        }
    }
}

impl Arrivals {
    /// Takes note that at `now_ms` the next event to be booked was the number `booked`, and
    /// the next to come the number `end`; `None` where nothing waits. What is given is true
    /// as long as `end` was asked at that time or a little later.
    pub fn see(&mut self, now_ms: i64, booked: i64, end: i64) -> Option<Oldest> {
        match self.looks.back_mut() {
            Some(last) if last.end == end => last.last_ms = last.last_ms.max(now_ms),
            Some(last) if last.end < end => {
                // A clock may have been set back.
                let at_ms = last.last_ms.max(now_ms);
                self.add(end, at_ms);
            }
            // It is another stream of that name.
            Some(_) => {
                self.looks.clear();
                self.add(end, now_ms);
            }
            None => self.add(end, now_ms),
        }
        while self.looks.get(1).is_some_and(|look| look.end <= booked) {
            self.looks.pop_front();
        }
        let mut looks = self.looks.iter().peekable();
        let before = looks.next_if(|look| look.end <= booked);
        let waits = looks.next()?;
        Some(Oldest {
            after_ms: before.map(|look| look.last_ms),
            by_ms: waits.first_ms,
        })
    }

    fn add(&mut self, end: i64, at_ms: i64) {
        if self.looks.len() >= LOOKS_MAX {
            let mut number = 0_usize;
            self.looks.retain(|_| {
                number = number.wrapping_add(1);
                number % 2 == 1
            });
        }
        self.looks.push_back(Look {
            end,
            first_ms: at_ms,
            last_ms: at_ms,
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn oldest(after_ms: Option<i64>, by_ms: i64) -> Option<Oldest> {
        Some(Oldest { after_ms, by_ms })
    }

    #[test]
    fn what_waits_came_between_two_looks() {
        let mut arrivals = Arrivals::default();
        assert_eq!(arrivals.see(1_000, 0, 0), None);
        assert_eq!(arrivals.see(2_000, 0, 0), None);
        assert_eq!(arrivals.see(3_000, 0, 5), oldest(Some(2_000), 3_000));
        assert_eq!(arrivals.see(4_000, 0, 9), oldest(Some(2_000), 3_000));
        assert_eq!(arrivals.see(5_000, 4, 9), oldest(Some(2_000), 3_000));
        assert_eq!(arrivals.see(6_000, 5, 9), oldest(Some(3_000), 4_000));
        assert_eq!(arrivals.see(7_000, 9, 9), None);
        assert_eq!(arrivals.see(8_000, 9, 10), oldest(Some(7_000), 8_000));
    }

    #[test]
    fn what_waited_at_the_first_look_came_by_then() {
        let mut arrivals = Arrivals::default();
        assert_eq!(arrivals.see(1_000, 3, 7), oldest(None, 1_000));
        assert_eq!(arrivals.see(9_000, 6, 8), oldest(None, 1_000));
        assert_eq!(arrivals.see(9_500, 7, 8), oldest(Some(1_000), 9_000));
    }

    #[test]
    fn a_stream_that_begins_anew_is_another() {
        let mut arrivals = Arrivals::default();
        assert_eq!(arrivals.see(1_000, 0, 7), oldest(None, 1_000));
        assert_eq!(arrivals.see(2_000, 0, 3), oldest(None, 2_000));
    }

    /// Each step some events come and some are booked, and it is looked.
    fn steps() -> impl Strategy<Value = Vec<(i64, usize, usize)>> {
        proptest::collection::vec((0..1_000_i64, 0..4_usize, 0..4_usize), 1..2_000)
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 64,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn it_is_never_wrong_and_never_large(steps in steps()) {
            let (mut arrivals, mut now_ms, mut booked) = (Arrivals::default(), 0, 0_usize);
            let mut came: Vec<i64> = Vec::new();
            let number = |n: usize| i64::try_from(n).unwrap();
            for (pause, come, book) in steps {
                now_ms += pause;
                // It is looked before more comes.
                let found = arrivals.see(now_ms, number(booked), number(came.len()));
                let oldest = came.get(booked);
                prop_assert_eq!(found.is_some(), oldest.is_some());
                if let (Some(found), Some(at_ms)) = (found, oldest) {
                    prop_assert!(found.by_ms >= *at_ms, "{:?} {}", found, at_ms);
                    prop_assert!(found.after_ms.is_none_or(|after| after <= *at_ms));
                }
                prop_assert!(arrivals.looks.len() <= LOOKS_MAX);
                came.extend((0..come).map(|_| now_ms));
                booked = (booked + book).min(came.len());
            }
        }
    }
}
