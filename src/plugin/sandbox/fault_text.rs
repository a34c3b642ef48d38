//! What is told of a call that ended in a fault: the cause first, with the limit where it is one, then what
//! the guest said of errors last, then where it was.
//!
//! Must not know: who hears it.

use wasmtime::Error;

use crate::domain::legible::{legible, legible_end};
use crate::domain::verdict::Fault;
use crate::plugin::sandbox::state::State;

/// What was to be done, as far as its time is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// An instance was made: its start functions.
    Start,
    /// It was configured.
    Configure,
    /// It judged.
    Evaluate,
}

impl Doing {
    const fn setting(self) -> &'static str {
        match self {
            Self::Start | Self::Configure => "configure_cpu_ms",
            Self::Evaluate => "evaluate_cpu_ms",
        }
    }
}

/// One legible line of at most `text_bytes`.
#[must_use]
pub fn of_failure(state: &State, doing: Doing, fault: Fault, error: &Error) -> String {
    let max = state.config.text_bytes;
    let mut causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    let root = causes.pop().unwrap_or_default();
    let cause = match fault {
        Fault::Deadline => deadline(state, doing).0,
        Fault::Stack => {
            format!("it takes more than {} bytes of stack (plugin.stack_bytes)", state.config.stack_bytes)
        }
        Fault::Output => format!(
            "it hands over more than {} bytes in one call (plugin.hostcall_bytes)",
            state.config.hostcall_bytes
        ),
        _ => root,
    };
    let said = legible_end(&state.stdio.end(), max / 2);
    let mut text =
        if said.is_empty() { cause } else { format!("{}; it said last: {said}", legible(&cause, max / 3)) };
    // Where it was comes last: it may be long.
    for context in causes.iter().rev() {
        text.push_str("; ");
        text.push_str(context);
    }
    legible(&text, max)
}

/// Which limit of time the call met, in words and in milliseconds.
#[must_use]
pub fn deadline(state: &State, doing: Doing) -> (String, u64) {
    if state.watch.is_expired_by_wall_clock() {
        let limit = state.config.call_wall_ms;
        return (format!("it takes more than {limit} ms on the clock (plugin.call_wall_ms)"), limit);
    }
    let bounds = state.bounds();
    let limit = if doing == Doing::Evaluate { bounds.evaluate_cpu_ms } else { bounds.configure_cpu_ms };
    (format!("it takes more than {limit} ms of CPU time ({}{})", bounds.prefix, doing.setting()), limit)
}

/// The guest's own words, or that it has none.
#[must_use]
pub fn own(text: &str, bytes_max: usize, none: &str) -> String {
    let shown = legible(text, bytes_max);
    if shown.trim().is_empty() { none.to_owned() } else { shown }
}
