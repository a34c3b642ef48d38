//! The kills API of the older service, answered from our store, and the paths its clients call beside it.
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
use crate::http::request::parameters::{Object, Pairs, Segment, integer, positive, positive_json};
use crate::http::state::HttpState;
use crate::wire::query::parameters::{KnownNames, Parameters};
use crate::wire::{query, time};

/// Killmails answered where nobody says how many.
const LIMIT: usize = 50;
/// Killmails answered at most.
const LIMIT_MAX: u64 = 1000;
/// Hours looked back where nobody says how many.
const HOURS: u64 = 24;

/// `GET /api/v1/kills/system/{id}`. Whatever is wrong, it is the system id that is said to be: clients know
/// no other code here. The details say what it really was. `cached` says that nobody else was asked.
pub async fn system(
    State(door): State<Arc<HttpState>>,
    Segment(id): Segment,
    pairs: Pairs,
) -> Result<Response, Error> {
    check_format(&pairs).map_err(|message| Error::SystemFormat { message })?;
    let id = positive(&id).ok_or(Error::SystemId)?;
    let (hours, limit) = window(&pairs, "since_hours").map_err(Error::SystemWindow)?;
    let (chosen, _) = newest(&door, Dimension::System, id, Some(hours), limit).await?;
    enveloped(&door, chosen, &json!({ "cached": true })).await
}

/// `GET /api/v1/kills/cached/{id}`.
pub async fn cached(
    State(door): State<Arc<HttpState>>,
    Segment(id): Segment,
    pairs: Pairs,
) -> Result<Response, Error> {
    check_format(&pairs).map_err(|message| Error::SystemFormat { message })?;
    let id = positive(&id).ok_or(Error::SystemId)?;
    let (chosen, truncated) = newest(&door, Dimension::System, id, None, door.config.cached_max).await?;
    enveloped(&door, chosen, &json!({ "cached": true, "truncated": truncated })).await
}

/// `GET /api/v1/kills/count/{id}`: of the last 24 hours.
pub async fn count(
    State(door): State<Arc<HttpState>>,
    Segment(id): Segment,
    pairs: Pairs,
) -> Result<Json, Error> {
    check_format(&pairs).map_err(|message| Error::SystemFormat { message })?;
    let id = positive(&id).ok_or(Error::SystemId)?;
    let system = u32::try_from(id).ok();
    let count = system.map_or(0, |system| door.feed.store().count_in_system(system, since(HOURS)));
    Ok(Json::data(
        &json!({ "system_id": id, "count": count, "window_hours": HOURS, "timestamp": time::iso_micros_now() }),
    ))
}

