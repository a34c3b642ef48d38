//! The routes of plugins: upload, list, look, delete, promote, roll back. Whatever changes something needs
//! the token.
//!
//! Must not know: what is in a component, or how versions are kept.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract;
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde_json::{Value, json};

use crate::http::answer::error::Error;
use crate::http::answer::success::Json;
use crate::http::request::api_tokens::Scope;
use crate::http::request::auth::{May, Plugins as Rights};
use crate::http::request::body::{self, Intake};
use crate::http::request::parameters::Object;
use crate::http::state::HttpState;
use crate::plugin::build::protocol::Stage;
use crate::plugin::counters::LastFault;
use crate::plugin::error::Refusal;
use crate::plugin::judging::pair_records::QuarantinedPair;
use crate::plugin::judging::run::Instance;
use crate::plugins::Plugins;
use crate::plugins::components::Readiness;
use crate::plugins::error::PluginsError;
use crate::plugins::manifest::{Version, VersionState};
use crate::plugins::summary::PluginSummary;
use crate::plugins::upload::{UploadOptions, Uploaded};
use crate::plugins::uploads::UploadState;
use crate::wire::time;
use crate::{store, tasks};

/// How long the answer to an upload waits where it is not said.
const WAIT_DEFAULT: Duration = Duration::from_secs(60);
/// The longest it may wait.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// Digits of a digest that are written out for people: more than it takes to name a version.
const SHOWN_DIGITS: usize = 12;

/// `GET /api/v1/plugins`.
pub async fn list(extract::State(door): extract::State<Arc<HttpState>>) -> Json {
    let all: Vec<Value> = door.feed.plugins().list().iter().map(|plugin| shown(&door, plugin)).collect();
    Json::data(&json!({ "count": all.len(), "plugins": all }))
}

/// `GET /api/v1/plugins/{name}`: with what its guests did so far. What a guest said of its last fault is told
/// only to those with the right token: it may quote the configuration of another caller.
///
/// # Errors
/// 404: no such plugin.
pub async fn one(
    extract::State(door): extract::State<Arc<HttpState>>,
    Path(name): Path<String>,
    parts: Parts,
) -> Result<Json, Error> {
    let trusted = door.keys.check(&parts, Scope::Plugins).is_ok();
    let (plugin, counts) = door.feed.plugins().get(&name).map_err(|error| refused(&error))?;
    let mut value = shown(&door, &plugin);
    value["calls"] = counts.calls.into();
    value["keeps"] = counts.keeps.into();
    value["drops"] = counts.drops.into();
    value["faults"] = json!(counts.faults);
    value["remembered"] = counts.remembered.into();
    value["passed_over"] = counts.passed_over.into();
    value["log_lines_cut"] = counts.log_lines_cut.into();
    if let Some(last) = counts.last_fault {
        value["last_fault"] = fault_shown(&last, trusted);
    }
    value["faults_at_rest"] = counts.at_rest.into();
    let resting = door.feed.plugins().resting(&name).map_err(|error| refused(&error))?;
    value["resting_count"] = resting.count.into();
    value["resting"] = resting.listed.into_iter().map(rest_shown).collect();
    Ok(Json::data(&value))
}

/// `GET /api/v1/plugins/{name}/versions`: all of them, the newest first.
///
/// # Errors
/// 404: no such plugin.
pub async fn versions(
    extract::State(door): extract::State<Arc<HttpState>>,
    Path(name): Path<String>,
) -> Result<Json, Error> {
    let (plugin, _) = door.feed.plugins().get(&name).map_err(|error| refused(&error))?;
    let versions: Vec<Value> = plugin
        .versions
        .iter()
        .rev()
        .map(|(version, standing)| version_shown(&door, version, *standing))
        .collect();
    Ok(Json::data(&json!({ "versions": versions })))
}

/// `PUT /api/v1/plugins/{name}`: the component is the body, and has a limit of its own. The answer waits
/// until the component is compiled and tried, at most `wait` seconds.
///
/// # Errors
/// 401, 400 for a parameter or a name, 413, 422 with the reason, 503 at a limit.
pub async fn upload(
    _: May<Rights>,
    extract::State(door): extract::State<Arc<HttpState>>,
    Path(name): Path<String>,
    Query(asked): Query<HashMap<String, String>>,
    body: Body,
) -> Result<Json, Error> {
    let (how, wait) = wanted(&asked)?;
    let (max_bytes, setting) = door.feed.plugins().engine().config().upload_max();
    let intake = Intake::new(&door.config, Arc::clone(&door.in_flight)).with_max(max_bytes as u64, setting);
    // A full disk is better told before the body is sent.
    door.feed.store().check_space().map_err(|error| refused(&error.into()))?;
    let room = door.uploads.reserve(&name, body.size_hint().exact()).map_err(|error| refused(&error))?;
    let file = door.feed.store().upload_file().map_err(|error| refused(&error.into()))?;
    body::save(body, &intake, file.path()).await.map_err(|error| match error {
        Error::TooLarge { limit, setting } => {
            Error::PluginTooLarge { max_bytes: limit, setting: setting.to_owned() }
        }
        other => other,
    })?;
    let mut waiting = door.uploads.start(room, file, how);
    match waiting.wait(wait).await {
        UploadState::InProgress(stage) => {
            Ok(Json::created(StatusCode::ACCEPTED, &stage_shown(&waiting.detach(), stage)))
        }
        UploadState::Accepted(uploaded) => {
            let status = if uploaded.new { StatusCode::CREATED } else { StatusCode::OK };
            Ok(Json::created(status, &accepted(&door, &name, &uploaded)))
        }
        UploadState::Refused(error) => Err(refused(&error)),
    }
}

