//! The routes of webhooks. Creating one and removing one needs no token, as in WandererKills, unless the settings
//! say so; everything else needs the subscription's own secret as the token, or one of the scope `subscriptions`.
//!
//! Must not know: how killmails are delivered.

use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde_json::{Map, Value, json};

use crate::domain::id::Seq;
use crate::domain::subscription::Subscription;
use crate::http::answer::error::Error;
use crate::http::answer::success::{Json, JsonWriter};
use crate::http::request::address;
use crate::http::request::api_tokens::{Scope, Token, bearer_token};
use crate::http::request::parameters::{PathSegment, RawBody};
use crate::http::state::HttpState;
use crate::tasks;
use crate::webhook::hook::Hook;
use crate::webhook::record::{Status, StoredAttempt};
use crate::webhook::webhooks::{Creator, Webhooks};
use crate::wire::query::filter_echo::FilterEcho;
use crate::wire::text;
use crate::wire::time::iso_micros;

type SharedState = State<Arc<HttpState>>;

/// `POST /api/v1/subscriptions`.
///
/// # Errors
/// 400, 401 if a token is required, 503 at a limit.
pub async fn create(State(state): SharedState, parts: Parts, RawBody(body): RawBody) -> Result<Json, Error> {
    let authorized = state.tokens.authorize(&parts, Scope::Subscriptions);
    if state.webhooks.config().require_token {
        authorized.clone()?;
    }
    let address = address::client_address(&parts, &state.config.trusted_proxies);
    let creator = Creator { address, trusted: authorized.is_ok() };
    let members = read_members(body).await?;
    let (hook, secret) = state.webhooks.create(members, creator).await?;
    let data = json!({
        "subscription_id": hook.id(),
        "message": "Subscription created successfully",
        "secret": secret.text(),
    });
    let mut out = JsonWriter::default();
    out.push(text::json(&json!({ "data": data, "subscription_id": hook.id() })));
    Ok(Json(StatusCode::CREATED, out.finish()))
}

/// `GET /api/v1/subscriptions/{id}`.
///
/// # Errors
/// 404.
pub async fn show(
    State(state): SharedState,
    PathSegment(id): PathSegment,
    parts: Parts,
) -> Result<Json, Error> {
    let hook = state.webhooks.get(&id)?;
    let trusted = check_owner(&state, &parts, &hook).is_ok();
    Ok(Json::data(&webhook_json(&state, &hook, trusted)))
}

/// `PATCH /api/v1/subscriptions/{id}`: the members given replace those there are, `null` removes one.
///
/// # Errors
/// 400, 401, 404.
pub async fn change(
    State(state): SharedState,
    Owned(hook): Owned,
    RawBody(body): RawBody,
) -> Result<Json, Error> {
    let members = read_members(body).await?;
    state.webhooks.change(&hook, members).await?;
    Ok(Json::data(&webhook_json(&state, &hook, true)))
}

/// `DELETE /api/v1/subscriptions/{x}`: the subscription of this id, or else all of this subscriber; 200 even if there
/// is none.
///
/// # Errors
/// 401 if a token is required; 500.
pub async fn remove(
    State(state): SharedState,
    PathSegment(name): PathSegment,
    parts: Parts,
) -> Result<Json, Error> {
    if state.webhooks.config().require_token {
        state.tokens.authorize(&parts, Scope::Subscriptions)?;
    }
    state.webhooks.remove(&name).await?;
    let data = json!({ "message": "Successfully unsubscribed", "subscriber_id": name });
    Ok(Json::bare(&json!({ "data": data })))
}

/// The same for a subscriber named `stats`.
///
/// # Errors
/// As [`remove`].
pub async fn remove_stats(state: SharedState, parts: Parts) -> Result<Json, Error> {
    remove(state, PathSegment("stats".to_owned()), parts).await
}

/// `POST .../pause`.
///
/// # Errors
/// 401, 404.
pub async fn pause(State(state): SharedState, Owned(hook): Owned) -> Result<Json, Error> {
    state.webhooks.pause(&hook).await?;
    Ok(Json::data(&webhook_json(&state, &hook, true)))
}

/// `POST .../resume`.
///
/// # Errors
/// 401, 404.
pub async fn resume(State(state): SharedState, Owned(hook): Owned) -> Result<Json, Error> {
    state.webhooks.resume(&hook).await?;
    Ok(Json::data(&webhook_json(&state, &hook, true)))
}

/// `POST .../test`: sends one killmail flagged as a test, and answers when it was attempted.
///
/// # Errors
/// 401, 404.
pub async fn test(State(state): SharedState, Owned(hook): Owned) -> Result<Json, Error> {
    state.webhooks.test(&hook).await?;
    Ok(Json::data(&webhook_json(&state, &hook, true)))
}

/// `POST .../redeliver` with `{"from": "<event id>"}`.
///
/// # Errors
/// 400, 401, 404.
pub async fn redeliver(
    State(state): SharedState,
    Owned(hook): Owned,
    RawBody(body): RawBody,
) -> Result<Json, Error> {
    let members = read_members(body).await?;
    if let Some(name) = members.keys().find(|name| *name != "from") {
        return Err(Error::Subscription { message: format!("Unknown parameter: {name}") });
    }
    let from = members.get("from").and_then(Value::as_str).unwrap_or_default();
    state.webhooks.redeliver_from(&hook, from).await?;
    Ok(Json::data(&webhook_json(&state, &hook, true)))
}

