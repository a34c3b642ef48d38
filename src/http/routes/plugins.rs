//! The routes of plugins: upload, list, show, delete, promote, roll back. Those that change something need a
//! token.
//!
//! Must not know: what is in a component, or how versions are stored.

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
use crate::http::request::auth::{Authorized, Plugins as PluginsScope};
use crate::http::request::body::{self, BodyLimits};
use crate::http::request::parameters::JsonObject;
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

/// How long the response to an upload waits by default.
const WAIT_DEFAULT: Duration = Duration::from_secs(60);
/// The longest it may wait.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// Digits of a digest in messages: more than needed to identify a version.
const SHOWN_DIGITS: usize = 12;

/// `GET /api/v1/plugins`.
pub async fn list(extract::State(state): extract::State<Arc<HttpState>>) -> Json {
    let all: Vec<Value> = state.plugins.list().iter().map(|plugin| plugin_json(&state, plugin)).collect();
    Json::data(&json!({ "count": all.len(), "plugins": all }))
}

/// `GET /api/v1/plugins/{name}`: with its counters. The message of its last fault is shown only with a
/// token of the scope `plugins`: it may quote the configuration of another caller.
///
/// # Errors
/// 404: no such plugin.
pub async fn detail(
    extract::State(state): extract::State<Arc<HttpState>>,
    Path(name): Path<String>,
    parts: Parts,
) -> Result<Json, Error> {
    let trusted = state.tokens.authorize(&parts, Scope::Plugins).is_ok();
    let (plugin, counts) = state.plugins.get(&name).map_err(|error| error_from(&error))?;
    let mut value = plugin_json(&state, &plugin);
    value["calls"] = counts.calls.into();
    value["keeps"] = counts.keeps.into();
    value["drops"] = counts.drops.into();
    value["faults"] = json!(counts.faults);
    value["remembered"] = counts.remembered.into();
    value["passed_over"] = counts.passed_over.into();
    value["log_lines_cut"] = counts.log_lines_cut.into();
    if let Some(last) = counts.last_fault {
        value["last_fault"] = fault_json(&last, trusted);
    }
    value["faults_at_rest"] = counts.at_rest.into();
    let resting = state.plugins.resting(&name).map_err(|error| error_from(&error))?;
    value["resting_count"] = resting.count.into();
    value["resting"] = resting.listed.into_iter().map(resting_json).collect();
    Ok(Json::data(&value))
}

/// `GET /api/v1/plugins/{name}/versions`: all versions, newest first.
///
/// # Errors
/// 404: no such plugin.
pub async fn versions(
    extract::State(state): extract::State<Arc<HttpState>>,
    Path(name): Path<String>,
) -> Result<Json, Error> {
    let (plugin, _) = state.plugins.get(&name).map_err(|error| error_from(&error))?;
    let versions: Vec<Value> = plugin
        .versions
        .iter()
        .rev()
        .map(|(version, version_state)| version_json(&state, version, *version_state))
        .collect();
    Ok(Json::data(&json!({ "versions": versions })))
}

/// `PUT /api/v1/plugins/{name}`: the body is the component, and has its own size limit. The response waits
/// until the component is compiled and tested, at most `wait` seconds.
///
/// # Errors
/// 401, 400 for a parameter or a name, 413, 422 with the reason, 503 at a limit.
pub async fn upload(
    _: Authorized<PluginsScope>,
    extract::State(state): extract::State<Arc<HttpState>>,
    Path(name): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    body: Body,
) -> Result<Json, Error> {
    let UploadParameters { options, wait } = parse_upload_parameters(&query)?;
    let (max_bytes, setting) = state.plugins.engine().config().upload_max();
    let limits =
        BodyLimits::new(&state.config, Arc::clone(&state.in_flight)).with_max(max_bytes as u64, setting);
    // Checked before the body is sent.
    state.store.check_space().map_err(|error| error_from(&error.into()))?;
    let room = state.uploads.reserve(&name, body.size_hint().exact()).map_err(|error| error_from(&error))?;
    let file = state.store.upload_file().map_err(|error| error_from(&error.into()))?;
    body::save(body, &limits, file.path()).await.map_err(|error| match error {
        Error::TooLarge { limit, setting } => {
            Error::PluginTooLarge { max_bytes: limit, setting: setting.to_owned() }
        }
        other => other,
    })?;
    let mut waiting = state.uploads.start(room, file, options);
    match waiting.wait(wait).await {
        UploadState::InProgress(stage) => {
            Ok(Json::data_with_status(StatusCode::ACCEPTED, &stage_json(&waiting.detach(), stage)))
        }
        UploadState::Accepted(uploaded) => {
            let status = if uploaded.new { StatusCode::CREATED } else { StatusCode::OK };
            Ok(Json::data_with_status(status, &accepted_json(&state, &name, &uploaded)))
        }
        UploadState::Refused(error) => Err(error_from(&error)),
    }
}

