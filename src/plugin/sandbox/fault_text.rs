//! The message for a call that ended in a fault: the cause first, with the limit if there is one, then the
//! tail of the guest's stderr, then where it was.
//!
//! Must not know: who reads it.

use wasmtime::Error;

use crate::domain::safe_text::{sanitize, sanitize_end};
use crate::domain::verdict::Fault;
use crate::plugin::sandbox::state::State;

/// A call of a guest; each has its own time limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestCall {
    /// An instance is created: its start functions run.
    Start,
    Configure,
    Evaluate,
}

impl GuestCall {
    const fn setting(self) -> &'static str {
        match self {
            Self::Start | Self::Configure => "configure_cpu_ms",
            Self::Evaluate => "evaluate_cpu_ms",
        }
    }
}

/// One legible line of at most `text_bytes`.
#[must_use]
pub fn describe_fault(state: &State, call: GuestCall, fault: Fault, error: &Error) -> String {
    let max = state.config.text_bytes;
    let mut causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    let root = causes.pop().unwrap_or_default();
    let cause = match fault {
        Fault::Deadline => time_limit(state, call).text,
        Fault::Stack => {
            format!("it takes more than {} bytes of stack (plugin.stack_bytes)", state.config.stack_bytes)
        }
        Fault::Output => format!(
            "it passes more than {} bytes in one call (plugin.hostcall_bytes)",
            state.config.hostcall_bytes
        ),
        _ => root,
    };
    let stderr = sanitize_end(&state.stdio.stderr_tail(), max / 2);
    let mut text = if stderr.is_empty() {
        cause
    } else {
        format!("{}; it said last: {stderr}", sanitize(&cause, max / 3))
    };
    // Where it was comes last, because it may be long.
    for context in causes.iter().rev() {
        text.push_str("; ");
        text.push_str(context);
    }
    sanitize(&text, max)
}

/// The time limit that a call exceeded.
pub struct TimeLimit {
    /// The limit and its setting, in words.
    pub text: String,
    /// The limit, milliseconds.
    pub ms: u64,
}

/// The time limit that the call exceeded.
#[must_use]
pub fn time_limit(state: &State, call: GuestCall) -> TimeLimit {
    if state.stopwatch.is_expired_by_wall_clock() {
        let limit = state.config.call_wall_ms;
        let text = format!("it takes more than {limit} ms of wall time (plugin.call_wall_ms)");
        return TimeLimit { text, ms: limit };
    }
    let bounds = state.bounds();
    let limit = if call == GuestCall::Evaluate { bounds.evaluate_cpu_ms } else { bounds.configure_cpu_ms };
    let text = format!("it takes more than {limit} ms of CPU time ({}{})", bounds.prefix, call.setting());
    TimeLimit { text, ms: limit }
}

/// The guest's own text, or `fallback` if it is blank.
#[must_use]
pub fn guest_text_or(text: &str, bytes_max: usize, fallback: &str) -> String {
    let shown = sanitize(text, bytes_max);
    if shown.trim().is_empty() { fallback.to_owned() } else { shown }
}
