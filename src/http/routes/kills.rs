//! The kills API of the older service, served from the local store, and the other paths that its clients
//! call.
//!
//! Must not know: how killmails are found.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hashbrown::HashSet;
use serde_json::{Value, json};

use crate::clock::now_secs;
use crate::domain::term::{Dimension, Term};
use crate::feed::history::{Chosen, Latest};
use crate::http::answer::error::{Error, OutOfRange};
use crate::http::answer::listing::Listing;
use crate::http::answer::success::Json;
use crate::http::request::parameters::{
    JsonObject, Pairs, PathSegment, integer, parse_positive, positive_json,
};
use crate::http::state::HttpState;
use crate::wire::query::parameters::{KnownNames, Parameters};
use crate::wire::{query, time};

/// The default of `limit`.
const LIMIT: usize = 50;
/// The largest `limit`.
const LIMIT_MAX: u64 = 1000;
/// The default of `since_hours`.
const HOURS: u64 = 24;

/// `GET /api/v1/kills/system/{id}`. Every error has the code for an invalid system id, the only one
/// that clients know here; the details name what was wrong. `cached` means that no other service was asked.
pub async fn newest_in_system(
    State(state): State<Arc<HttpState>>,
    PathSegment(id): PathSegment,
    pairs: Pairs,
) -> Result<Response, Error> {
    check_format(&pairs).map_err(|message| Error::SystemFormat { message })?;
    let id = parse_positive(&id).ok_or(Error::SystemId)?;
    let window = parse_window(&pairs, "since_hours").map_err(Error::SystemWindow)?;
    let (chosen, _) = find_newest(&state, Dimension::System, id, window.into()).await?;
    respond_enveloped(&state, chosen, &json!({ "cached": true })).await
}

/// `GET /api/v1/kills/cached/{id}`.
pub async fn cached(
    State(state): State<Arc<HttpState>>,
    PathSegment(id): PathSegment,
    pairs: Pairs,
) -> Result<Response, Error> {
    check_format(&pairs).map_err(|message| Error::SystemFormat { message })?;
    let id = parse_positive(&id).ok_or(Error::SystemId)?;
    let all = Range { since: None, limit: state.config.cached_max };
    let (chosen, truncated) = find_newest(&state, Dimension::System, id, all).await?;
    respond_enveloped(&state, chosen, &json!({ "cached": true, "truncated": truncated })).await
}

/// `GET /api/v1/kills/count/{id}`: the number of the last 24 hours.
pub async fn count(
    State(state): State<Arc<HttpState>>,
    PathSegment(id): PathSegment,
    pairs: Pairs,
) -> Result<Json, Error> {
    check_format(&pairs).map_err(|message| Error::SystemFormat { message })?;
    let id = parse_positive(&id).ok_or(Error::SystemId)?;
    let system = u32::try_from(id).ok();
    let count = system.map_or(0, |system| state.store.count_in_system(system, hours_ago(HOURS)));
    Ok(Json::data(
        &json!({ "system_id": id, "count": count, "window_hours": HOURS, "timestamp": time::iso_micros_now() }),
    ))
}

