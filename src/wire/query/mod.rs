//! Requests for killmails become a [`ParsedQuery`]: every transport reads filters here, from query strings
//! and from JSON objects.
//!
//! Must not know: envelopes, status codes. An error has the message that all transports use, and the field
//! and limit that history reports beside it.

use std::ops::RangeInclusive;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::domain::filter::{Filter, Match};
use crate::domain::subscription::{MAX_AGE_SECS, PluginUse, Subscription};
use crate::domain::term::{Dimension, Role};
use crate::store::query::Order;
use crate::wire::batch_key::BatchKey;
use crate::wire::query::ids_as_given::IdsAsGiven;
use crate::wire::query::limits::Limits;
use crate::wire::query::parameters::{ParameterError, Parameters, RequestedId, RequestedIds};
use crate::wire::query::plugin_use::read_plugin_use;
use crate::wire::query::request_form::{
    CHANNEL_JOIN, COUNT, EVENT_STREAM, HISTORY, RequestForm, UnknownNames, WEBHOOK,
};
use crate::wire::text::JsonBuffer;

/// Ids of one dimension in a stream by GET. Fixed: WandererKills' limit.
const GET_IDS_MAX: usize = 100;
/// Solar systems in a POST request or a join. Fixed: EVE has fewer.
const POST_SYSTEMS_MAX: usize = 10_000;
/// Ids of any other dimension in a POST request or a join. Fixed: WandererKills' limit for characters.
const POST_IDS_MAX: usize = 50_000;
/// Solar systems of a webhook. Fixed: WandererKills' limit.
const WEBHOOK_SYSTEMS_MAX: usize = 100;
/// Ids of any other dimension of a webhook. Fixed: WandererKills' limit for characters.
const WEBHOOK_IDS_MAX: usize = 1_000;
/// Labels of one filter. Fixed: zKillboard has some forty.
const LABELS_MAX: usize = 100;
/// Longest preload, days. Fixed: WandererKills' limit.
const PRELOAD_DAYS_MAX: u32 = 90;
/// Largest page of history, killmails. Fixed: 1000 typical killmails are some 6 MB of JSON.
const PAGE_MAX: u32 = 1000;
/// Range of `batch_max_bytes`, bytes. Fixed: clients limit lines to 64 KiB or more, and a typical killmail
/// has 6 KiB.
const BATCH_BYTES: RangeInclusive<u32> = 16 << 10..=1 << 20;
/// Page of history if the request has no `limit`, killmails. Fixed: documented to clients.
const PAGE_DEFAULT: u32 = 50;

/// An id that no killmail has. It replaces impossible ids, so that a filter of nothing else matches nothing,
/// not everything.
const IMPOSSIBLE_ID: u32 = u32::MAX;

/// Names of lists of ids.
pub const DIMENSIONS: &[&str] = &Dimension::PARAMETERS;
/// Names of other restrictions.
pub const FILTERS: &[&str] =
    &["match", "role", "labels", "npc", "solo", "awox", "min_value", "max_value", "since", "until"];
/// Names for the plugin and its configuration.
pub const PLUGIN: &[&str] = &["plugin", "plugin_config", "plugins"];
const FORMAT: &[&str] = &["format"];
const PAGING: &[&str] = &["order", "limit", "cursor"];
const LIVE: &[&str] = &["max_age_secs"];
const STREAM: &[&str] = &["preload_days", "batch_key", "batch_max_bytes"];
/// The event id to continue after: our name, and the names that polyfills of `EventSource` use for the
/// header.
const LAST_IDS: &[&str] = &["last_event_id", "lastEventId", "Last-Event-ID", "evs_last_event_id"];
/// Further members of a channel join, which the transport reads itself.
const JOIN: &[&str] = &["resume_from", "preload"];
/// Lists of ids that have their own names in a channel join.
pub const JOINED: &[&str] = &["systems", "characters"];
/// Names of the client, which older clients repeat in every join. They have no effect, but are not reported
/// as ignored: the parameter of the socket counts.
const CLIENT: &[&str] = &["client_id", "client_identifier", "identifier"];