/// `POST /api/v1/kills/systems`.
pub async fn systems(
    State(door): State<Arc<HttpState>>,
    pairs: Pairs,
    body: Object,
) -> Result<Response, Error> {
    check_format(&pairs).map_err(|message| Error::parameter("format", message))?;
    let several = several(&door, body, "since_hours", "limit").await?;
    let now = time::iso_micros_now();
    let mut listing = Listing::new(&door.feed);
    by_system(listing.text(r#"{"data":{"systems_kills":"#), several);
    listing.text(format!(r#","timestamp":"{now}"}},"timestamp":"{now}"}}"#)).answer().await
}

/// `POST /api/v1/systems/bulk/killmails`.
pub async fn bulk(State(door): State<Arc<HttpState>>, pairs: Pairs, body: Object) -> Result<Response, Error> {
    check_format(&pairs).map_err(|message| Error::parameter("format", message))?;
    let several = several(&door, body, "hours", "limit_per_system").await?;
    let mut listing = Listing::new(&door.feed);
    by_system(listing.text(r#"{"systems":"#), several);
    listing.text("}").answer().await
}

/// `GET /api/v1/systems/{id}/killmails`.
pub async fn of_system(
    State(door): State<Arc<HttpState>>,
    Segment(id): Segment,
    pairs: Pairs,
) -> Result<Response, Error> {
    check_format(&pairs).map_err(|message| Error::SystemFormat { message })?;
    let id = positive(&id).ok_or(Error::SystemId)?;
    let (hours, limit) = window(&pairs, "hours").map_err(Error::SystemWindow)?;
    let (chosen, _) = newest(&door, Dimension::System, id, Some(hours), limit).await?;
    Listing::new(&door.feed).text(r#"{"kills":"#).killmails(chosen).text("}").answer().await
}

/// `GET /api/v1/characters/{id}/killmails`.
pub async fn of_character(
    State(door): State<Arc<HttpState>>,
    Segment(id): Segment,
    pairs: Pairs,
) -> Result<Response, Error> {
    check_format(&pairs).map_err(|message| Error::parameter("format", message))?;
    let id = positive(&id).ok_or_else(|| Error::parameter("id", "not a character id"))?;
    let (hours, limit) = window(&pairs, "hours").map_err(Error::Window)?;
    let (chosen, _) = newest(&door, Dimension::Character, id, Some(hours), limit).await?;
    Listing::new(&door.feed).text(r#"{"kills":"#).killmails(chosen).text("}").answer().await
}

/// `GET /api/systems/{id}/kills`.
pub async fn list_of_system(
    State(door): State<Arc<HttpState>>,
    Segment(id): Segment,
    pairs: Pairs,
) -> Result<Response, Error> {
    check_format(&pairs).map_err(|message| Error::SystemFormat { message })?;
    let id = positive(&id).ok_or(Error::SystemId)?;
    let (hours, limit) = window(&pairs, "since_hours").map_err(Error::SystemWindow)?;
    let (chosen, _) = newest(&door, Dimension::System, id, Some(hours), limit).await?;
    Listing::new(&door.feed).killmails(chosen).answer().await
}

/// The form in which killmails are asked for is one there is.
pub fn check_format(pairs: &Pairs) -> Result<(), String> {
    pairs.get("format").map_or(Ok(()), |asked| query::check_format(asked).map_err(|error| error.message))
}

/// `{"kills":[..],"timestamp":"..", ..}` in the success envelope.
async fn enveloped(door: &HttpState, chosen: Vec<Chosen>, more: &Value) -> Result<Response, Error> {
    let (now, more) = (time::iso_micros_now(), more.to_string());
    let behind = format!(r#","timestamp":"{now}",{},"timestamp":"{now}"}}"#, more.trim_start_matches('{'));
    Listing::new(&door.feed).text(r#"{"data":{"kills":"#).killmails(chosen).text(behind).answer().await
}

/// The newest killmails of an id, and whether there are more. Ids beyond what EVE has are valid and have
/// none.
async fn newest(
    door: &HttpState,
    kind: Dimension,
    id: u64,
    hours: Option<u64>,
    limit: usize,
) -> Result<(Vec<Chosen>, bool), Error> {
    let Ok(id) = u32::try_from(id) else { return Ok((Vec::new(), false)) };
    let latest = Latest { term: Term { kind, id }, since: hours.map(since), limit };
    door.feed.latest(latest).await.map_err(Error::history)
}

/// The members of a body that asks for several systems.
const KNOWN: KnownNames = &[&["system_ids", "since_hours", "limit", "hours", "limit_per_system", "format"]];

/// What a body asks for: the systems, hours back, killmails of each.
type Several = (Vec<i128>, u64, usize);

async fn several(
    door: &HttpState,
    body: Object,
    hours: &'static str,
    limit: &'static str,
) -> Result<Several, Error> {
    let most = door.config.systems_max;
    body.read(KNOWN, move |given| {
        if let Some(asked) = given.text("format").map_err(Error::history_parameter)? {
            query::check_format(asked).map_err(Error::history_parameter)?;
        }
        let (ids, hours) = (system_ids(given, most)?, number(given, hours, HOURS, u64::MAX)?);
        Ok((ids, hours, usize::try_from(number(given, limit, LIMIT as u64, LIMIT_MAX)?).unwrap_or(LIMIT)))
    })
    .await
}

/// A JSON object with a list for each system asked for. A system that cannot be answered has an empty one.
fn by_system(listing: &mut Listing, (ids, hours, limit): Several) {
    let since = Some(since(hours));
    for (at, id) in ids.into_iter().enumerate() {
        listing.text(format!("{}\"{id}\":", if at == 0 { "{" } else { "," }));
        match u32::try_from(id) {
            Ok(id) if id > 0 => {
                listing.sought(Latest { term: Term { kind: Dimension::System, id }, since, limit })
            }
            _ => listing.text("[]"),
        };
    }
    listing.text("}");
}

/// The distinct systems asked for, in the order asked: integers of any size, not checked to be systems.
fn system_ids(given: &Parameters<'_>, most: usize) -> Result<Vec<i128>, Error> {
    let (mut seen, mut ids, mut usable) = (HashSet::new(), Vec::new(), true);
    let is_list = given.elements("system_ids", |value| match integer(value) {
        _ if !usable || ids.len() > most => {}
        Some(id) if seen.insert(id) => ids.push(id),
        Some(_) => {}
        None => usable = false,
    });
    if !is_list || !usable || ids.is_empty() {
        return Err(Error::SystemIds);
    }
    if ids.len() > most {
        let message = format!("Too many system_ids specified (max {most})");
        return Err(Error::Parameter { field: "system_ids".to_owned(), message, limit: Some(most as u64) });
    }
    Ok(ids)
}

fn number(given: &Parameters<'_>, name: &'static str, default: u64, most: u64) -> Result<u64, Error> {
    let said = match (given.raw_text(name), given.raw_json(name)) {
        (Some(digits), _) => positive(digits),
        (None, Some(value)) => positive_json(value),
        (None, None) => return Ok(default),
    };
    within(name, said, most).map_err(Error::Window)
}

/// Hours back and killmails at most.
fn window(pairs: &Pairs, hours: &'static str) -> Result<(u64, usize), OutOfRange> {
    let given = |name: &'static str, default: u64, most: u64| match pairs.get(name) {
        None => Ok(default),
        Some(text) => within(name, positive(text), most),
    };
    let (hours, limit) = (given(hours, HOURS, u64::MAX)?, given("limit", LIMIT as u64, LIMIT_MAX)?);
    Ok((hours, usize::try_from(limit).unwrap_or(LIMIT)))
}

fn within(field: &'static str, number: Option<u64>, most: u64) -> Result<u64, OutOfRange> {
    number
        .filter(|number| *number <= most)
        .ok_or(OutOfRange { field, limit: (most < u64::MAX).then_some(most) })
}

/// The time so many hours ago, unix seconds; the beginning of time if that is longer than time is.
fn since(hours: u64) -> i64 {
    let seconds = i64::try_from(hours).unwrap_or(i64::MAX).saturating_mul(3600);
    now_secs().saturating_sub(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_hours_is_a_time() {
        assert!(since(u64::MAX) < 0);
        assert!((now_secs() - since(24) - 86_400).abs() <= 1);
    }

    #[test]
    fn windows_are_checked() {
        let pairs = |text: &str| Pairs::of(&format!("/x?{text}").parse().unwrap()).unwrap();
        assert_eq!(window(&pairs(""), "hours"), Ok((24, 50)));
        assert_eq!(window(&pairs("hours=99999999999999999999&limit=1000"), "hours"), Ok((u64::MAX, 1000)));
        for wrong in ["limit=0", "limit=1001", "limit=x"] {
            assert_eq!(
                window(&pairs(wrong), "hours"),
                Err(OutOfRange { field: "limit", limit: Some(1000) }),
                "{wrong}"
            );
        }
        for wrong in ["hours=0", "hours=x", "hours="] {
            assert_eq!(
                window(&pairs(wrong), "hours"),
                Err(OutOfRange { field: "hours", limit: None }),
                "{wrong}"
            );
        }
    }

    #[test]
    fn lists_of_systems_are_checked() {
        let read = |list: &str| {
            let body = format!("{{\"system_ids\":{list}}}");
            system_ids(&Parameters::from_object(body.as_bytes(), KNOWN).unwrap(), 3)
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
