//! Questions become subscriptions: one reader of filters for every door, for query strings and JSON objects
//! alike.
//!
//! Must not know: envelopes, status codes. An error has the text both dialects use, and the field and limit
//! history tells beside it.

use std::ops::RangeInclusive;

use bytes::Bytes;
use serde::ser::{Serialize, SerializeSeq, Serializer};
use serde_json::Number;
use serde_json::value::RawValue;

use crate::domain::filter::{Filter, Match};
use crate::domain::subscription::{MAX_AGE_SECS, PluginUse, Subscription};
use crate::domain::term::{Dimension, Role};
use crate::store::query::Order;
use crate::wire::batch_key::BatchKey;
use crate::wire::query::limits::Limits;
use crate::wire::query::parameters::{AskedId, AskedIds, Error as Unusable, Known, Parameters};
use crate::wire::query::plugin_use::read_plugin_use;
use crate::wire::text::Text;

/// Ids in one dimension of a stream asked for by GET, as WandererKills has it.
const GET_IDS_MAX: usize = 100;
/// Solar systems asked for by POST: more than EVE has.
const POST_SYSTEMS_MAX: usize = 10_000;
/// Ids of any other dimension asked for by POST.
const POST_IDS_MAX: usize = 50_000;
/// Labels of one filter: zKillboard has some forty.
const LABELS_MAX: usize = 100;
/// How far back a preload goes, days.
const PRELOAD_DAYS_MAX: u32 = 90;
/// Killmails of one page of history.
const PAGE_MAX: u32 = 1000;
/// What `batch_max_bytes` may be: readers of lines have limits from 64 KiB on, a usual killmail has 6.
const BATCH_BYTES: RangeInclusive<u32> = 16 << 10..=1 << 20;
/// Killmails of one page of history where nobody says.
const PAGE: u32 = 50;

/// The id no killmail has: a filter that names only impossible ids takes nothing, not everything.
const NOBODY: u32 = u32::MAX;

/// The lists of ids there are.
pub const DIMENSIONS: &[&str] = &[
    "system_ids",
    "constellation_ids",
    "region_ids",
    "character_ids",
    "corporation_ids",
    "alliance_ids",
    "faction_ids",
    "ship_type_ids",
    "ship_group_ids",
    "weapon_type_ids",
];
/// What else restricts.
pub const FILTERS: &[&str] =
    &["match", "role", "labels", "npc", "solo", "awox", "min_value", "max_value", "since", "until"];
/// What judges.
pub const PLUGIN: &[&str] = &["plugin", "plugin_config", "plugins"];
const FORMAT: &[&str] = &["format"];
const PAGING: &[&str] = &["order", "limit", "cursor"];
const LIVE: &[&str] = &["max_age_secs"];
const STREAM: &[&str] = &["preload_days", "batch_key", "batch_max_bytes"];
/// Where a stream goes on: our name, and those that polyfills of `EventSource` have for the header.
const LAST_IDS: &[&str] = &["last_event_id", "lastEventId", "Last-Event-ID", "evs_last_event_id"];
/// What a channel join carries besides: read by the door itself.
const JOIN: &[&str] = &["resume_from", "preload"];
/// The lists of ids a channel join has under names of its own.
pub const JOINED: &[&str] = &["systems", "characters"];
/// Who a client is, which older ones say in every join too: the socket's own parameter counts, and nobody
/// needs to be told.
const CLIENT: &[&str] = &["client_id", "client_identifier", "identifier"];

const KNOWN_IN_HISTORY: Known = &[DIMENSIONS, FILTERS, FORMAT, PLUGIN, PAGING];
const KNOWN_IN_COUNTS: Known = &[DIMENSIONS, FILTERS, FORMAT];
const KNOWN_IN_STREAMS: Known = &[DIMENSIONS, FILTERS, FORMAT, PLUGIN, LIVE, STREAM, LAST_IDS];
/// The names that have a meaning in a channel join.
pub const KNOWN_IN_JOINS: Known = &[DIMENSIONS, FILTERS, FORMAT, PLUGIN, LIVE, JOINED, JOIN, CLIENT];

const ROLES: &[(&str, Role)] = &[
    ("any", Role::Any),
    ("victim", Role::Victim),
    ("attacker", Role::Attacker),
    ("final_blow", Role::FinalBlow),
];
const MATCHES: &[(&str, Match)] = &[("any", Match::Any), ("all", Match::All)];
const BATCH_KEYS: &[(&str, BatchKey)] = &[("kills", BatchKey::Kills), ("killmails", BatchKey::Killmails)];
/// The forms in which killmails are answered.
const FORMATS: &[(&str, ())] = &[("canonical", ())];
const ORDERS: &[(&str, Order)] = &[("newest", Order::Newest), ("oldest", Order::Oldest)];