const ROLES: &[(&str, Role)] = &[
    ("any", Role::Any),
    ("victim", Role::Victim),
    ("attacker", Role::Attacker),
    ("final_blow", Role::FinalBlow),
];
const MATCHES: &[(&str, Match)] = &[("any", Match::Any), ("all", Match::All)];
const BATCH_KEYS: &[(&str, BatchKey)] = &[("kills", BatchKey::Kills), ("killmails", BatchKey::Killmails)];
/// Formats of killmails in responses.
const FORMATS: &[(&str, ())] = &[("canonical", ())];
const ORDERS: &[(&str, Order)] = &[("newest", Order::Newest), ("oldest", Order::Oldest)];

/// A request for killmails.
#[derive(Debug, Clone, PartialEq)]
pub struct ParsedQuery {
    /// Filter, plugin and maximum age.
    pub subscription: Subscription,
    /// How far back a stream begins, days; 0: at the head of the log.
    pub preload_days: u32,
    /// Whether a preload was requested without any list of ids. It is not sent, since it would be the whole
    /// log.
    pub skips_preload: bool,
    /// The key, or keys, of killmails in batches of a preload.
    pub batch_key: BatchKey,
    /// Largest batch of a preload as it is sent, bytes.
    pub batch_max_bytes: Option<u32>,
    /// The event id after which a stream continues.
    pub last_event_id: Option<String>,
    /// Order of history.
    pub order: Order,
    /// Largest page of history, killmails.
    pub limit: usize,
    /// End of the previous page of history.
    pub cursor: Option<String>,
    /// Names in the request of a stream or join that have no effect.
    pub ignored: Vec<String>,
    /// The filters of a stream as JSON, for its `connected` event; empty for other transports.
    pub filters: Bytes,
}

/// How many ids each list of a request may have.
#[derive(Debug, Clone, Copy)]
struct ListLimits {
    systems: usize,
    others: usize,
}

impl ListLimits {
    const POST: Self = Self { systems: POST_SYSTEMS_MAX, others: POST_IDS_MAX };
    const WEBHOOK: Self = Self { systems: WEBHOOK_SYSTEMS_MAX, others: WEBHOOK_IDS_MAX };
    /// History by GET: the length of the URL is limit enough.
    const NONE: Self = Self { systems: usize::MAX, others: usize::MAX };

    const fn max_ids(self, dimension: Dimension) -> usize {
        if matches!(dimension, Dimension::System) { self.systems } else { self.others }
    }
}

/// The decoded pairs of a query string.
pub type QueryPairs = [(String, String)];

/// Reads a stream request from its query string.
///
/// # Errors
/// The first invalid parameter, in WandererKills' order.
pub fn read_stream_query(pairs: &QueryPairs, limits: Limits) -> Result<ParsedQuery, ParameterError> {
    read_query_string(&EVENT_STREAM, pairs, ListLimits { systems: GET_IDS_MAX, others: GET_IDS_MAX }, limits)
}

/// Reads a stream request from its body, a JSON object or empty, and from its query string.
///
/// # Errors
/// As [`read_stream_query`].
pub fn read_stream_body(
    body: &[u8],
    pairs: &QueryPairs,
    limits: Limits,
) -> Result<ParsedQuery, ParameterError> {
    read_body(&EVENT_STREAM, body, pairs, limits)
}

/// Reads a channel join, except for its systems and characters, which have their own names and limits.
///
/// # Errors
/// As [`read_stream_query`].
pub fn read_join(parameters: &Parameters<'_>, limits: Limits) -> Result<ParsedQuery, ParameterError> {
    read(&CHANNEL_JOIN, parameters, ListLimits::POST, limits)
}