/// `GET /api/v1/plugins/uploads/{upload_id}`: the state of an upload whose response was 202.
///
/// # Errors
/// 404: no such upload, or it ended long ago.
pub async fn upload_state(
    extract::State(state): extract::State<Arc<HttpState>>,
    Path(id): Path<String>,
) -> Result<Json, Error> {
    let (name, version_state) = state.uploads.find(&id).ok_or(Error::NotFound { what: "Upload" })?;
    Ok(Json::data(&match version_state {
        UploadState::InProgress(stage) => stage_json(&id, stage),
        UploadState::Accepted(uploaded) => {
            json!({ "upload_id": id, "state": "accepted", "plugin": accepted_json(&state, &name, &uploaded) })
        }
        UploadState::Refused(error) => {
            json!({ "upload_id": id, "state": "refused", "error": error_from(&error).to_json() })
        }
    }))
}

fn stage_json(id: &str, stage: Stage) -> Value {
    let (state, position) = match stage {
        Stage::Queued { position } => ("queued", position),
        Stage::Compiling => ("compiling", 0),
        Stage::Probing => ("probing", 0),
    };
    json!({ "upload_id": id, "state": state, "position": position })
}

fn accepted_json(state: &HttpState, name: &str, uploaded: &Uploaded) -> Value {
    let mut value = version_json(state, &uploaded.version, uploaded.state);
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
    _: Authorized<PluginsScope>,
    extract::State(state): extract::State<Arc<HttpState>>,
    Path(name): Path<String>,
) -> Result<Json, Error> {
    let named = name.clone();
    change_plugins(&state, "plugin-delete", move |plugins| plugins.delete(&name)).await?;
    Ok(Json::data(&json!({ "name": named })))
}

/// `POST /api/v1/plugins/{name}/promote` with `{"digest"}`.
///
/// # Errors
/// 401, 404; 400 for a digest that is not that of a version.
pub async fn promote(
    _: Authorized<PluginsScope>,
    extract::State(state): extract::State<Arc<HttpState>>,
    Path(name): Path<String>,
    body: JsonObject,
) -> Result<Json, Error> {
    let digest = body.read(&[&["digest"]], |given| Ok(given.raw_text("digest").map(str::to_owned))).await?;
    let digest = digest.ok_or_else(|| {
        Error::parameter(
            "digest",
            "digest must be the \"sha256:<hex>\" of a version, or at least its first 8 hex digits",
        )
    })?;
    let plugin =
        change_plugins(&state, "plugin-promote", move |plugins| plugins.promote(&name, &digest)).await?;
    Ok(Json::data(&plugin_json(&state, &plugin)))
}

/// `POST /api/v1/plugins/{name}/rollback`.
///
/// # Errors
/// 401, 404; 400 if there is no earlier version.
pub async fn rollback(
    _: Authorized<PluginsScope>,
    extract::State(state): extract::State<Arc<HttpState>>,
    Path(name): Path<String>,
) -> Result<Json, Error> {
    let plugin = change_plugins(&state, "plugin-rollback", move |plugins| plugins.rollback(&name)).await?;
    Ok(Json::data(&plugin_json(&state, &plugin)))
}

