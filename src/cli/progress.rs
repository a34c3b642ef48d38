//! Progress bars on stderr, shown only on a terminal.

use std::cell::Cell;
use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressStyle};

use crate::store::progress::Step;

/// The progress bars of work that has several phases, one at a time.
#[derive(Default)]
pub struct Bars {
    shown: Cell<Option<(&'static str, ProgressBar)>>,
}

impl Bars {
    /// Shows a step in the bar of its phase; a new phase replaces the bar.
    pub fn show(&self, step: Step) {
        let bar = match self.shown.take() {
            Some((phase, bar)) if phase == step.phase => bar,
            other => {
                clear(other);
                count(step.total, step.phase)
            }
        };
        bar.set_position(step.done);
        self.shown.set(Some((step.phase, bar)));
    }

    /// Removes the last bar.
    pub fn clear(&self) {
        clear(self.shown.take());
    }
}

fn clear(bar: Option<(&'static str, ProgressBar)>) {
    if let Some((_, bar)) = bar {
        bar.finish_and_clear();
    }
}

/// A bar that counts bytes.
#[must_use]
pub fn bytes(total: u64, what: &'static str) -> ProgressBar {
    bar(total, what, "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
}

/// A bar that counts items.
#[must_use]
pub fn count(total: u64, what: &'static str) -> ProgressBar {
    bar(total, what, "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}")
}

fn bar(total: u64, what: &'static str, template: &str) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_style(style).with_message(what)
}