/// Reads the filter, plugin and maximum age of a webhook, a JSON object.
///
/// # Errors
/// The first invalid or unknown parameter.
pub fn read_webhook(body: &[u8], limits: Limits) -> Result<Subscription, ParameterError> {
    let known = WEBHOOK.known_names;
    let not_an_object = |why| ParameterError::new("body", format!("the body must be a JSON object: {why}"));
    let parameters = Parameters::from_object(body, known).map_err(not_an_object)?;
    Ok(read(&WEBHOOK, &parameters, ListLimits::WEBHOOK, limits)?.subscription)
}

/// Reads a request for a page of history from its query string.
///
/// # Errors
/// The first invalid or unknown parameter.
pub fn read_history_query(pairs: &QueryPairs, limits: Limits) -> Result<ParsedQuery, ParameterError> {
    read_query_string(&HISTORY, pairs, ListLimits::NONE, limits)
}

/// Reads a request for a page of history from its body, a JSON object or empty, and from its query string.
///
/// # Errors
/// As [`read_history_query`].
pub fn read_history_body(
    body: &[u8],
    pairs: &QueryPairs,
    limits: Limits,
) -> Result<ParsedQuery, ParameterError> {
    read_body(&HISTORY, body, pairs, limits)
}

/// Reads a request for a count from its query string.
///
/// # Errors
/// As [`read_history_query`]; parameters of plugins and pages are unknown here.
pub fn read_count_query(pairs: &QueryPairs, limits: Limits) -> Result<ParsedQuery, ParameterError> {
    read_query_string(&COUNT, pairs, ListLimits::NONE, limits)
}

/// Reads a request for a count from its body, a JSON object or empty, and from its query string.
///
/// # Errors
/// As [`read_count_query`].
pub fn read_count_body(
    body: &[u8],
    pairs: &QueryPairs,
    limits: Limits,
) -> Result<ParsedQuery, ParameterError> {
    read_body(&COUNT, body, pairs, limits)
}

fn read_query_string(
    form: &RequestForm,
    pairs: &QueryPairs,
    lists: ListLimits,
    limits: Limits,
) -> Result<ParsedQuery, ParameterError> {
    read(form, &Parameters::from_pairs(pairs, form.known_names), lists, limits)
}

fn read_body(
    form: &RequestForm,
    body: &[u8],
    pairs: &QueryPairs,
    limits: Limits,
) -> Result<ParsedQuery, ParameterError> {
    let (body, known) = (body.trim_ascii(), form.known_names);
    let not_an_object = |why| ParameterError::new("body", format!("the body must be a JSON object: {why}"));
    let parameters = if body.is_empty() {
        Parameters::empty(known)
    } else {
        Parameters::from_object(body, known).map_err(not_an_object)?
    };
    read(form, &parameters.or_from_pairs(pairs), ListLimits::POST, limits)
}

