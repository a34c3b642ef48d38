//! The routes of tokens: give one out with scopes, list, revoke. A token is shown once, when it is made; what
//! is kept is its digest.
//!
//! Must not know: what the scopes are asked for.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock::now_secs;
use crate::domain::hex::hex;
use crate::http::answer::error::Error;
use crate::http::answer::success::Json;
use crate::http::request::api_tokens::{Given, Scope, Token};
use crate::http::request::auth::Admin;
use crate::http::request::parameters::Object;
use crate::http::state::HttpState;
use crate::store::Store;
use crate::tasks;
use crate::wire::query::parameters::{self, KnownNames};
use crate::wire::read::json;
use crate::wire::time;

/// Tokens given out at a time: each is compared with what a caller sends.
const TOKENS_MAX: usize = 100;
const NAME_LEN_MAX: usize = 63;
const RANDOM_BYTES: usize = 32;
/// The members of a body.
const KNOWN: KnownNames = &[&["name", "scopes"]];

/// A token as the file keeps it. Law 4 (old bytes speak): a field is added with a default, never renamed or
/// taken away.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    name: String,
    sha256: String,
    scopes: Vec<Scope>,
    created_at: i64,
}

/// Those given out, as the store keeps them; what cannot be understood is said in the log and lets nobody in.
#[must_use]
pub fn load(store: &Store) -> Vec<Given> {
    let given = |kept: Kept| {
        let token = Token::of_digest(&kept.sha256)?;
        Some(Given { name: kept.name, token, scopes: kept.scopes, created_at: kept.created_at })
    };
    match store.tokens().map(|bytes| bytes.map(|bytes| serde_json::from_slice::<Vec<Kept>>(&bytes))) {
        Ok(None) => Vec::new(),
        Ok(Some(Ok(kept))) => kept.into_iter().filter_map(given).collect(),
        Ok(Some(Err(error))) => {
            tracing::error!("the list of tokens cannot be understood, none of them is valid: {error}");
            Vec::new()
        }
        Err(error) => {
            tracing::error!("the list of tokens cannot be read, none of them is valid: {error}");
            Vec::new()
        }
    }
}

/// `GET /api/v1/tokens`.
///
/// # Errors
/// 401, 403.
pub async fn list(_: Admin, State(door): State<Arc<HttpState>>) -> Json {
    let all: Vec<Value> = door.keys.given().iter().map(shown).collect();
    Json::data(&json!({ "count": all.len(), "tokens": all }))
}

/// `POST /api/v1/tokens` with `{"name", "scopes"}`.
///
/// # Errors
/// 401, 403; 400 for a name or a scope; 503 at the limit or without disk space.
pub async fn create(_: Admin, State(door): State<Arc<HttpState>>, body: Object) -> Result<Json, Error> {
    let (name, scopes) = body.read(KNOWN, |given| Ok((name(given)?, scopes(given)?))).await?;
    let secret = secret()?;
    let one = Given { name, token: Token::new(&secret), scopes, created_at: now_secs() };
    let mut value = shown(&one);
    value["token"] = secret.into();
    changed(door, move |given| {
        if given.iter().any(|other| other.name == one.name) {
            return Err(Error::parameter(
                "name",
                format!("there is a token named {:?}; revoke it first", one.name),
            ));
        }
        if given.len() >= TOKENS_MAX {
            return Err(Error::Busy {
                message: format!("there are {TOKENS_MAX} tokens, the most there may be"),
                limit: TOKENS_MAX as u64,
            });
        }
        given.push(one);
        Ok(())
    })
    .await?;
    Ok(Json::created(StatusCode::CREATED, &value))
}

/// `DELETE /api/v1/tokens/{name}`.
///
/// # Errors
/// 401, 403, 404.
pub async fn revoke(
    _: Admin,
    State(door): State<Arc<HttpState>>,
    Path(name): Path<String>,
) -> Result<Json, Error> {
    let named = name.clone();
    changed(door, move |given| {
        let at = given.iter().position(|one| one.name == name).ok_or(Error::Missing { what: "Token" })?;
        given.remove(at);
        Ok(())
    })
    .await?;
    Ok(Json::data(&json!({ "name": named })))
}

/// Changes the list, first on disk. One at a time.
async fn changed(
    door: Arc<HttpState>,
    change: impl FnOnce(&mut Vec<Given>) -> Result<(), Error> + Send + 'static,
) -> Result<(), Error> {
    let work = move || {
        let _changing = door.keys.changing();
        let mut given = door.keys.given();
        change(&mut given)?;
        let kept: Vec<Kept> = given
            .iter()
            .map(|one| Kept {
                name: one.name.clone(),
                sha256: one.token.digest(),
                scopes: one.scopes.clone(),
                created_at: one.created_at,
            })
            .collect();
        let bytes = serde_json::to_vec(&kept).map_err(Error::failed)?;
        door.feed.store().put_tokens(&bytes).map_err(Error::failed)?;
        door.keys.replace(given);
        Ok(())
    };
    tasks::blocking("tokens", work).await.map_err(Error::failed)?
}

fn shown(given: &Given) -> Value {
    json!({ "name": given.name, "scopes": given.scopes, "created_at": time::iso_seconds(given.created_at) })
}

fn name(given: &parameters::Parameters<'_>) -> Result<String, Error> {
    let name = given.raw_text("name").unwrap_or_default();
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=NAME_LEN_MAX).contains(&name.len()) && name.bytes().all(good) {
        return Ok(name.to_owned());
    }
    Err(Error::parameter(
        "name",
        format!("name must be 1 to {NAME_LEN_MAX} letters, digits, dashes, dots and underscores"),
    ))
}

fn scopes(given: &parameters::Parameters<'_>) -> Result<Vec<Scope>, Error> {
    let (mut scopes, mut usable) = (Vec::new(), true);
    let is_list = given.elements("scopes", |word| match json::text(word).as_deref().and_then(Scope::of) {
        Some(scope) if !scopes.contains(&scope) => scopes.push(scope),
        Some(_) => {}
        None => usable = false,
    });
    if is_list && usable && !scopes.is_empty() {
        return Ok(scopes);
    }
    let words = Scope::ALL.map(Scope::word).join(", ");
    Err(Error::parameter("scopes", format!("scopes must be a list of at least one of {words}")))
}

fn secret() -> Result<String, Error> {
    let mut random = [0; RANDOM_BYTES];
    getrandom::fill(&mut random).map_err(Error::failed)?;
    Ok(hex(&random))
}
