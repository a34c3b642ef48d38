//! The routes of tokens: create one with scopes, list them, revoke one. A token is shown once, when it is
//! created; only its digest is kept.
//!
//! Must not know: which route needs which scope.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock::now_secs;
use crate::domain::hex::hex;
use crate::http::answer::error::Error;
use crate::http::answer::success::Json;
use crate::http::request::api_tokens::{ApiToken, Scope, Token};
use crate::http::request::auth::Admin;
use crate::http::request::parameters::JsonObject;
use crate::http::state::HttpState;
use crate::store::Store;
use crate::tasks;
use crate::wire::query::parameters::{KnownNames, Parameters};
use crate::wire::read::json;
use crate::wire::time;

/// The most tokens: each request is compared with all of them.
const TOKENS_MAX: usize = 100;
const NAME_LEN_MAX: usize = 63;
const RANDOM_BYTES: usize = 32;
/// The members of a body.
const KNOWN: KnownNames = &[&["name", "scopes"]];

/// A token as it is stored. Law 4 (old bytes speak): a field is added with a default, never renamed or
/// removed.
#[derive(Debug, Serialize, Deserialize)]
struct StoredToken {
    name: String,
    sha256: String,
    scopes: Vec<Scope>,
    created_at: i64,
}

/// Reads the tokens in the store. A list that cannot be read is logged, and no token of it is valid.
#[must_use]
pub fn load(store: &Store) -> Vec<ApiToken> {
    let valid = |stored: StoredToken| {
        let token = Token::from_digest(&stored.sha256)?;
        Some(ApiToken { name: stored.name, token, scopes: stored.scopes, created_at: stored.created_at })
    };
    match store.tokens().map(|bytes| bytes.map(|bytes| serde_json::from_slice::<Vec<StoredToken>>(&bytes))) {
        Ok(None) => Vec::new(),
        Ok(Some(Ok(stored))) => stored.into_iter().filter_map(valid).collect(),
        Ok(Some(Err(error))) => {
            tracing::error!("the list of tokens is malformed, so none of them is valid: {error}");
            Vec::new()
        }
        Err(error) => {
            tracing::error!("the list of tokens cannot be read, so none of them is valid: {error}");
            Vec::new()
        }
    }
}

/// `GET /api/v1/tokens`.
///
/// # Errors
/// 401, 403.
pub async fn list(_: Admin, State(state): State<Arc<HttpState>>) -> Json {
    let all: Vec<Value> = state.tokens.list().iter().map(token_json).collect();
    Json::data(&json!({ "count": all.len(), "tokens": all }))
}

/// `POST /api/v1/tokens` with `{"name", "scopes"}`.
///
/// # Errors
/// 401, 403; 400 for a name or a scope; 503 at the limit or without disk space.
pub async fn create(_: Admin, State(state): State<Arc<HttpState>>, body: JsonObject) -> Result<Json, Error> {
    let (name, scopes) =
        body.read(KNOWN, |parameters| Ok((parse_name(parameters)?, parse_scopes(parameters)?))).await?;
    let secret = new_secret()?;
    let created = ApiToken { name, token: Token::new(&secret), scopes, created_at: now_secs() };
    let mut value = token_json(&created);
    value["token"] = secret.into();
    change_tokens(state, move |tokens| {
        if tokens.iter().any(|other| other.name == created.name) {
            return Err(Error::parameter(
                "name",
                format!("a token named {:?} already exists; revoke it first", created.name),
            ));
        }
        if tokens.len() >= TOKENS_MAX {
            return Err(Error::Busy {
                message: format!("there are already {TOKENS_MAX} tokens, which is the limit"),
                limit: TOKENS_MAX as u64,
            });
        }
        tokens.push(created);
        Ok(())
    })
    .await?;
    Ok(Json::data_with_status(StatusCode::CREATED, &value))
}

/// `DELETE /api/v1/tokens/{name}`.
///
/// # Errors
/// 401, 403, 404.
pub async fn revoke(
    _: Admin,
    State(state): State<Arc<HttpState>>,
    Path(name): Path<String>,
) -> Result<Json, Error> {
    let named = name.clone();
    change_tokens(state, move |tokens| {
        let at =
            tokens.iter().position(|token| token.name == name).ok_or(Error::NotFound { what: "Token" })?;
        tokens.remove(at);
        Ok(())
    })
    .await?;
    Ok(Json::data(&json!({ "name": named })))
}

/// Changes the list, on disk first; one change at a time.
async fn change_tokens(
    state: Arc<HttpState>,
    change: impl FnOnce(&mut Vec<ApiToken>) -> Result<(), Error> + Send + 'static,
) -> Result<(), Error> {
    let work = move || {
        let _guard = state.tokens.lock_changes();
        let mut tokens = state.tokens.list();
        change(&mut tokens)?;
        let stored: Vec<StoredToken> = tokens
            .iter()
            .map(|token| StoredToken {
                name: token.name.clone(),
                sha256: token.token.digest(),
                scopes: token.scopes.clone(),
                created_at: token.created_at,
            })
            .collect();
        let bytes = serde_json::to_vec(&stored).map_err(Error::failed)?;
        state.store.put_tokens(&bytes).map_err(Error::failed)?;
        state.tokens.replace(tokens);
        Ok(())
    };
    tasks::blocking("tokens", work).await.map_err(Error::failed)?
}

fn token_json(token: &ApiToken) -> Value {
    json!({ "name": token.name, "scopes": token.scopes, "created_at": time::iso_seconds(token.created_at) })
}

fn parse_name(parameters: &Parameters<'_>) -> Result<String, Error> {
    let name = parameters.raw_text("name").unwrap_or_default();
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=NAME_LEN_MAX).contains(&name.len()) && name.bytes().all(is_allowed) {
        return Ok(name.to_owned());
    }
    Err(Error::parameter(
        "name",
        format!("name must be 1 to {NAME_LEN_MAX} letters, digits, dashes, dots and underscores"),
    ))
}

fn parse_scopes(parameters: &Parameters<'_>) -> Result<Vec<Scope>, Error> {
    let (mut scopes, mut usable) = (Vec::new(), true);
    let is_list =
        parameters.elements("scopes", |word| match json::text(word).as_deref().and_then(Scope::from_word) {
            Some(scope) if !scopes.contains(&scope) => scopes.push(scope),
            Some(_) => {}
            None => usable = false,
        });
    if is_list && usable && !scopes.is_empty() {
        return Ok(scopes);
    }
    let words = Scope::ALL.map(Scope::word).join(", ");
    Err(Error::parameter("scopes", format!("scopes must be a list of one or more of {words}")))
}

fn new_secret() -> Result<String, Error> {
    let mut random = [0; RANDOM_BYTES];
    getrandom::fill(&mut random).map_err(Error::failed)?;
    Ok(hex(&random))
}