fn read(
    form: &RequestForm,
    parameters: &Parameters<'_>,
    list_limits: ListLimits,
    limits: Limits,
) -> Result<ParsedQuery, ParameterError> {
    let &RequestForm { has_plugin, is_live, is_stream, is_paged, .. } = form;
    if matches!(form.unknown_names, UnknownNames::Refused) {
        refuse_unknown(parameters)?;
    }
    let lists = read_lists(form, parameters, list_limits)?;
    let min_value = parameters.amount("min_value")?;
    let preload_days = if is_stream { parameters.count("preload_days", PRELOAD_DAYS_MAX)? } else { None };
    let mut filter = read_restrictions(parameters)?;
    filter.min_value = min_value;
    let max_age_secs = if is_live { parameters.count("max_age_secs", u32::MAX)? } else { None };
    let plugin = if has_plugin { read_plugin_use(parameters, limits)? } else { None };
    let order = if is_paged { parameters.word("order", ORDERS)? } else { None };
    let limit = if is_paged { parameters.integer_in("limit", 1..=PAGE_MAX)? } else { None };
    let cursor = if is_paged { parameters.text("cursor")? } else { None };
    parameters.word("format", FORMATS)?;
    let batch_key = if is_stream { parameters.word("batch_key", BATCH_KEYS)? } else { None };
    let batch_max_bytes =
        if is_stream { parameters.integer_in("batch_max_bytes", BATCH_BYTES)? } else { None };
    let last_event_id = if is_stream { read_last_event_id(parameters) } else { None };
    check_counts(&lists, list_limits)?;
    let ignored = match form.unknown_names {
        UnknownNames::Refused => Vec::new(),
        UnknownNames::Reported(suggest) => list_ignored(suggest, parameters)?,
    };
    let filters = if is_stream {
        encode_filters(&lists, &filter, preload_days.unwrap_or(0), plugin.as_ref())
    } else {
        Bytes::new()
    };
    for (dimension, ids) in lists {
        filter.set_ids(dimension, ids.iter().map(to_filter_id).collect());
    }
    let skips_preload = preload_days.is_some_and(|days| days > 0) && !filter.has_ids();
    Ok(ParsedQuery {
        subscription: Subscription { filter, plugin, max_age_secs: max_age_secs.unwrap_or(MAX_AGE_SECS) },
        preload_days: preload_days.unwrap_or(0),
        skips_preload,
        batch_key: batch_key.unwrap_or_default(),
        batch_max_bytes,
        last_event_id,
        order: order.unwrap_or_default(),
        limit: usize::try_from(limit.unwrap_or(PAGE_DEFAULT)).unwrap_or(usize::MAX),
        cursor: cursor.map(str::to_owned),
        ignored,
        filters,
    })
}

/// Checks the `format` of a request.
///
/// # Errors
/// There is no such format.
pub fn check_format(format: &str) -> Result<(), ParameterError> {
    let pairs = [("format".to_owned(), format.to_owned())];
    Parameters::from_pairs(&pairs, &[FORMAT]).word("format", FORMATS).map(|_| ())
}

fn refuse_unknown(parameters: &Parameters<'_>) -> Result<(), ParameterError> {
    parameters
        .unknown()
        .iter()
        .min()
        .map_or(Ok(()), |name| Err(unknown_parameter(name, unknown::suggest(name))))
}

fn unknown_parameter(name: &str, suggestion: Option<&str>) -> ParameterError {
    let hint = suggestion.map(|suggestion| format!("; did you mean {suggestion}?")).unwrap_or_default();
    ParameterError::new(name, format!("Unknown parameter: {name}{hint}"))
}

/// The names that have no effect.
fn list_ignored(
    suggest: fn(&str) -> Option<&'static str>,
    parameters: &Parameters<'_>,
) -> Result<Vec<String>, ParameterError> {
    match parameters.unknown().iter().find_map(|name| Some((name, suggest(name)?))) {
        Some((name, suggestion)) => Err(unknown_parameter(name, Some(suggestion))),
        None => Ok(parameters.unknown().to_vec()),
    }
}

/// Any value is accepted: a client with an invalid event id gets a gap, not an error.
fn read_last_event_id(parameters: &Parameters<'_>) -> Option<String> {
    let id = |name: &&str| {
        parameters
            .raw_text(name)
            .or_else(|| parameters.raw_json(name).map(RawValue::get))
            .filter(|id| !id.is_empty())
    };
    LAST_IDS.iter().find_map(id).map(str::to_owned)
}

/// All dimensions, beginning with the two that WandererKills has, in its order: the first invalid one is
/// reported.
fn dimensions_in_order() -> impl Iterator<Item = Dimension> {
    let first = [Dimension::System, Dimension::Character];
    first.into_iter().chain(Dimension::ALL.into_iter().filter(move |dimension| !first.contains(dimension)))
}

fn read_lists(
    form: &RequestForm,
    parameters: &Parameters<'_>,
    limits: ListLimits,
) -> Result<Vec<(Dimension, RequestedIds)>, ParameterError> {
    let mut lists = Vec::new();
    for dimension in dimensions_in_order().filter(|dimension| {
        form.has_systems_and_characters || !matches!(dimension, Dimension::System | Dimension::Character)
    }) {
        let field = dimension.parameter();
        let ids = parameters.ids(field, limits.max_ids(dimension))?;
        if !form.allows_impossible_ids && ids.has_impossible() {
            return Err(ParameterError::new(field, format!("{field} must be positive and fit 32 bits")));
        }
        if !ids.is_empty() {
            lists.push((dimension, ids));
        }
    }
    Ok(lists)
}

