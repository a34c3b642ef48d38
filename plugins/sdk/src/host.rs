//! What the server answers. Natively, [`crate::testing`] answers in its place.

#[cfg(target_family = "wasm")]
use crate::bindings::killstream::plugin as answers;
#[cfg(not(target_family = "wasm"))]
use crate::testing::answers;

pub(crate) use answers::killmail;

/// The killmails stored before the one now judged. Only while judging.
pub mod history {
    use super::answers::history as host;
    pub use crate::bindings::killstream::plugin::history::{Query, Totals};
    use crate::{Kind, Role, Term};

    /// How many killmails match: the cheap question.
    pub fn count(query: Query) -> u64 {
        host::count(query)
    }

    /// How many killmails match all of these terms; `since <= time < until`, 0 = no bound.
    pub fn count_all(terms: &[Term], since: i64, until: i64) -> u64 {
        host::count_all(terms, since, until)
    }

    /// What those killmails amount to. Costs work for each of them.
    pub fn summarize(terms: &[Term], since: i64, until: i64) -> Totals {
        host::summarize(terms, since, until)
    }

    /// When the latest killmail with this id in this role happened, unix seconds.
    pub fn last_seen(of: Kind, role: Role, id: u32) -> Option<i64> {
        host::last_seen(of, role, id)
    }
}

/// Static facts about New Eden.
pub mod universe {
    use super::answers::universe as host;
    use crate::Kind;

    /// English name of what an id names.
    pub fn name(of: Kind, id: u32) -> Option<String> {
        host::name(of, id)
    }

    /// Group of a type; 0 where unknown.
    pub fn group(type_id: u32) -> u32 {
        host::group(type_id)
    }

    /// Category of a type (6 ship, 65 structure, ...); 0 where unknown.
    pub fn category(type_id: u32) -> u32 {
        host::category(type_id)
    }

    /// Constellation of a solar system; 0 where unknown.
    pub fn constellation(system: u32) -> u32 {
        host::constellation(system)
    }

    /// Region of a solar system; 0 where unknown.
    pub fn region(system: u32) -> u32 {
        host::region(system)
    }

    /// True security of a solar system; high security begins at 0.45.
    pub fn security(system: u32) -> Option<f64> {
        host::security(system)
    }

    /// Stargate jumps between two solar systems, if at most `max`.
    pub fn jumps(a: u32, b: u32, max: u32) -> Option<u32> {
        host::jumps(a, b, max)
    }

    /// Distance between two solar systems, light years.
    pub fn light_years(a: u32, b: u32) -> Option<f64> {
        host::light_years(a, b)
    }
}

/// Lines for the author and the operator.
pub mod log {
    use super::answers::log as host;
    use crate::bindings::killstream::plugin::log::Level;

    /// Every step.
    pub fn trace(message: &str) {
        host::log(Level::Trace, message);
    }

    /// For the author.
    pub fn debug(message: &str) {
        host::log(Level::Debug, message);
    }

    /// For the operator.
    pub fn info(message: &str) {
        host::log(Level::Info, message);
    }

    /// Something is odd.
    pub fn warn(message: &str) {
        host::log(Level::Warn, message);
    }

    /// Something is wrong.
    pub fn error(message: &str) {
        host::log(Level::Error, message);
    }
}
