//! The forms of requests for killmails, and what each accepts. A transport with a form of its own adds a constant,
//! and the compiler asks for every field.
//!
//! Must not know: how parameters are read.

use crate::wire::query::parameters::KnownNames;
use crate::wire::query::{
    CLIENT, DIMENSIONS, FILTERS, FORMAT, JOIN, JOINED, LAST_IDS, LIVE, PAGING, PLUGIN, STREAM, unknown,
};

/// What happens to names without a meaning.
#[derive(Debug, Clone, Copy)]
pub enum UnknownNames {
    /// The first one is an error.
    Refused,
    /// They are reported. A misspelt filter is an error instead: without it the client would get every killmail.
    /// The function returns the filter that was probably meant.
    Reported(fn(&str) -> Option<&'static str>),
}

/// What a request accepts.
#[derive(Debug, Clone, Copy)]
pub struct RequestForm {
    /// The names that have a meaning.
    pub known_names: KnownNames,
    /// What happens to other names.
    pub unknown_names: UnknownNames,
    /// Ids that no killmail has match nothing, as in WandererKills. Otherwise they are an error.
    pub allows_impossible_ids: bool,
    /// Systems and characters are lists like the others. A channel reads its own.
    pub has_systems_and_characters: bool,
    /// A plugin and its configuration.
    pub has_plugin: bool,
    /// `max_age_secs`.
    pub is_live: bool,
    /// A preload, its batches, and the event id to continue after.
    pub is_stream: bool,
    /// Order, limit and cursor.
    pub is_paged: bool,
}

/// A page of history.
pub const HISTORY: RequestForm = RequestForm {
    known_names: &[DIMENSIONS, FILTERS, FORMAT, PLUGIN, PAGING],
    unknown_names: UnknownNames::Refused,
    allows_impossible_ids: false,
    has_systems_and_characters: true,
    has_plugin: true,
    is_live: false,
    is_stream: false,
    is_paged: true,
};

/// A count.
pub const COUNT: RequestForm = RequestForm {
    known_names: &[DIMENSIONS, FILTERS, FORMAT],
    has_plugin: false,
    is_paged: false,
    ..HISTORY
};

/// An event stream.
pub const EVENT_STREAM: RequestForm = RequestForm {
    known_names: &[DIMENSIONS, FILTERS, FORMAT, PLUGIN, LIVE, STREAM, LAST_IDS],
    unknown_names: UnknownNames::Reported(unknown::suggest),
    allows_impossible_ids: true,
    has_systems_and_characters: true,
    has_plugin: true,
    is_live: true,
    is_stream: true,
    is_paged: false,
};

/// A channel join.
pub const CHANNEL_JOIN: RequestForm = RequestForm {
    known_names: &[DIMENSIONS, FILTERS, FORMAT, PLUGIN, LIVE, JOINED, JOIN, CLIENT],
    unknown_names: UnknownNames::Reported(unknown::suggest_list),
    allows_impossible_ids: true,
    has_systems_and_characters: false,
    has_plugin: true,
    is_live: true,
    is_stream: false,
    is_paged: false,
};

/// A webhook.
pub const WEBHOOK: RequestForm = RequestForm {
    known_names: &[DIMENSIONS, FILTERS, FORMAT, PLUGIN, LIVE],
    unknown_names: UnknownNames::Refused,
    allows_impossible_ids: false,
    has_systems_and_characters: true,
    has_plugin: true,
    is_live: true,
    is_stream: false,
    is_paged: false,
};