/// `POST /api/v1/kills/systems`.
pub async fn newest_in_systems(
    State(state): State<Arc<HttpState>>,
    pairs: Pairs,
    body: JsonObject,
) -> Result<Response, Error> {
    check_format(&pairs).map_err(|message| Error::parameter("format", message))?;
    let request = read_systems_request(&state, body, "since_hours", "limit").await?;
    let now = time::iso_micros_now();
    let mut listing = Listing::new(&state.feed, &state.store);
    write_lists_by_system(listing.text(r#"{"data":{"systems_kills":"#), request);
    listing.text(format!(r#","timestamp":"{now}"}},"timestamp":"{now}"}}"#)).respond().await
}

/// `POST /api/v1/systems/bulk/killmails`.
pub async fn bulk(
    State(state): State<Arc<HttpState>>,
    pairs: Pairs,
    body: JsonObject,
) -> Result<Response, Error> {
    check_format(&pairs).map_err(|message| Error::parameter("format", message))?;
    let request = read_systems_request(&state, body, "hours", "limit_per_system").await?;
    let mut listing = Listing::new(&state.feed, &state.store);
    write_lists_by_system(listing.text(r#"{"systems":"#), request);
    listing.text("}").respond().await
}

/// `GET /api/v1/systems/{id}/killmails`.
pub async fn system_killmails(
    State(state): State<Arc<HttpState>>,
    PathSegment(id): PathSegment,
    pairs: Pairs,
) -> Result<Response, Error> {
    check_format(&pairs).map_err(|message| Error::SystemFormat { message })?;
    let id = parse_positive(&id).ok_or(Error::SystemId)?;
    let window = parse_window(&pairs, "hours").map_err(Error::SystemWindow)?;
    let (chosen, _) = find_newest(&state, Dimension::System, id, window.into()).await?;
    Listing::new(&state.feed, &state.store).text(r#"{"kills":"#).killmails(chosen).text("}").respond().await
}

/// `GET /api/v1/characters/{id}/killmails`.
pub async fn character_killmails(
    State(state): State<Arc<HttpState>>,
    PathSegment(id): PathSegment,
    pairs: Pairs,
) -> Result<Response, Error> {
    check_format(&pairs).map_err(|message| Error::parameter("format", message))?;
    let id = parse_positive(&id).ok_or_else(|| Error::parameter("id", "not a character id"))?;
    let window = parse_window(&pairs, "hours").map_err(Error::Window)?;
    let (chosen, _) = find_newest(&state, Dimension::Character, id, window.into()).await?;
    Listing::new(&state.feed, &state.store).text(r#"{"kills":"#).killmails(chosen).text("}").respond().await
}

/// `GET /api/systems/{id}/kills`.
pub async fn system_kills(
    State(state): State<Arc<HttpState>>,
    PathSegment(id): PathSegment,
    pairs: Pairs,
) -> Result<Response, Error> {
    check_format(&pairs).map_err(|message| Error::SystemFormat { message })?;
    let id = parse_positive(&id).ok_or(Error::SystemId)?;
    let window = parse_window(&pairs, "since_hours").map_err(Error::SystemWindow)?;
    let (chosen, _) = find_newest(&state, Dimension::System, id, window.into()).await?;
    Listing::new(&state.feed, &state.store).killmails(chosen).respond().await
}

/// Checks the `format` parameter.
pub fn check_format(pairs: &Pairs) -> Result<(), String> {
    pairs.get("format").map_or(Ok(()), |format| query::check_format(format).map_err(|error| error.message))
}

/// `{"kills":[..],"timestamp":"..", ..}` in the `data` envelope.
async fn respond_enveloped(state: &HttpState, chosen: Vec<Chosen>, more: &Value) -> Result<Response, Error> {
    let (now, more) = (time::iso_micros_now(), more.to_string());
    let rest = format!(r#","timestamp":"{now}",{},"timestamp":"{now}"}}"#, more.trim_start_matches('{'));
    let mut listing = Listing::new(&state.feed, &state.store);
    listing.text(r#"{"data":{"kills":"#).killmails(chosen).text(rest).respond().await
}

/// Which of the newest killmails are wanted.
#[derive(Debug, Clone, Copy)]
struct Range {
    /// Unix seconds; `None`: of any age.
    since: Option<i64>,
    limit: usize,
}

/// The two parameters of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    hours: u64,
    limit: usize,
}

impl From<Window> for Range {
    fn from(Window { hours, limit }: Window) -> Self {
        Self { since: Some(hours_ago(hours)), limit }
    }
}

/// The newest killmails of an id, and whether there are more. An id over 32 bits is valid, and has none.
async fn find_newest(
    state: &HttpState,
    dimension: Dimension,
    id: u64,
    Range { since, limit }: Range,
) -> Result<(Vec<Chosen>, bool), Error> {
    let Ok(id) = u32::try_from(id) else { return Ok((Vec::new(), false)) };
    let latest = Latest { term: Term { dimension, id }, since, limit };
    state.feed.latest(latest).await.map_err(Error::history)
}

/// The members of a body that asks for several systems.
const KNOWN: KnownNames = &[&["system_ids", "since_hours", "limit", "hours", "limit_per_system", "format"]];

/// A body that asks for several systems.
struct SystemsRequest {
    /// Any integers; not all of them have to be systems.
    system_ids: Vec<i128>,
    /// For each system.
    range: Range,
}

async fn read_systems_request(
    state: &HttpState,
    body: JsonObject,
    hours: &'static str,
    limit: &'static str,
) -> Result<SystemsRequest, Error> {
    let max = state.config.systems_max;
    body.read(KNOWN, move |parameters| {
        if let Some(format) = parameters.text("format").map_err(Error::history_parameter)? {
            query::check_format(format).map_err(Error::history_parameter)?;
        }
        let system_ids = parse_system_ids(parameters, max)?;
        let hours = parse_number(parameters, hours, HOURS, u64::MAX)?;
        let limit = parse_number(parameters, limit, LIMIT as u64, LIMIT_MAX)?;
        let window = Window { hours, limit: usize::try_from(limit).unwrap_or(LIMIT) };
        Ok(SystemsRequest { system_ids, range: window.into() })
    })
    .await
}

/// Writes a JSON object with a list for each requested system. A number that is not a system has an empty
/// list.
fn write_lists_by_system(listing: &mut Listing, SystemsRequest { system_ids, range }: SystemsRequest) {
    let Range { since, limit } = range;
    for (at, id) in system_ids.into_iter().enumerate() {
        listing.text(format!("{}\"{id}\":", if at == 0 { "{" } else { "," }));
        match u32::try_from(id) {
            Ok(id) if id > 0 => {
                listing.latest(Latest { term: Term { dimension: Dimension::System, id }, since, limit })
            }
            _ => listing.text("[]"),
        };
    }
    listing.text("}");
}

/// The distinct requested systems in the order of the request: integers of any size, not checked to be
/// systems.
fn parse_system_ids(parameters: &Parameters<'_>, max: usize) -> Result<Vec<i128>, Error> {
    let (mut seen, mut ids, mut usable) = (HashSet::new(), Vec::new(), true);
    let is_list = parameters.elements("system_ids", |value| match integer(value) {
        _ if !usable || ids.len() > max => {}
        Some(id) if seen.insert(id) => ids.push(id),
        Some(_) => {}
        None => usable = false,
    });
    if !is_list || !usable || ids.is_empty() {
        return Err(Error::SystemIds);
    }
    if ids.len() > max {
        let message = format!("Too many system_ids specified (max {max})");
        return Err(Error::Parameter { field: "system_ids".to_owned(), message, limit: Some(max as u64) });
    }
    Ok(ids)
}

fn parse_number(
    parameters: &Parameters<'_>,
    name: &'static str,
    default: u64,
    max: u64,
) -> Result<u64, Error> {
    let number = match (parameters.raw_text(name), parameters.raw_json(name)) {
        (Some(digits), _) => parse_positive(digits),
        (None, Some(value)) => positive_json(value),
        (None, None) => return Ok(default),
    };
    check_range(name, number, max).map_err(Error::Window)
}

fn parse_window(pairs: &Pairs, hours: &'static str) -> Result<Window, OutOfRange> {
    let number = |name: &'static str, default: u64, max: u64| match pairs.get(name) {
        None => Ok(default),
        Some(text) => check_range(name, parse_positive(text), max),
    };
    let (hours, limit) = (number(hours, HOURS, u64::MAX)?, number("limit", LIMIT as u64, LIMIT_MAX)?);
    Ok(Window { hours, limit: usize::try_from(limit).unwrap_or(LIMIT) })
}

fn check_range(field: &'static str, number: Option<u64>, max: u64) -> Result<u64, OutOfRange> {
    number.filter(|number| *number <= max).ok_or(OutOfRange { field, limit: (max < u64::MAX).then_some(max) })
}

/// The time `hours` ago, unix seconds. Saturates.
fn hours_ago(hours: u64) -> i64 {
    let seconds = i64::try_from(hours).unwrap_or(i64::MAX).saturating_mul(3600);
    now_secs().saturating_sub(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_hours_is_a_time() {
        assert!(hours_ago(u64::MAX) < 0);
        assert!((now_secs() - hours_ago(24) - 86_400).abs() <= 1);
    }

    #[test]
    fn windows_are_checked() {
        let pairs = |text: &str| Pairs::from_uri(&format!("/x?{text}").parse().unwrap()).unwrap();
        assert_eq!(parse_window(&pairs(""), "hours"), Ok(Window { hours: 24, limit: 50 }));
        let largest = parse_window(&pairs("hours=99999999999999999999&limit=1000"), "hours");
        assert_eq!(largest, Ok(Window { hours: u64::MAX, limit: 1000 }));
        for wrong in ["limit=0", "limit=1001", "limit=x"] {
            assert_eq!(
                parse_window(&pairs(wrong), "hours"),
                Err(OutOfRange { field: "limit", limit: Some(1000) }),
                "{wrong}"
            );
        }
        for wrong in ["hours=0", "hours=x", "hours="] {
            assert_eq!(
                parse_window(&pairs(wrong), "hours"),
                Err(OutOfRange { field: "hours", limit: None }),
                "{wrong}"
            );
        }
    }

    #[test]
    fn lists_of_systems_are_checked() {
        let read = |list: &str| {
            let body = format!("{{\"system_ids\":{list}}}");
            parse_system_ids(&Parameters::from_object(body.as_bytes(), KNOWN).unwrap(), 3)
        };
        let ids = |value: Value| read(&value.to_string());
        assert_eq!(ids(json!([5, 5, -1, 7])), Ok(vec![5, -1, 7]));
        assert_eq!(read("[18446744073709551616,9223372036854775808]"), Ok(vec![1 << 64, 1 << 63]));
        for wrong in [json!([]), json!(["x"]), json!([1.5]), json!("1,2"), Value::Null] {
            assert_eq!(ids(wrong), Err(Error::SystemIds));
        }
        assert!(matches!(ids(json!([1, 2, 3, 4])), Err(Error::Parameter { limit: Some(3), .. })));
    }
}
