//! How far a long work is, on a terminal; elsewhere nothing is drawn.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How often it moves where nothing is reported.
const TICK: Duration = Duration::from_millis(200);

/// A bar over the bytes of all files; without their number it only counts.
pub(super) fn bytes(total: Option<u64>) -> ProgressBar {
    let known = "{wide_bar} {bytes}/{total_bytes} {msg} {eta}";
    bar(total, known, "{spinner} {bytes} {msg}")
}

/// A bar over a number of things.
pub(super) fn count(total: Option<u64>) -> ProgressBar {
    bar(
        total,
        "{wide_bar} {pos}/{len} {msg} {eta}",
        "{spinner} {pos} {msg}",
    )
}

/// Says what is waited for.
pub(super) fn waiting(what: &'static str) -> ProgressBar {
    let bar = bar(None, "", "{spinner} {msg} {elapsed}");
    bar.set_message(what);
    bar
}

/// indicatif draws to the standard error, and only where that is a terminal.
fn bar(total: Option<u64>, known: &str, unknown: &str) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), known),
        None => (ProgressBar::no_length(), unknown),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(TICK);
    bar
}