/// Changes plugins off the event loop: compiling and writing to disk block.
async fn change_plugins<T: Send + 'static>(
    state: &HttpState,
    name: &'static str,
    change: impl FnOnce(&Plugins) -> Result<T, PluginsError> + Send + 'static,
) -> Result<T, Error> {
    let plugins = Arc::clone(&state.plugins);
    tasks::blocking(name, move || change(&plugins))
        .await
        .map_err(Error::failed)?
        .map_err(|error| error_from(&error))
}

/// The query parameters of an upload.
struct UploadParameters {
    options: UploadOptions,
    /// How long the response may wait.
    wait: Duration,
}

fn parse_upload_parameters(query: &HashMap<String, String>) -> Result<UploadParameters, Error> {
    let mut parameters = UploadParameters { options: UploadOptions::default(), wait: WAIT_DEFAULT };
    for (field, value) in query {
        match (field.as_str(), value.as_str()) {
            ("promote", "true") => parameters.options.promote = true,
            ("promote", "false") => parameters.options.promote = false,
            ("instance", "warm") => parameters.options.instance = Some(Instance::Warm),
            ("instance", "fresh") => parameters.options.instance = Some(Instance::Fresh),
            ("wait", secs) => parameters.wait = parse_wait(secs)?,
            ("promote", _) => return Err(Error::parameter("promote", "promote must be true or false")),
            ("instance", _) => return Err(Error::parameter("instance", "instance must be warm or fresh")),
            _ => return Err(Error::parameter(field, "unknown parameter")),
        }
    }
    Ok(parameters)
}

fn parse_wait(secs: &str) -> Result<Duration, Error> {
    let wait = secs.parse().ok().map(Duration::from_secs).filter(|wait| *wait <= WAIT_MAX);
    wait.ok_or_else(|| {
        Error::parameter("wait", format!("wait must be a number of seconds, at most {}", WAIT_MAX.as_secs()))
    })
}

fn plugin_json(state: &HttpState, plugin: &PluginSummary) -> Value {
    let mut value = version_json(state, &plugin.version, plugin.state);
    value["name"] = plugin.name.clone().into();
    let versions =
        plugin.versions.iter().map(|(version, version_state)| version_json(state, version, *version_state));
    value["versions"] = versions.collect();
    value
}

fn version_json(state: &HttpState, version: &Version, version_state: VersionState) -> Value {
    let mut value = json!({
        "digest": format!("sha256:{}", version.digest),
        "size_bytes": version.size_bytes,
        "uploaded_at": time::iso_seconds(version.uploaded_at),
        "instance": if version.fresh { "fresh" } else { "warm" },
        "state": version_state.word(),
    });
    if !version.warnings.is_empty() {
        value["warnings"] = json!(version.warnings);
    }
    if let Some(class) = state.plugins.class(version) {
        value["class"] = class.word().into();
    }
    match state.plugins.state(version) {
        Readiness::Usable => {}
        Readiness::Preparing => value["preparing"] = true.into(),
        Readiness::Unusable(why) => {
            value["state"] = "unusable".into();
            value["reason"] = why.to_string().into();
        }
    }
    value
}

fn fault_json(last: &LastFault, trusted: bool) -> Value {
    let LastFault { failure, killmail_id, at } = last;
    let message = trusted.then_some(&*failure.message);
    json!({ "fault": failure.fault.word(), "message": message, "killmail_id": killmail_id, "at": time::iso_seconds(*at) })
}

fn resting_json(resting: QuarantinedPair) -> Value {
    json!({
        "config_digest": format!("sha256:{}", resting.config_digest),
        "reason": resting.reason,
        "since": time::iso_seconds(resting.since),
        "until": time::iso_seconds(resting.until),
    })
}

fn error_from(error: &PluginsError) -> Error {
    let message = error.to_string();
    match error {
        PluginsError::Unknown { .. } => Error::NotFound { what: "Plugin" },
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
