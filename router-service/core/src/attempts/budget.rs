//! How many calls may be repeated: so many for the requests of a window, after
//! Finagle's and Linkerd's retry budgets.

use super::RetryConfig;
use crate::health::Window;

/// Requests and repeated calls of a window.
#[derive(Debug, Clone)]
pub struct RetryBudget {
    percent: u64,
    least: u64,
    window: Window,
}

impl RetryBudget {
    /// One that has seen nothing.
    #[must_use]
    pub fn new(config: &RetryConfig) -> Self {
        Self {
            percent: config.budget_percent.into(),
            least: config.budget_min.into(),
            window: Window::new(config.budget_window_ms.into()),
        }
    }

    /// Counts a request; once for each, however often it is attempted.
    pub fn request(&mut self, now_ms: u64) {
        self.window.add(now_ms, 1, 0);
    }

    /// Takes one repeated call, if there is room for it.
    #[must_use]
    pub fn take(&mut self, now_ms: u64) -> bool {
        let (requests, repeated) = self.window.sums(now_ms);
        let share = requests.saturating_mul(self.percent);
        let share = share.checked_div(100).unwrap_or_default();
        let is_room = repeated < self.least.saturating_add(share);
        if is_room {
            self.window.add(now_ms, 0, 1);
        }
        is_room
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[track_caller]
    fn check_room(budget: &mut RetryBudget, now_ms: u64, room: usize) {
        let taken = (0..1_000).take_while(|_| budget.take(now_ms)).count();
        assert_eq!(taken, room);
    }

    #[test]
    fn a_fifth_of_the_requests_and_ten_beside() {
        let mut budget = RetryBudget::new(&RetryConfig::default());
        check_room(&mut budget, 0, 10);
        for _ in 0..104 {
            budget.request(0);
        }
        check_room(&mut budget, 0, 20);
        check_room(&mut budget, 9_999, 0);
        // What was taken is over, and so are the requests.
        check_room(&mut budget, 10_000, 10);
        let none = RetryConfig {
            budget_percent: 0,
            budget_min: 0,
            ..RetryConfig::default()
        };
        let mut none = RetryBudget::new(&none);
        none.request(0);
        check_room(&mut none, 0, 0);
    }
}
