//! The routes of plugins: upload, list, look, delete, promote, roll back. Whatever changes something needs the token.
//!
//! Must not know: what is in a component, or how versions are kept.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::feed::manifest::{Standing, Version};
use crate::feed::plugins::{self, Plugin, Plugins, Upload};
use crate::http::Door;
use crate::http::answer::Json;
use crate::http::auth::{May, Plugins as Rights};
use crate::http::error::Error;
use crate::http::intake::{self, Intake};
use crate::http::request::Object;
use crate::plugin::conduct::Resting;
use crate::plugin::error::Refusal;
use crate::plugin::evaluator::Instance;
use crate::store;
use crate::tasks;
use crate::wire::time;

/// Digits of a digest that are written out for people: more than it takes to name a version.
const SHOWN_DIGITS: usize = 12;

/// `GET /api/v1/plugins`.
pub async fn list(State(door): State<Arc<Door>>) -> Json {
    let all: Vec<Value> = door.feed.plugins().list().iter().map(shown).collect();
    Json::data(&json!({ "count": all.len(), "plugins": all }))
}

/// `GET /api/v1/plugins/{name}`: with what its guests did so far.
///
/// # Errors
/// 404: no such plugin.
pub async fn one(State(door): State<Arc<Door>>, Path(name): Path<String>) -> Result<Json, Error> {
    let (plugin, counts) = door.feed.plugins().get(&name).map_err(refused)?;
    let mut value = shown(&plugin);
    value["calls"] = counts.calls.into();
    value["keeps"] = counts.keeps.into();
    value["drops"] = counts.drops.into();
    value["faults"] = json!(counts.faults);
    value["remembered"] = counts.remembered.into();
    value["passed_over"] = counts.passed_over.into();
    value["log_lines_cut"] = counts.log_lines_cut.into();
    value["faults_at_rest"] = counts.at_rest.into();
    let resting = door.feed.plugins().resting(&name).map_err(refused)?;
    value["resting"] = resting.into_iter().map(rest_shown).collect();
    Ok(Json::data(&value))
}

/// `PUT /api/v1/plugins/{name}`: the component is the body, and has a limit of its own.
///
/// # Errors
/// 401, 400 for a parameter or a name, 413, 422 with the reason, 503 at a limit.
pub async fn upload(
    _: May<Rights>,
    State(door): State<Arc<Door>>,
    Path(name): Path<String>,
    Query(asked): Query<HashMap<String, String>>,
    body: Body,
) -> Result<Json, Error> {
    let how = wanted(&asked)?;
    let (max_bytes, setting) = door.feed.plugins().engine().config().upload_max();
    let intake = Intake::new(&door.config, Arc::clone(&door.in_flight)).with_max(max_bytes as u64, setting);
    let bytes = intake::read(body, &intake).await.map_err(|error| match error {
        Error::TooLarge { limit, .. } => Error::PluginTooLarge { max_bytes: limit },
        other => other,
    })?;
    let named = name.clone();
    let uploaded = changed(&door, "plugin-upload", move |plugins| plugins.upload(&name, &bytes, how)).await?;
    let status = if uploaded.new { StatusCode::CREATED } else { StatusCode::OK };
    let mut value = version_shown(&uploaded.version, uploaded.standing);
    if uploaded.standing != Standing::Active {
        let (prefix, _) = uploaded.version.digest.split_at(SHOWN_DIGITS);
        let message = format!(
            "another version of {named} stays active until this one is promoted: \
             POST /api/v1/plugins/{named}/promote {{\"digest\":\"{prefix}\"}}, or `killstream plugin promote {named} {prefix}`"
        );
        value["message"] = message.into();
    }
    value["name"] = named.into();
    Ok(Json::created(status, &value))
}

/// `DELETE /api/v1/plugins/{name}`.
///
/// # Errors
/// 401, 404.
pub async fn delete(_: May<Rights>, State(door): State<Arc<Door>>, Path(name): Path<String>) -> Result<Json, Error> {
    let named = name.clone();
    changed(&door, "plugin-delete", move |plugins| plugins.delete(&name)).await?;
    Ok(Json::data(&json!({ "name": named })))
}