/// `GET /api/v1/plugins/uploads/{upload_id}`: where an upload stands that was answered with 202.
///
/// # Errors
/// 404: no such upload, or it came to its end long ago.
pub async fn upload_state(
    extract::State(door): extract::State<Arc<HttpState>>,
    Path(id): Path<String>,
) -> Result<Json, Error> {
    let (name, standing) = door.uploads.find(&id).ok_or(Error::Missing { what: "Upload" })?;
    Ok(Json::data(&match standing {
        UploadState::InProgress(stage) => stage_shown(&id, stage),
        UploadState::Accepted(uploaded) => {
            json!({ "upload_id": id, "state": "accepted", "plugin": accepted(&door, &name, &uploaded) })
        }
        UploadState::Refused(error) => {
            json!({ "upload_id": id, "state": "refused", "error": refused(&error).inside() })
        }
    }))
}

fn stage_shown(id: &str, stage: Stage) -> Value {
    let (state, position) = match stage {
        Stage::Queued { position } => ("queued", position),
        Stage::Compiling => ("compiling", 0),
        Stage::Probing => ("probing", 0),
    };
    json!({ "upload_id": id, "state": state, "position": position })
}

fn accepted(door: &HttpState, name: &str, uploaded: &Uploaded) -> Value {
    let mut value = version_shown(door, &uploaded.version, uploaded.state);
    if uploaded.state != VersionState::Active {
        let (prefix, _) = uploaded.version.digest.split_at(SHOWN_DIGITS);
        let message = format!(
            "another version of {name} stays active until this one is promoted: \
             POST /api/v1/plugins/{name}/promote {{\"digest\":\"{prefix}\"}}, or `killstream plugin promote {name} {prefix}`"
        );
        value["message"] = message.into();
    }
    value["name"] = name.into();
    value
}

/// `DELETE /api/v1/plugins/{name}`.
///
/// # Errors
/// 401, 404.
pub async fn delete(
    _: May<Rights>,
    extract::State(door): extract::State<Arc<HttpState>>,
    Path(name): Path<String>,
) -> Result<Json, Error> {
    let named = name.clone();
    changed(&door, "plugin-delete", move |plugins| plugins.delete(&name)).await?;
    Ok(Json::data(&json!({ "name": named })))
}

/// `POST /api/v1/plugins/{name}/promote` with `{"digest"}`.
///
/// # Errors
/// 401, 404, 400 for a digest that is no version.
pub async fn promote(
    _: May<Rights>,
    extract::State(door): extract::State<Arc<HttpState>>,
    Path(name): Path<String>,
    body: Object,
) -> Result<Json, Error> {
    let digest = body.read(&[&["digest"]], |given| Ok(given.raw_text("digest").map(str::to_owned))).await?;
    let digest = digest.ok_or_else(|| {
        Error::parameter(
            "digest",
            "digest must be \"sha256:<hex>\" of a version, or at least its first 8 hex digits",
        )
    })?;
    let plugin = changed(&door, "plugin-promote", move |plugins| plugins.promote(&name, &digest)).await?;
    Ok(Json::data(&shown(&door, &plugin)))
}

/// `POST /api/v1/plugins/{name}/rollback`.
///
/// # Errors
/// 401, 404, 400 where nothing was before.
pub async fn rollback(
    _: May<Rights>,
    extract::State(door): extract::State<Arc<HttpState>>,
    Path(name): Path<String>,
) -> Result<Json, Error> {
    let plugin = changed(&door, "plugin-rollback", move |plugins| plugins.rollback(&name)).await?;
    Ok(Json::data(&shown(&door, &plugin)))
}

/// Changes plugins off the event loop: compilers and disks take their time.
async fn changed<T: Send + 'static>(
    door: &HttpState,
    name: &'static str,
    change: impl FnOnce(&Plugins) -> Result<T, PluginsError> + Send + 'static,
) -> Result<T, Error> {
    let plugins = Arc::clone(door.feed.plugins());
    tasks::blocking(name, move || change(&plugins))
        .await
        .map_err(Error::failed)?
        .map_err(|error| refused(&error))
}

