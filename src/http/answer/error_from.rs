//! Turns the errors of lower floors into [`Error`]s. There are two families: history responds in the kills
//! envelope, streams in their own.
//!
//! Must not know: how an envelope is written.

use axum::http::StatusCode;

use crate::feed::error::FeedError;
use crate::http::answer::error::{Error, PLUGIN_UNUSABLE};
use crate::plugins::error::PluginsError;
use crate::plugins::plugin_quota::QuotaExceeded;
use crate::store::error::StoreError;
use crate::webhook::webhooks::WebhookError;
use crate::wire::query::parameters::ParameterError;

/// What an error means for the client.
enum Cause {
    /// A parameter cannot be used.
    Parameter { field: &'static str, limit: Option<u64> },
    /// A limit is reached; trying later helps.
    Limit(u64),
    /// The plugin is being compiled.
    Preparing,
    /// The plugin cannot run any more.
    Unusable,
    /// The server is stopping.
    Closing,
    /// The server failed.
    Internal,
}

fn cause_of(error: &FeedError) -> Cause {
    match error {
        FeedError::PreloadTooLarge { max, .. } => {
            Cause::Parameter { field: "preload_days", limit: Some(*max) }
        }
        FeedError::Store(StoreError::NoSpace { min, .. }) => Cause::Limit(*min),
        FeedError::Store(StoreError::UnderWay { .. }) => Cause::Limit(1),
        FeedError::Filters(full) => Cause::Limit(full.max_bytes),
        FeedError::Closing => Cause::Closing,
        FeedError::Plugin(error) => match (error.parameter(), error) {
            (Some(field), error) => Cause::Parameter { field, limit: error.limit() },
            (None, PluginsError::Preparing { .. }) => Cause::Preparing,
            (None, PluginsError::Unusable { .. }) => Cause::Unusable,
            (None, PluginsError::Refused(refusal)) if refusal.is_busy() => {
                Cause::Limit(refusal.limit().unwrap_or_default())
            }
            (None, _) => Cause::Internal,
        },
        FeedError::Store(_) | FeedError::Lost(_) => Cause::Internal,
    }
}

impl Error {
    /// A history request failed.
    #[must_use]
    pub fn history(error: FeedError) -> Self {
        let message = error.to_string();
        match cause_of(&error) {
            Cause::Parameter { field, limit } => Self::Parameter { field: field.to_owned(), message, limit },
            Cause::Limit(limit) => Self::Busy { message, limit },
            Cause::Preparing => Self::PluginPreparing { message },
            Cause::Unusable => Self::PluginUnusable { message },
            Cause::Closing => Self::Closing,
            Cause::Internal => Self::failed(error),
        }
    }

    /// A stream could not be opened.
    #[must_use]
    pub fn stream(error: FeedError) -> Self {
        let message = error.to_string();
        match cause_of(&error) {
            Cause::Parameter { field, .. } => Self::Stream { message: format!("Invalid {field}: {message}") },
            Cause::Limit(_) => {
                Self::StreamFailed { status: StatusCode::SERVICE_UNAVAILABLE, kind: "limit_reached", message }
            }
            Cause::Preparing => Self::StreamFailed {
                status: StatusCode::SERVICE_UNAVAILABLE,
                kind: "plugin_preparing",
                message,
            },
            Cause::Unusable => {
                Self::StreamFailed { status: StatusCode::SERVICE_UNAVAILABLE, kind: PLUGIN_UNUSABLE, message }
            }
            Cause::Closing => {
                Self::StreamFailed { status: StatusCode::SERVICE_UNAVAILABLE, kind: "closing", message }
            }
            Cause::Internal => {
                tracing::error!(%error, "a stream cannot be opened: {error}");
                Self::StreamFailed { status: StatusCode::INTERNAL_SERVER_ERROR, kind: "open_failed", message }
            }
        }
    }

    /// A stream is refused because too many plugins are in use from its address.
    #[must_use]
    pub fn stream_plugin_quota(error: QuotaExceeded) -> Self {
        Self::StreamFailed {
            status: StatusCode::SERVICE_UNAVAILABLE,
            kind: "limit_reached",
            message: error.to_string(),
        }
    }

    /// A history request is refused because too many plugins are in use from its address, or too many
    /// requests with a plugin are running.
    #[must_use]
    pub fn history_plugin_quota(error: QuotaExceeded) -> Self {
        Self::Busy { message: error.to_string(), limit: error.max() as u64 }
    }

    /// A parameter of a history request is wrong.
    #[must_use]
    pub fn history_parameter(error: ParameterError) -> Self {
        Self::Parameter { field: error.field, message: error.message, limit: error.limit }
    }

    /// A parameter of a stream is wrong.
    #[must_use]
    pub fn stream_parameter(error: ParameterError) -> Self {
        Self::Stream { message: error.message }
    }
}

impl From<WebhookError> for Error {
    fn from(error: WebhookError) -> Self {
        match error {
            WebhookError::Invalid(message) => Self::Subscription { message },
            WebhookError::Limit { message, limit } => Self::Busy { message, limit: limit as u64 },
            WebhookError::Unknown => Self::NotFound { what: "Subscription" },
            WebhookError::Failed(message) => Self::failed(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::error::Refusal;

    #[test]
    fn history_reports_the_limit_of_a_refused_configuration() {
        let message = "the plugin's interest names 3 ids; at most 2 (plugin.interest_ids_max)".to_owned();
        let refusal = Refusal::Configure { message: message.clone(), limit: Some(2) };
        let error = Error::history(FeedError::Plugin(PluginsError::Refused(refusal)));
        let Error::Parameter { field, message: shown, limit } = error else { panic!("{error}") };
        assert_eq!((field.as_str(), shown, limit), ("plugin_config", message, Some(2)));
    }
}