/// A parameter that cannot be used.
pub type Error = Unusable;

/// What a question asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// Which killmails.
    pub subscription: Subscription,
    /// How far back a stream begins, days; 0: at its head.
    pub preload_days: u32,
    /// Whether a preload is asked for that is not sent, for it would be the whole log.
    pub skips_preload: bool,
    /// Under which names batches of a preload have their killmails.
    pub batch_key: BatchKey,
    /// A batch of a preload has at most so many bytes, as it is sent.
    pub batch_max_bytes: Option<u32>,
    /// The id a stream goes on after.
    pub last_event_id: Option<String>,
    /// The direction of history.
    pub order: Order,
    /// Killmails of one page.
    pub limit: usize,
    /// Where the page before ended.
    pub cursor: Option<String>,
    /// What was given and has no effect at a stream or a join.
    pub ignored: Vec<String>,
    /// What a stream understood, JSON, for `connected`; empty at other doors.
    pub filters: Bytes,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    History,
    Count,
    StreamGet,
    StreamPost,
    Channel,
}

impl Transport {
    /// The names that have a meaning.
    const fn known(self) -> Known {
        match self {
            Self::History => KNOWN_IN_HISTORY,
            Self::Count => KNOWN_IN_COUNTS,
            Self::StreamGet | Self::StreamPost => KNOWN_IN_STREAMS,
            Self::Channel => KNOWN_IN_JOINS,
        }
    }
}

/// How many ids each list of a request may have.
#[derive(Debug, Clone, Copy)]
struct ListLimits {
    systems: usize,
    others: usize,
}

impl ListLimits {
    const POST: Self = Self { systems: POST_SYSTEMS_MAX, others: POST_IDS_MAX };
    /// History by GET: the length of the URL is limit enough.
    const NONE: Self = Self { systems: usize::MAX, others: usize::MAX };

    const fn of(self, dimension: Dimension) -> usize {
        if matches!(dimension, Dimension::System) { self.systems } else { self.others }
    }
}

/// The decoded pairs of a query string.
pub type Pairs = [(String, String)];

/// A stream, by query string.
///
/// # Errors
/// The first parameter that cannot be used, in WandererKills' order.
pub fn stream_pairs(pairs: &Pairs, limits: Limits) -> Result<Asked, Error> {
    read_pairs(Transport::StreamGet, pairs, ListLimits { systems: GET_IDS_MAX, others: GET_IDS_MAX }, limits)
}

/// A stream, by the text of a JSON object, or none, and what the address says beside it.
///
/// # Errors
/// As [`stream_pairs`].
pub fn stream_body(body: &[u8], pairs: &Pairs, limits: Limits) -> Result<Asked, Error> {
    read_body(Transport::StreamPost, body, pairs, limits)
}

/// What a channel join asks for besides its systems and characters, which have names and limits of their own.
///
/// # Errors
/// As [`stream_pairs`].
pub fn join(given: &Parameters<'_>, limits: Limits) -> Result<Asked, Error> {
    read(Transport::Channel, given, ListLimits::POST, limits)
}

/// A page of history, by query string.
///
/// # Errors
/// The first parameter that cannot be used; unknown ones are among them.
pub fn history_pairs(pairs: &Pairs, limits: Limits) -> Result<Asked, Error> {
    read_pairs(Transport::History, pairs, ListLimits::NONE, limits)
}

/// A page of history, by the text of a JSON object, or none, and what the address says beside it.
///
/// # Errors
/// As [`history_pairs`].
pub fn history_body(body: &[u8], pairs: &Pairs, limits: Limits) -> Result<Asked, Error> {
    read_body(Transport::History, body, pairs, limits)
}

/// A count, by query string.
///
/// # Errors
/// As [`history_pairs`]; plugins and pages are unknown here.
pub fn count_pairs(pairs: &Pairs, limits: Limits) -> Result<Asked, Error> {
    read_pairs(Transport::Count, pairs, ListLimits::NONE, limits)
}

/// A count, by the text of a JSON object, or none, and what the address says beside it.
///
/// # Errors
/// As [`count_pairs`].
pub fn count_body(body: &[u8], pairs: &Pairs, limits: Limits) -> Result<Asked, Error> {
    read_body(Transport::Count, body, pairs, limits)
}

fn read_pairs(
    transport: Transport,
    pairs: &Pairs,
    lists: ListLimits,
    limits: Limits,
) -> Result<Asked, Error> {
    read(transport, &Parameters::pairs(pairs, transport.known()), lists, limits)
}