/// `POST /api/v1/plugins/{name}/promote` with `{"digest"}`.
///
/// # Errors
/// 401, 404, 400 for a digest that is no version.
pub async fn promote(_: May<Rights>, State(door): State<Arc<Door>>, Path(name): Path<String>, body: Object) -> Result<Json, Error> {
    let digest = body.read(&[&["digest"]], |given| Ok(given.plain("digest").map(str::to_owned))).await?;
    let digest = digest
        .ok_or_else(|| Error::parameter("digest", "digest must be \"sha256:<hex>\" of a version, or at least its first 8 hex digits"))?;
    let plugin = changed(&door, "plugin-promote", move |plugins| plugins.promote(&name, &digest)).await?;
    Ok(Json::data(&shown(&plugin)))
}

/// `POST /api/v1/plugins/{name}/rollback`.
///
/// # Errors
/// 401, 404, 400 where nothing was before.
pub async fn rollback(_: May<Rights>, State(door): State<Arc<Door>>, Path(name): Path<String>) -> Result<Json, Error> {
    let plugin = changed(&door, "plugin-rollback", move |plugins| plugins.rollback(&name)).await?;
    Ok(Json::data(&shown(&plugin)))
}

/// Changes plugins off the event loop: compilers and disks take their time.
async fn changed<T: Send + 'static>(
    door: &Door,
    name: &'static str,
    change: impl FnOnce(&Plugins) -> Result<T, plugins::Error> + Send + 'static,
) -> Result<T, Error> {
    let plugins = Arc::clone(door.feed.plugins());
    tasks::blocking(name, move || change(&plugins)).await.map_err(Error::failed)?.map_err(refused)
}

fn wanted(asked: &HashMap<String, String>) -> Result<Upload, Error> {
    let mut how = Upload::default();
    for (field, value) in asked {
        match (field.as_str(), value.as_str()) {
            ("promote", "true") => how.promote = true,
            ("promote", "false") => how.promote = false,
            ("instance", "warm") => how.instance = Some(Instance::Warm),
            ("instance", "fresh") => how.instance = Some(Instance::Fresh),
            ("promote", _) => return Err(Error::parameter("promote", "promote must be true or false")),
            ("instance", _) => return Err(Error::parameter("instance", "instance must be warm or fresh")),
            _ => return Err(Error::parameter(field, "unknown parameter")),
        }
    }
    Ok(how)
}

fn shown(plugin: &Plugin) -> Value {
    let mut value = version_shown(&plugin.version, plugin.standing);
    value["name"] = plugin.name.clone().into();
    let versions = plugin.versions.iter().map(|(version, standing)| version_shown(version, *standing));
    value["versions"] = versions.collect();
    value
}

fn version_shown(version: &Version, standing: Standing) -> Value {
    json!({
        "digest": format!("sha256:{}", version.digest),
        "size_bytes": version.size_bytes,
        "uploaded_at": time::iso_seconds(version.uploaded_at),
        "instance": if version.fresh { "fresh" } else { "warm" },
        "state": standing.word(),
    })
}

fn rest_shown(rest: Resting) -> Value {
    json!({
        "config_digest": format!("sha256:{}", rest.config_digest),
        "reason": rest.reason,
        "since": time::iso_seconds(rest.since),
        "until": time::iso_seconds(rest.until),
    })
}

fn refused(error: plugins::Error) -> Error {
    let message = error.to_string();
    match error {
        plugins::Error::Unknown { .. } => Error::Missing { what: "Plugin" },
        plugins::Error::UnknownVersion { .. } | plugins::Error::NothingBefore { .. } => Error::parameter("digest", message),
        plugins::Error::MalformedDigest { .. } | plugins::Error::AmbiguousDigest { .. } => Error::parameter("digest", message),
        plugins::Error::NotActive { .. } => Error::parameter("plugin", message),
        plugins::Error::BadName => Error::parameter("name", message),
        plugins::Error::TooManyNames { max } => Error::Busy { message, limit: max },
        plugins::Error::Refused(Refusal::TooLarge { max, .. }) => Error::PluginTooLarge { max_bytes: max as u64 },
        plugins::Error::Refused(Refusal::TooMany { max } | Refusal::TooManyTrials { max }) => Error::Busy { message, limit: max as u64 },
        plugins::Error::Refused(refusal) => Error::InvalidPlugin { reason: refusal.reason().to_owned(), message: refusal.to_string() },
        plugins::Error::Store(store::error::Error::NoSpace { min, .. }) => Error::Busy { message, limit: min },
        plugins::Error::Store(_) | plugins::Error::Record { .. } | plugins::Error::Lost(_) => Error::failed(message),
    }
}

#[cfg(test)]
#[path = "plugins_tests.rs"]
mod tests;
