//! Progress on stderr, where a person looks at it.

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of bytes.
#[must_use]
pub fn bytes(total: u64, what: &'static str) -> ProgressBar {
    bar(total, what, "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
}

/// A bar of things that are counted.
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