fn read_body(transport: Transport, body: &[u8], pairs: &Pairs, limits: Limits) -> Result<Asked, Error> {
    let (body, known) = (body.trim_ascii(), transport.known());
    let no_object = |why| Error::new("body", format!("the body must be a JSON object: {why}"));
    let given = if body.is_empty() {
        Parameters::none(known)
    } else {
        Parameters::object(body, known).map_err(no_object)?
    };
    read(transport, &given.or_pairs(pairs), ListLimits::POST, limits)
}

/// The parameter of a dimension.
fn parameter(kind: Dimension) -> String {
    format!("{}_ids", kind.word())
}

fn read(
    transport: Transport,
    given: &Parameters<'_>,
    list_limits: ListLimits,
    limits: Limits,
) -> Result<Asked, Error> {
    let is_stream = matches!(transport, Transport::StreamGet | Transport::StreamPost);
    let is_live = is_stream || transport == Transport::Channel;
    if !is_live {
        refuse_unknown(given)?;
    }
    let lists = lists(transport, given, list_limits)?;
    let min_value = given.amount("min_value")?;
    let preload_days = if is_stream { given.count("preload_days", PRELOAD_DAYS_MAX)? } else { None };
    let mut filter = restrictions(given)?;
    filter.min_value = min_value;
    let max_age_secs = if is_live { given.count("max_age_secs", u32::MAX)? } else { None };
    let plugin = if transport == Transport::Count { None } else { read_plugin_use(given, limits)? };
    let paging = transport == Transport::History;
    let order = if paging { given.word("order", ORDERS)? } else { None };
    let limit = if paging { given.bounded("limit", 1..=PAGE_MAX)? } else { None };
    let cursor = if paging { given.text("cursor")? } else { None };
    given.word("format", FORMATS)?;
    let batch_key = if is_stream { given.word("batch_key", BATCH_KEYS)? } else { None };
    let batch_max_bytes = if is_stream { given.bounded("batch_max_bytes", BATCH_BYTES)? } else { None };
    let last_event_id = if is_stream { last_event_id(given) } else { None };
    limit_counts(&lists, list_limits)?;
    let ignored = if is_live { ignored(transport, given)? } else { Vec::new() };
    let filters = if is_stream {
        understood(&lists, &filter, preload_days.unwrap_or(0), plugin.as_ref())
    } else {
        Bytes::new()
    };
    for (kind, ids) in lists {
        filter.set_ids(kind, ids.iter().map(wanted).collect());
    }
    let skips_preload = preload_days.is_some_and(|days| days > 0) && !filter.has_ids();
    Ok(Asked {
        subscription: Subscription { filter, plugin, max_age_secs: max_age_secs.unwrap_or(MAX_AGE_SECS) },
        preload_days: preload_days.unwrap_or(0),
        skips_preload,
        batch_key: batch_key.unwrap_or_default(),
        batch_max_bytes,
        last_event_id,
        order: order.unwrap_or_default(),
        limit: usize::try_from(limit.unwrap_or(PAGE)).unwrap_or(usize::MAX),
        cursor: cursor.map(str::to_owned),
        ignored,
        filters,
    })
}

/// Checks a format that is asked for beside a question.
///
/// # Errors
/// There is none of this name.
pub fn format(asked: &str) -> Result<(), Error> {
    let pairs = [("format".to_owned(), asked.to_owned())];
    Parameters::pairs(&pairs, &[FORMAT]).word("format", FORMATS).map(|_| ())
}

fn refuse_unknown(given: &Parameters<'_>) -> Result<(), Error> {
    given.unknown().iter().min().map_or(Ok(()), |name| Err(not_known(name, unknown::meant(name))))
}

fn not_known(name: &str, meant: Option<&str>) -> Error {
    let hint = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
    Error::new(name, format!("Unknown parameter: {name}{hint}"))
}

/// What has no effect. A misspelt filter is not among it: without it everything would come.
fn ignored(transport: Transport, given: &Parameters<'_>) -> Result<Vec<String>, Error> {
    let meant = if transport == Transport::Channel { unknown::slip } else { unknown::meant };
    match given.unknown().iter().find_map(|name| Some((name, meant(name)?))) {
        Some((name, meant)) => Err(not_known(name, Some(meant))),
        None => Ok(given.unknown().to_vec()),
    }
}

/// Whatever it is, it is no reason to refuse: a place that is none is told as a gap.
fn last_event_id(given: &Parameters<'_>) -> Option<String> {
    let id = |name: &&str| {
        given.plain(name).or_else(|| given.raw(name).map(RawValue::get)).filter(|id| !id.is_empty())
    };
    LAST_IDS.iter().find_map(id).map(str::to_owned)
}