fn to_filter_id(id: RequestedId) -> u32 {
    match id {
        RequestedId::Id(id) => id,
        RequestedId::Impossible(_) => IMPOSSIBLE_ID,
    }
}

fn check_counts(lists: &[(Dimension, RequestedIds)], limits: ListLimits) -> Result<(), ParameterError> {
    for (dimension, ids) in lists {
        let most = limits.max_ids(*dimension);
        if ids.len() > most {
            return Err(ParameterError::too_many(dimension.parameter(), most));
        }
    }
    Ok(())
}

fn read_restrictions(parameters: &Parameters<'_>) -> Result<Filter, ParameterError> {
    let labels = parameters.texts("labels", LABELS_MAX)?;
    if labels.len() > LABELS_MAX {
        return Err(ParameterError::too_many("labels", LABELS_MAX));
    }
    Ok(Filter {
        matching: parameters.word("match", MATCHES)?.unwrap_or_default(),
        role: parameters.word("role", ROLES)?.unwrap_or_default(),
        labels,
        npc: parameters.flag("npc")?,
        solo: parameters.flag("solo")?,
        awox: parameters.flag("awox")?,
        max_value: parameters.amount("max_value")?,
        since: parameters.time("since")?,
        until: parameters.time("until")?,
        ..Filter::default()
    })
}

/// The filters of a stream as JSON: WandererKills' four members always, others only if they restrict.
fn encode_filters(
    lists: &[(Dimension, RequestedIds)],
    filter: &Filter,
    preload_days: u32,
    plugin: Option<&PluginUse>,
) -> Bytes {
    let mut out = JsonBuffer::with_capacity(256);
    out.open(b'{');
    for dimension in [Dimension::System, Dimension::Character] {
        let ids = lists.iter().find(|(listed, _)| *listed == dimension).map(|(_, ids)| ids);
        out.field(dimension.parameter(), &IdsAsGiven(ids.unwrap_or(&RequestedIds::default())));
    }
    out.field("min_value", &filter.min_value);
    out.field("preload_days", &preload_days);
    for (dimension, ids) in
        lists.iter().filter(|(dimension, _)| !matches!(dimension, Dimension::System | Dimension::Character))
    {
        out.field(dimension.parameter(), &IdsAsGiven(ids));
    }
    let matching = MATCHES
        .iter()
        .find(|(_, matching)| *matching == filter.matching)
        .filter(|_| filter.matching != Match::default());
    let role = ROLES.iter().find(|(_, role)| *role == filter.role).filter(|_| filter.role != Role::default());
    out.field_if_some("match", matching.map(|(word, _)| word));
    out.field_if_some("role", role.map(|(word, _)| word));
    out.field_if_some("labels", Some(&filter.labels).filter(|labels| !labels.is_empty()));
    out.field_if_some("npc", filter.npc.as_ref());
    out.field_if_some("solo", filter.solo.as_ref());
    out.field_if_some("awox", filter.awox.as_ref());
    out.field_if_some("max_value", filter.max_value.as_ref());
    out.field_if_some("since", filter.since.as_ref());
    out.field_if_some("until", filter.until.as_ref());
    out.field_if_some("plugin", plugin.map(|used| &used.name));
    out.close(b'}');
    out.done()
}

pub(crate) mod filter_echo;
pub(crate) mod given_value;
mod ids_as_given;
pub mod limits;
pub(crate) mod origin;
pub mod parameters;
mod plugin_use;
pub(crate) mod request_form;
pub(crate) mod spelling;
#[cfg(test)]
#[path = "query_tests.rs"]
mod tests;
pub(crate) mod unknown;
