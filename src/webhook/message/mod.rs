//! The bodies of deliveries: killmails of one system, or the count of a system, in the format of the subscription.
//!
//! A caller with killmails to deliver asks [`MessageWriter::fitting`] how many of them go into one message, and has
//! [`MessageWriter::killmail_update`] write these. It sends the same body with every attempt.
//!
//! Must not know: when and where messages are sent, how they are signed.

pub(crate) mod canonical;
pub(crate) mod discord;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::domain::filter::Filter;
use crate::feed::event::Delivered;
use crate::webhook::message::discord::discord_options::DiscordOptions;

enum_with_all! {
    /// The format of the messages of a subscription.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum Format {
        /// The killmails as every transport has them.
        #[default]
        Canonical,
        /// Messages as Discord's webhooks take them.
        Discord,
    }
}

impl Format {
    /// Its word in requests and answers.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Canonical => "canonical",
            Self::Discord => "discord",
        }
    }
}

/// Why killmails are delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The subscription wants them: live, missed while the endpoint was away, or of the past that was asked for.
    Update,
    /// The newest ones of a system, sent when the subscription is created.
    Preload,
    /// The subscriber tries the endpoint.
    Test,
}

/// Writes the messages of one subscription.
#[derive(Debug, Clone, Copy)]
pub struct MessageWriter<'a> {
    /// The format of the subscription.
    pub format: Format,
    /// Its filter, which says whose kills and losses they are.
    pub filter: &'a Filter,
    /// How it wants Discord's messages.
    pub discord: &'a DiscordOptions,
}

impl MessageWriter<'_> {
    /// How many of these killmails, from the first on, fit into one message; at least one. The caller has limits of its
    /// own: one system, and as many as the subscription batches.
    #[must_use]
    pub fn fitting(&self, killmails: &[Delivered]) -> usize {
        match self.format {
            Format::Canonical => killmails.len(),
            Format::Discord => discord::fitting(killmails, self.filter),
        }
    }

    /// The message with these killmails, at least one, all of one system, in the order given. `now_ms` is the time of the
    /// delivery in unix milliseconds.
    #[must_use]
    pub fn killmail_update(&self, killmails: &[Delivered], purpose: Purpose, now_ms: i64) -> Bytes {
        match self.format {
            Format::Canonical => canonical::killmail_update(killmails, purpose, now_ms),
            Format::Discord => discord::killmail_update(killmails, purpose, self.filter, self.discord),
        }
    }

    /// The message with the number of killmails of a system in the last 24 hours.
    #[must_use]
    pub fn count_update(&self, system_id: u32, count: u64, now_ms: i64) -> Bytes {
        match self.format {
            Format::Canonical => canonical::count_update(system_id, count, now_ms),
            Format::Discord => discord::count_update(system_id, count),
        }
    }

    /// What is added to the query of the callback URL, as names and values.
    #[must_use]
    pub fn url_parameters(&self) -> Vec<(&'static str, String)> {
        match self.format {
            Format::Canonical => Vec::new(),
            Format::Discord => discord::url_parameters(self.discord),
        }
    }
}

#[cfg(test)]
mod tests;
