//! Messages for Discord's webhooks: a line of text and an embed for each killmail.
//!
//! The limits are Discord's
//! (<https://docs.discord.com/developers/resources/message#embed-object-embed-limits>,
//! <https://docs.discord.com/developers/resources/webhook#execute-webhook>). Exceeding one is a 400, which no retry
//! repairs, so texts are cut to fit.
//!
//! Must not know: when messages are sent.

pub(crate) mod discord_options;
pub(crate) mod embed;
pub(crate) mod markdown;
pub(crate) mod outcome;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::domain::filter::Filter;
use crate::feed::event::Delivered;
use crate::webhook::message::Purpose;
use crate::webhook::message::discord::discord_options::{DiscordOptions, Mention};
use crate::webhook::message::discord::embed::{Detail, Embed};
use crate::webhook::message::discord::markdown::{isk, system_text, type_text};
use crate::wire::text;

/// Messages a webhook may send in a minute. Discord does not document the figure and asks clients to follow its 429s, which
/// the retry schedule does; this is what clients have measured.
pub const MESSAGES_PER_MINUTE: u32 = 30;
/// Embeds in one message.
pub const EMBEDS_MAX: usize = 10;
/// Characters of all embeds of a message.
pub const EMBEDS_CHARS_MAX: usize = 6_000;
/// Characters of the text of a message.
pub const CONTENT_CHARS_MAX: usize = 2_000;

/// How many of these killmails, from the first on, fit into one message; at least one.
#[must_use]
pub fn fitting(killmails: &[Delivered], filter: &Filter) -> usize {
    let mut chars = 0;
    let fits = |kept: &&Delivered| {
        chars += Embed::new(&kept.entry, filter, Detail::Brief).chars();
        chars <= EMBEDS_CHARS_MAX
    };
    killmails.iter().take(EMBEDS_MAX).take_while(fits).count().max(1).min(killmails.len())
}

/// The message with these killmails, as many as [`fitting`] allows, of one system. The mention is left out of a preload:
/// nobody is called for what is over.
#[must_use]
pub fn killmail_update(
    killmails: &[Delivered],
    purpose: Purpose,
    filter: &Filter,
    options: &DiscordOptions,
) -> Bytes {
    let detail = if killmails.len() == 1 { Detail::Full } else { Detail::Brief };
    let embeds: Vec<Value> =
        killmails.iter().map(|kept| Embed::new(&kept.entry, filter, detail).json()).collect();
    let mention = options.mention.filter(|_| purpose != Purpose::Preload);
    let summary = match purpose {
        Purpose::Update => summary(killmails),
        Purpose::Preload => format!("Before this subscription: {}", summary(killmails)),
        Purpose::Test => format!("Test: {}", summary(killmails)),
    };
    let content = match mention {
        Some(mention) => format!("{mention} {summary}"),
        None => summary,
    };
    message(&content, embeds, mention)
}

/// The message with the number of killmails of a system in the last 24 hours.
#[must_use]
pub fn count_update(system_id: u32, count: u64) -> Bytes {
    let content = format!("{}: {} in the last 24 hours", system_text(system_id), counted(count));
    message(&content, Vec::new(), None)
}

/// Discord answers an error for a message that it did not keep only if it is asked to wait.
#[must_use]
pub fn url_parameters(options: &DiscordOptions) -> Vec<(&'static str, String)> {
    let thread = options.thread_id.map(|id| ("thread_id", id.to_string()));
    [("wait", "true".to_owned())].into_iter().chain(thread).collect()
}

fn message(content: &str, embeds: Vec<Value>, mention: Option<Mention>) -> Bytes {
    let mut body = json!({
        "content": markdown::cut(content, CONTENT_CHARS_MAX),
        "allowed_mentions": Mention::allowed(mention),
    });
    if !embeds.is_empty() {
        body["embeds"] = Value::from(embeds);
    }
    Bytes::from(text::json(&body))
}

/// What a notification shows of the message.
fn summary(killmails: &[Delivered]) -> String {
    let system = system_text(killmails.first().map_or(0, |kept| kept.entry.facts.system()));
    let value = killmails.iter().filter_map(|kept| kept.entry.facts.total_value).sum::<f64>();
    let value = if value > 0.0 { format!(", {}", isk(Some(value))) } else { String::new() };
    match killmails {
        [kept] => {
            format!("{} lost in {system}{value}", type_text(kept.entry.killmail.victim.ship_type_id))
        }
        several => format!("{} in {system}{value}", counted(several.len() as u64)),
    }
}

fn counted(count: u64) -> String {
    if count == 1 { "1 killmail".to_owned() } else { format!("{count} killmails") }
}