/// How an upload is to be taken, and how long its answer may wait.
fn wanted(asked: &HashMap<String, String>) -> Result<(UploadOptions, Duration), Error> {
    let (mut how, mut wait) = (UploadOptions::default(), WAIT_DEFAULT);
    for (field, value) in asked {
        match (field.as_str(), value.as_str()) {
            ("promote", "true") => how.promote = true,
            ("promote", "false") => how.promote = false,
            ("instance", "warm") => how.instance = Some(Instance::Warm),
            ("instance", "fresh") => how.instance = Some(Instance::Fresh),
            ("wait", secs) => wait = wait_of(secs)?,
            ("promote", _) => return Err(Error::parameter("promote", "promote must be true or false")),
            ("instance", _) => return Err(Error::parameter("instance", "instance must be warm or fresh")),
            _ => return Err(Error::parameter(field, "unknown parameter")),
        }
    }
    Ok((how, wait))
}

fn wait_of(secs: &str) -> Result<Duration, Error> {
    let wait = secs.parse().ok().map(Duration::from_secs).filter(|wait| *wait <= WAIT_MAX);
    wait.ok_or_else(|| {
        Error::parameter("wait", format!("wait must be a number of seconds, at most {}", WAIT_MAX.as_secs()))
    })
}

fn shown(door: &HttpState, plugin: &PluginSummary) -> Value {
    let mut value = version_shown(door, &plugin.version, plugin.state);
    value["name"] = plugin.name.clone().into();
    let versions = plugin.versions.iter().map(|(version, standing)| version_shown(door, version, *standing));
    value["versions"] = versions.collect();
    value
}

fn version_shown(door: &HttpState, version: &Version, standing: VersionState) -> Value {
    let mut value = json!({
        "digest": format!("sha256:{}", version.digest),
        "size_bytes": version.size_bytes,
        "uploaded_at": time::iso_seconds(version.uploaded_at),
        "instance": if version.fresh { "fresh" } else { "warm" },
        "state": standing.word(),
    });
    if !version.warnings.is_empty() {
        value["warnings"] = json!(version.warnings);
    }
    if let Some(class) = door.feed.plugins().class(version) {
        value["class"] = class.word().into();
    }
    match door.feed.plugins().state(version) {
        Readiness::Usable => {}
        Readiness::Preparing => value["preparing"] = true.into(),
        Readiness::Unusable(why) => {
            value["state"] = "unusable".into();
            value["reason"] = why.to_string().into();
        }
    }
    value
}

fn fault_shown(last: &LastFault, trusted: bool) -> Value {
    let LastFault { failure, killmail_id, at } = last;
    let message = trusted.then_some(&*failure.message);
    json!({ "fault": failure.fault.word(), "message": message, "killmail_id": killmail_id, "at": time::iso_seconds(*at) })
}

fn rest_shown(rest: QuarantinedPair) -> Value {
    json!({
        "config_digest": format!("sha256:{}", rest.config_digest),
        "reason": rest.reason,
        "since": time::iso_seconds(rest.since),
        "until": time::iso_seconds(rest.until),
    })
}

fn refused(error: &PluginsError) -> Error {
    let message = error.to_string();
    match error {
        PluginsError::Unknown { .. } => Error::Missing { what: "Plugin" },
        PluginsError::UnknownVersion { .. } | PluginsError::NothingBefore { .. } => {
            Error::parameter("digest", message)
        }
        PluginsError::MalformedDigest { .. } | PluginsError::AmbiguousDigest { .. } => {
            Error::parameter("digest", message)
        }
        PluginsError::NotActive { .. } => Error::parameter("plugin", message),
        PluginsError::BadName { .. } => Error::parameter("name", message),
        PluginsError::TooManyNames { max } => Error::Busy { message, limit: *max },
        PluginsError::TooManyUploads { max } => Error::Busy { message, limit: *max as u64 },
        PluginsError::Preparing { .. } => Error::PluginPreparing { message },
        PluginsError::Unusable { .. } => Error::PluginUnusable { message },
        PluginsError::Refused(Refusal::TooLarge { max, setting, .. }) => {
            Error::PluginTooLarge { max_bytes: *max as u64, setting: setting.clone() }
        }
        PluginsError::Refused(refusal) if refusal.is_busy() => {
            Error::Busy { message, limit: refusal.limit().unwrap_or_default() }
        }
        PluginsError::Refused(refusal) => Error::InvalidPlugin {
            reason: refusal.reason().to_owned(),
            message: refusal.to_string(),
            limit: refusal.limit(),
        },
        PluginsError::Store(store::error::StoreError::NoSpace { min, .. }) => {
            Error::Busy { message, limit: *min }
        }
        PluginsError::Store(error) if error.is_disk_full() => {
            Error::DiskFull { message: format!("the disk is full: {message}") }
        }
        PluginsError::DiskFull(_) => Error::DiskFull { message },
        PluginsError::Store(_) | PluginsError::Record { .. } | PluginsError::GivenUp => {
            Error::failed(message)
        }
        PluginsError::Internal(_) | PluginsError::Lost(_) => Error::failed(message),
    }
}

#[cfg(test)]
#[path = "plugins_tests.rs"]
mod tests;
