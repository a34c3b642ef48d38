//! What a subscription may set about Discord's messages: whom they mention, and their thread.
//!
//! Must not know: what else is in a message.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The `discord` member of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiscordOptions {
    /// Who is notified of each message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mention: Option<Mention>,
    /// The thread that messages go to; otherwise the channel of the webhook.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread_id: Option<Snowflake>,
}

/// An id of Discord. In JSON it is a text, since it has more digits than many JSON parsers keep; a number is read as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "GivenId", into = "String")]
pub struct Snowflake(pub u64);

/// Who is notified, in the form that Discord has for it in texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Mention {
    /// `@here`: members of the channel who are online.
    Here,
    /// `@everyone`: members of the channel.
    Everyone,
    /// `<@&ID>`: members with a role.
    Role(Snowflake),
    /// `<@ID>`: one user.
    User(Snowflake),
}

/// The text is not an id of Discord.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an id of Discord, such as \"1112223334445556667\"")]
pub struct SnowflakeError;

/// The text is not a mention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected `@here`, `@everyone`, `<@&ID>` for a role or `<@ID>` for a user")]
pub struct MentionError;

#[derive(Deserialize)]
#[serde(untagged)]
enum GivenId {
    Number(u64),
    Text(String),
}

impl TryFrom<GivenId> for Snowflake {
    type Error = SnowflakeError;

    fn try_from(given: GivenId) -> Result<Self, SnowflakeError> {
        match given {
            GivenId::Number(0) => Err(SnowflakeError),
            GivenId::Number(id) => Ok(Self(id)),
            GivenId::Text(text) => text.parse(),
        }
    }
}

impl FromStr for Snowflake {
    type Err = SnowflakeError;

    fn from_str(text: &str) -> Result<Self, SnowflakeError> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let id = text.parse().ok().filter(|id| digits && *id != 0);
        id.map(Self).ok_or(SnowflakeError)
    }
}

impl fmt::Display for Snowflake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Snowflake> for String {
    fn from(id: Snowflake) -> Self {
        id.to_string()
    }
}

impl Mention {
    /// Discord's `allowed_mentions`: this mention and nothing else, whatever the texts of the message contain.
    #[must_use]
    pub fn allowed(mention: Option<Self>) -> Value {
        match mention {
            None => json!({ "parse": [] }),
            Some(Self::Here | Self::Everyone) => json!({ "parse": ["everyone"] }),
            Some(Self::Role(id)) => json!({ "parse": [], "roles": [id] }),
            Some(Self::User(id)) => json!({ "parse": [], "users": [id] }),
        }
    }
}

impl FromStr for Mention {
    type Err = MentionError;

    fn from_str(text: &str) -> Result<Self, MentionError> {
        let id = |prefix: &str| text.strip_prefix(prefix)?.strip_suffix('>')?.parse().ok();
        match text {
            "@here" => Ok(Self::Here),
            "@everyone" => Ok(Self::Everyone),
            // `<@!` is the older form of a user.
            _ => id("<@&")
                .map(Self::Role)
                .or_else(|| id("<@!").or_else(|| id("<@")).map(Self::User))
                .ok_or(MentionError),
        }
    }
}

impl TryFrom<String> for Mention {
    type Error = MentionError;

    fn try_from(text: String) -> Result<Self, MentionError> {
        text.parse()
    }
}

impl fmt::Display for Mention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here => f.write_str("@here"),
            Self::Everyone => f.write_str("@everyone"),
            Self::Role(id) => write!(f, "<@&{id}>"),
            Self::User(id) => write!(f, "<@{id}>"),
        }
    }
}

impl From<Mention> for String {
    fn from(mention: Mention) -> Self {
        mention.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<DiscordOptions, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn mentions_are_read_in_the_form_of_discord_and_written_so() {
        let id = Snowflake(1_112_223_334_445_556_667);
        for (text, mention) in [
            ("@here", Mention::Here),
            ("@everyone", Mention::Everyone),
            ("<@&1112223334445556667>", Mention::Role(id)),
            ("<@1112223334445556667>", Mention::User(id)),
        ] {
            assert_eq!((text.parse(), mention.to_string()), (Ok(mention), text.to_owned()));
        }
        assert_eq!("<@!7>".parse(), Ok(Mention::User(Snowflake(7))));
        for text in
            ["", "here", "@Here", "@here ", "@here @everyone", "<@>", "<@0>", "<@&x>", "<@&7", "<@+7>", "7"]
        {
            assert_eq!(text.parse::<Mention>(), Err(MentionError), "{text}");
        }
    }

    #[test]
    fn only_the_mention_of_the_subscription_is_allowed() {
        let allowed = |text: &str| Mention::allowed(Some(text.parse().unwrap()));
        assert_eq!(Mention::allowed(None), json!({ "parse": [] }));
        assert_eq!(allowed("@here"), json!({ "parse": ["everyone"] }));
        assert_eq!(allowed("<@&7>"), json!({ "parse": [], "roles": ["7"] }));
        assert_eq!(allowed("<@7>"), json!({ "parse": [], "users": ["7"] }));
    }

    #[test]
    fn options_are_read_strictly_and_written_as_texts() {
        let options = read(r#"{"mention":"<@&7>","thread_id":"1112223334445556667"}"#).unwrap();
        assert_eq!(read(r#"{"mention":"<@&7>","thread_id":1112223334445556667}"#).unwrap(), options);
        let written = serde_json::to_string(&options).unwrap();
        assert_eq!(written, r#"{"mention":"<@&7>","thread_id":"1112223334445556667"}"#);
        assert_eq!(read("{}").unwrap(), DiscordOptions::default());
        assert_eq!(serde_json::to_string(&DiscordOptions::default()).unwrap(), "{}");
        let packed = rmp_serde::to_vec_named(&options).unwrap();
        assert_eq!(rmp_serde::from_slice::<DiscordOptions>(&packed).unwrap(), options);
        for json in [
            r#"{"mention":"everyone"}"#,
            r#"{"thread_id":"x"}"#,
            r#"{"thread_id":"7&wait=false"}"#,
            r#"{"thread_id":-1}"#,
            r#"{"thread_id":0}"#,
            r#"{"thread_id":1.5}"#,
            r#"{"username":"x"}"#,
        ] {
            assert!(read(json).is_err(), "{json}");
        }
    }
}
