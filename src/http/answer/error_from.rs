//! What lower floors refuse or fail at, in this door's two dialects: history answers in the kills envelope,
//! streams in their own.
//!
//! Must not know: envelopes.

use axum::http::StatusCode;

use crate::feed;
use crate::http::answer::error::{Error, PLUGIN_UNUSABLE};
use crate::plugins::error::PluginsError;
use crate::plugins::plugin_quota::QuotaExceeded;
use crate::store;
use crate::wire::query;

/// Whose fault it is.
enum Blame {
    /// The caller's: this parameter cannot be used.
    Parameter { field: &'static str, limit: Option<u64> },
    /// Nobody's: a limit is reached.
    Limit(u64),
    /// The plugin is being compiled.
    Preparing,
    /// The plugin can no longer run.
    Unusable,
    /// The server is stopping.
    Closing,
    /// Ours.
    Us,
}

fn blame(error: &feed::error::FeedError) -> Blame {
    match error {
        feed::error::FeedError::PreloadTooLarge { max, .. } => {
            Blame::Parameter { field: "preload_days", limit: Some(*max) }
        }
        feed::error::FeedError::Store(store::error::StoreError::NoSpace { min, .. }) => Blame::Limit(*min),
        feed::error::FeedError::Store(store::error::StoreError::UnderWay { .. }) => Blame::Limit(1),
        feed::error::FeedError::Filters(full) => Blame::Limit(full.max_bytes),
        feed::error::FeedError::Closing => Blame::Closing,
        feed::error::FeedError::Plugin(error) => match (error.parameter(), error) {
            (Some(field), error) => Blame::Parameter { field, limit: error.limit() },
            (None, PluginsError::Preparing { .. }) => Blame::Preparing,
            (None, PluginsError::Unusable { .. }) => Blame::Unusable,
            (None, PluginsError::Refused(refusal)) if refusal.is_busy() => {
                Blame::Limit(refusal.limit().unwrap_or_default())
            }
            (None, _) => Blame::Us,
        },
        feed::error::FeedError::Store(_) | feed::error::FeedError::Lost(_) => Blame::Us,
    }
}

impl Error {
    /// In the words of history.
    #[must_use]
    pub fn history(error: feed::error::FeedError) -> Self {
        let message = error.to_string();
        match blame(&error) {
            Blame::Parameter { field, limit } => Self::Parameter { field: field.to_owned(), message, limit },
            Blame::Limit(limit) => Self::Busy { message, limit },
            Blame::Preparing => Self::PluginPreparing { message },
            Blame::Unusable => Self::PluginUnusable { message },
            Blame::Closing => Self::Closing,
            Blame::Us => Self::failed(error),
        }
    }

    /// In the words of streams.
    #[must_use]
    pub fn stream(error: feed::error::FeedError) -> Self {
        let message = error.to_string();
        match blame(&error) {
            Blame::Parameter { field, .. } => Self::Stream { message: format!("Invalid {field}: {message}") },
            Blame::Limit(_) => {
                Self::StreamFailed { status: StatusCode::SERVICE_UNAVAILABLE, kind: "limit_reached", message }
            }
            Blame::Preparing => Self::StreamFailed {
                status: StatusCode::SERVICE_UNAVAILABLE,
                kind: "plugin_preparing",
                message,
            },
            Blame::Unusable => {
                Self::StreamFailed { status: StatusCode::SERVICE_UNAVAILABLE, kind: PLUGIN_UNUSABLE, message }
            }
            Blame::Closing => {
                Self::StreamFailed { status: StatusCode::SERVICE_UNAVAILABLE, kind: "closing", message }
            }
            Blame::Us => {
                tracing::error!(%error, "a stream cannot be opened: {error}");
                Self::StreamFailed { status: StatusCode::INTERNAL_SERVER_ERROR, kind: "open_failed", message }
            }
        }
    }

    /// A stream whose address has too many judges at work.
    #[must_use]
    pub fn stream_judges(error: QuotaExceeded) -> Self {
        Self::StreamFailed {
            status: StatusCode::SERVICE_UNAVAILABLE,
            kind: "limit_reached",
            message: error.to_string(),
        }
    }

    /// A page of history whose address has too many judges at work, or for which too many pages are being
    /// judged.
    #[must_use]
    pub fn history_judges(error: QuotaExceeded) -> Self {
        Self::Busy { message: error.to_string(), limit: error.max() as u64 }
    }

    /// A parameter of history.
    #[must_use]
    pub fn history_parameter(error: query::Error) -> Self {
        Self::Parameter { field: error.field, message: error.message, limit: error.limit }
    }

    /// A parameter of a stream.
    #[must_use]
    pub fn stream_parameter(error: query::Error) -> Self {
        Self::Stream { message: error.message }
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
        let error = Error::history(feed::error::FeedError::Plugin(PluginsError::Refused(refusal)));
        let Error::Parameter { field, message: shown, limit } = error else { panic!("{error}") };
        assert_eq!((field.as_str(), shown, limit), ("plugin_config", message, Some(2)));
    }
}
