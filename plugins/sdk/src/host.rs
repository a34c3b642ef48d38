//! The functions the server provides. Natively, [`crate::testing`] implements them.

#[cfg(target_family = "wasm")]
use crate::bindings::killstream::plugin as answers;
#[cfg(not(target_family = "wasm"))]
use crate::testing::answers;

pub(crate) use answers::killmail;

/// The killmails stored before the current one. Only available during `evaluate`.
pub mod history {
    use super::answers::history as host;
    pub use crate::bindings::killstream::plugin::history::{Query, Totals};
    use crate::{Kind, Role, Term};

    /// How many killmails match; the cheapest query.
    pub fn count(query: Query) -> u64 {
        host::count(query)
    }

    /// How many killmails match all of these terms; `since <= time < until`, 0 = no bound.
    pub fn count_all(terms: &[Term], since: i64, until: i64) -> u64 {
        host::count_all(terms, since, until)
    }

    /// Sums over those killmails. The cost grows with their number.
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

    /// English name of an id.
    pub fn name(of: Kind, id: u32) -> Option<String> {
        host::name(of, id)
    }

    /// Group of a type; 0 if unknown.
    pub fn group(type_id: u32) -> u32 {
        host::group(type_id)
    }

    /// Category of a type (6 ship, 65 structure, ...); 0 if unknown.
    pub fn category(type_id: u32) -> u32 {
        host::category(type_id)
    }

    /// Constellation of a solar system; 0 if unknown.
    pub fn constellation(system: u32) -> u32 {
        host::constellation(system)
    }

    /// Region of a solar system; 0 if unknown.
    pub fn region(system: u32) -> u32 {
        host::region(system)
    }

    /// True security of a solar system; high security starts at 0.45.
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

/// Log lines for the plugin's author and the server's operator.
pub mod log {
    use super::answers::log as host;
    use crate::bindings::killstream::plugin::log::Level;

    /// For every step.
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

    /// For what is unusual.
    pub fn warn(message: &str) {
        host::log(Level::Warn, message);
    }

    /// For errors.
    pub fn error(message: &str) {
        host::log(Level::Error, message);
    }
}