/// `POST .../rotate-secret`: the new secret. The old one signs along for a day.
///
/// # Errors
/// 401, 404.
pub async fn rotate_secret(State(state): SharedState, Owned(hook): Owned) -> Result<Json, Error> {
    let secret = state.webhooks.rotate_secret(&hook).await?;
    Ok(Json::data(&json!({ "subscription_id": hook.id(), "secret": secret.text() })))
}

/// `GET .../attempts`: the last 100, newest first.
///
/// # Errors
/// 401, 404.
pub async fn attempts(State(state): SharedState, Owned(hook): Owned) -> Result<Json, Error> {
    let attempts = state.webhooks.attempts(&hook).await?;
    let attempts: Vec<Value> = attempts.into_iter().map(attempt_json).collect();
    Ok(Json::data(&json!({ "count": attempts.len(), "attempts": attempts })))
}

fn attempt_json(attempt: StoredAttempt) -> Value {
    let StoredAttempt { at_ms, webhook_id, killmail_ids, status, error, duration_ms, .. } = attempt;
    let mut value = json!({
        "at": iso_micros(at_ms),
        "webhook_id": webhook_id,
        "killmail_ids": killmail_ids,
        "status": status,
        "duration_ms": duration_ms,
    });
    if let Some(error) = error {
        value["error"] = error.into();
    }
    value
}

/// The webhook that the path names, which the request may change.
pub struct Owned(Arc<Hook>);

impl FromRequestParts<Arc<HttpState>> for Owned {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<HttpState>) -> Result<Self, Error> {
        let PathSegment(id) = PathSegment::from_request_parts(parts, state).await?;
        let hook = state.webhooks.get(&id)?;
        check_owner(state, parts, &hook)?;
        Ok(Self(hook))
    }
}

/// Checks that the token is a secret of the webhook that signs, or has the scope.
fn check_owner(state: &HttpState, parts: &Parts, hook: &Hook) -> Result<(), Error> {
    let is_secret = bearer_token(&parts.headers).is_some_and(|text| {
        hook.definition().secrets().first().is_some_and(|secret| Token::new(&secret.text()).matches(text))
    });
    if is_secret { Ok(()) } else { state.tokens.authorize(parts, Scope::Subscriptions) }
}

/// The members of a body. Other JSON than an object counts as an empty one, as in WandererKills.
async fn read_members(body: bytes::Bytes) -> Result<Map<String, Value>, Error> {
    let length = body.len();
    let read = move || match serde_json::from_slice::<Value>(body.trim_ascii()) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Ok(Map::new()),
        Err(_) if body.trim_ascii().is_empty() => Ok(Map::new()),
        Err(_) => Err(Error::BadRequest),
    };
    tasks::parse("webhook body", length, read).await.map_err(Error::failed)?
}

/// A webhook with its filter.
fn webhook_json(state: &HttpState, hook: &Hook, trusted: bool) -> Value {
    let mut value = summary_json(&state.webhooks, hook, state.feed.head(), trusted);
    let definition = hook.definition();
    let Subscription { filter, plugin, max_age_secs } = &definition.request.subscription;
    value["filter"] = json!(FilterEcho { filter, plugin: None });
    value["max_age_secs"] = json!(max_age_secs);
    value["on_fault"] = definition.request.on_fault.word().into();
    let plugin_json = |config: &str| serde_json::from_str::<Value>(config).unwrap_or_default();
    value["plugins"] = plugin
        .iter()
        .map(|used| {
            let mut one = json!({ "name": used.name, "config": plugin_json(&used.config) });
            if let Some(version) = &used.version {
                one["version"] = version.clone().into();
            }
            one
        })
        .collect();
    value
}

/// What the list and the page of a webhook have in common.
pub fn summary_json(webhooks: &Webhooks, hook: &Hook, head: Seq, trusted: bool) -> Value {
    let (definition, state) = (hook.definition(), hook.state());
    let word = match state.status {
        Status::Active if webhooks.config().is_failing(state.failures) => "failing",
        Status::Active => "active",
        Status::Paused => "paused",
        Status::Disabled => "disabled",
    };
    let mut value = json!({
        "id": hook.id(),
        "subscriber_id": definition.request.subscriber,
        "type": "webhook",
        "callback_url": trusted.then(|| definition.request.callback.text().to_owned()),
        "format": definition.request.format.word(),
        "state": word,
        "place": state.place.to_string(),
        "behind": head.0.saturating_sub(state.place.place.head().0),
        "delivered": state.delivered,
        "failures": state.failures.count,
        "created_at": iso_micros(definition.stored.created_at_ms),
        "updated_at": iso_micros(definition.stored.updated_at_ms),
    });
    if let Some(reason) = state.reason {
        value["reason"] = reason.into();
    }
    if let Some(status) = state.last_status {
        value["last_status"] = status.into();
    }
    if let Some(at_ms) = state.next_attempt_ms.filter(|_| state.status == Status::Active) {
        value["next_attempt_at"] = iso_micros(at_ms).into();
    }
    value
}