/// The dimensions in the order WandererKills reads the two it has.
fn dimensions() -> impl Iterator<Item = Dimension> {
    let first = [Dimension::System, Dimension::Character];
    first.into_iter().chain(Dimension::ALL.into_iter().filter(move |kind| !first.contains(kind)))
}

fn lists(
    transport: Transport,
    given: &Parameters<'_>,
    limits: ListLimits,
) -> Result<Vec<(Dimension, AskedIds)>, Error> {
    let lenient = !matches!(transport, Transport::History | Transport::Count);
    let mut lists = Vec::new();
    for kind in dimensions().filter(|kind| {
        transport != Transport::Channel || !matches!(kind, Dimension::System | Dimension::Character)
    }) {
        let field = parameter(kind);
        let ids = given.ids(&field, limits.of(kind))?;
        if !lenient && ids.has_impossible() {
            return Err(Error::new(&field, format!("{field} must be positive and fit 32 bits")));
        }
        if !ids.is_empty() {
            lists.push((kind, ids));
        }
    }
    Ok(lists)
}

fn wanted(id: AskedId) -> u32 {
    match id {
        AskedId::Id(id) => id,
        AskedId::Impossible(_) => NOBODY,
    }
}

fn limit_counts(lists: &[(Dimension, AskedIds)], limits: ListLimits) -> Result<(), Error> {
    for (kind, ids) in lists {
        let most = limits.of(*kind);
        if ids.len() > most {
            return Err(Error::too_many(&parameter(*kind), most));
        }
    }
    Ok(())
}

fn restrictions(given: &Parameters<'_>) -> Result<Filter, Error> {
    let labels = given.texts("labels", LABELS_MAX)?;
    if labels.len() > LABELS_MAX {
        return Err(Error::too_many("labels", LABELS_MAX));
    }
    Ok(Filter {
        matching: given.word("match", MATCHES)?.unwrap_or_default(),
        role: given.word("role", ROLES)?.unwrap_or_default(),
        labels,
        npc: given.flag("npc")?,
        solo: given.flag("solo")?,
        awox: given.flag("awox")?,
        max_value: given.amount("max_value")?,
        since: given.moment("since")?,
        until: given.moment("until")?,
        ..Filter::default()
    })
}

/// WandererKills' four members always; of the others those that restrict.
fn understood(
    lists: &[(Dimension, AskedIds)],
    filter: &Filter,
    preload_days: u32,
    plugin: Option<&PluginUse>,
) -> Bytes {
    let mut out = Text::with_capacity(256);
    out.open(b'{');
    for kind in [Dimension::System, Dimension::Character] {
        let ids = lists.iter().find(|(of, _)| *of == kind).map(|(_, ids)| ids);
        out.field(&parameter(kind), &Said(ids.unwrap_or(&AskedIds::default())));
    }
    out.field("min_value", &filter.min_value);
    out.field("preload_days", &preload_days);
    for (kind, ids) in
        lists.iter().filter(|(kind, _)| !matches!(kind, Dimension::System | Dimension::Character))
    {
        out.field(&parameter(*kind), &Said(ids));
    }
    let matching = MATCHES
        .iter()
        .find(|(_, matching)| *matching == filter.matching)
        .filter(|_| filter.matching != Match::default());
    let role = ROLES.iter().find(|(_, role)| *role == filter.role).filter(|_| filter.role != Role::default());
    out.known("match", matching.map(|(word, _)| word));
    out.known("role", role.map(|(word, _)| word));
    out.known("labels", Some(&filter.labels).filter(|labels| !labels.is_empty()));
    out.known("npc", filter.npc.as_ref());
    out.known("solo", filter.solo.as_ref());
    out.known("awox", filter.awox.as_ref());
    out.known("max_value", filter.max_value.as_ref());
    out.known("since", filter.since.as_ref());
    out.known("until", filter.until.as_ref());
    out.known("plugin", plugin.map(|used| &used.name));
    out.close(b'}');
    out.done()
}

/// Ids as the client said them, as far as JSON numbers reach.
struct Said<'a>(&'a AskedIds);

impl Serialize for Said<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for id in self.0.iter() {
            match id {
                AskedId::Id(id) => list.serialize_element(&id)?,
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "an integer larger than any id is told roughly"
                )]
                AskedId::Impossible(number) => match Number::from_i128(number) {
                    Some(number) => list.serialize_element(&number)?,
                    None => list.serialize_element(&(number as f64))?,
                },
            }
        }
        list.end()
    }
}

pub mod filter_echo;
pub mod given_value;
pub mod limits;
pub mod origin;
pub mod parameters;
mod plugin_use;
pub mod spelling;
#[cfg(test)]
#[path = "query_tests.rs"]
mod tests;
pub mod unknown;
