//! Frames of the Phoenix protocol, decoded and encoded: objects (version 1), arrays and binary pushes
//! (version 2).
//!
//! The reply to a frame has the frame's own form, whatever version the connection was opened with: upstream's own
//! examples send objects under version 2. Replies to malformed frames have the form of the version. Refs are kept as
//! JSON text, so that they are returned with value and type.
//!
//! Must not know: what events mean.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::wire::query::parameters::{KnownNames, Parameters};
use crate::wire::read::json::{JsonError, LEVELS_MAX, Shape, elements};
use crate::wire::text;

/// The form of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// An object of `topic`, `event`, `payload`, `ref`: version 1, which has no join ref.
    Object,
    /// An array of join ref, ref, topic, event, payload: version 2.
    Array,
}

/// A ref as the text of its JSON value; `None` is null.
pub type Ref = Option<Box<str>>;

/// Longest ref, bytes: it is repeated in every push.
pub const REF_BYTES_MAX: usize = 256;
/// Longest topic or event, bytes: they are repeated in replies.
pub const NAME_BYTES_MAX: usize = 256;

/// Elements of an array frame; further ones are ignored.
const PARTS: usize = 5;

/// The byte order mark that some clients send before a text.
const MARK: char = '\u{feff}';

/// A message of a client.
#[derive(Debug, Clone)]
pub struct Message {
    /// The form it came in.
    pub form: Form,
    /// The join it belongs to.
    pub join_ref: Ref,
    /// The ref its reply carries.
    pub reference: Ref,
    /// The topic.
    pub topic: String,
    /// The event.
    pub event: String,
    /// The payload, JSON.
    pub payload: Box<RawValue>,
}

impl Message {
    /// The members of the payload; `None` unless it is an object or null.
    #[must_use]
    pub fn members(&self, known: KnownNames) -> Option<Parameters<'_>> {
        match self.payload.get() {
            "null" => Some(Parameters::empty(known)),
            payload => Parameters::from_object(payload.as_bytes(), known).ok(),
        }
    }
}

/// Why a frame is not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not JSON, or neither an object nor an array of five.
    #[error(
        "a frame is an object with topic, event, payload and ref, or an array of join ref, ref, topic, event and payload"
    )]
    NoFrame,
    /// Nested too deeply.
    #[error("{}", JsonError::TooDeep)]
    TooDeep,
    /// The topic or event is too long.
    #[error("topic and event have at most {NAME_BYTES_MAX} bytes")]
    LongName,
    /// The ref is too long.
    #[error("a ref has at most {REF_BYTES_MAX} bytes")]
    LongRef,
    /// A binary frame that is not a push.
    #[error("the only binary frames a client sends are pushes")]
    NoPush,
}

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "ref")]
    reference: Option<&'a RawValue>,
    #[serde(borrow, default)]
    join_ref: Option<&'a RawValue>,
}

/// Decodes a text frame.
///
/// # Errors
/// It is not a message.
pub fn decode(text: &str) -> Result<Message, Malformed> {
    let text = text.strip_prefix(MARK).unwrap_or(text);
    let no_frame = |_| Malformed::NoFrame;
    if Shape::measure(text.as_bytes()).levels > LEVELS_MAX {
        return Err(Malformed::TooDeep);
    }
    if text.trim_ascii_start().starts_with('[') {
        let mut parts = Vec::with_capacity(PARTS);
        let whole: &RawValue = serde_json::from_str(text).map_err(no_frame)?;
        elements(whole, |part| parts.extend(Some(part).filter(|_| parts.len() < PARTS)));
        let [join_ref, reference, topic, event, payload] = parts[..] else { return Err(Malformed::NoFrame) };
        let (topic, event) = (
            serde_json::from_str(topic.get()).map_err(no_frame)?,
            serde_json::from_str(event.get()).map_err(no_frame)?,
        );
        return message(Form::Array, (Some(join_ref), Some(reference)), topic, event, Some(payload));
    }
    let Object { topic, event, payload, reference, join_ref } =
        serde_json::from_str(text).map_err(no_frame)?;
    message(Form::Object, (join_ref, reference), topic.into_owned(), event.into_owned(), payload)
}

/// Decodes a binary frame: a push of version 2, or JSON in the wrong kind of frame.
///
/// # Errors
/// It is neither.
pub fn decode_binary(bytes: &[u8]) -> Result<Message, Malformed> {
    let [0, join_ref, reference, topic, event, rest @ ..] = bytes else {
        return match std::str::from_utf8(bytes) {
            Ok(text)
                if text.strip_prefix(MARK).unwrap_or(text).trim_ascii_start().starts_with(['{', '[']) =>
            {
                decode(text)
            }
            _ => Err(Malformed::NoPush),
        };
    };
    let mut rest = rest;
    let mut take = |length: u8| {
        let (part, behind) = rest.split_at_checked(usize::from(length)).ok_or(Malformed::NoFrame)?;
        rest = behind;
        std::str::from_utf8(part).map_err(|_| Malformed::NoFrame)
    };
    let (join_ref, reference) = (take(*join_ref)?, take(*reference)?);
    let (topic, event) = (take(*topic)?.to_owned(), take(*event)?.to_owned());
    if Shape::measure(rest).levels > LEVELS_MAX {
        return Err(Malformed::TooDeep);
    }
    let payload: &RawValue = serde_json::from_slice(rest).map_err(|_| Malformed::NoFrame)?;
    // An empty ref stands for null.
    let raw = |text: &str| {
        (!text.is_empty()).then(|| to_raw_value(text)).transpose().map_err(|_| Malformed::NoFrame)
    };
    let (join_ref, reference) = (raw(join_ref)?, raw(reference)?);
    message(Form::Array, (join_ref.as_deref(), reference.as_deref()), topic, event, Some(payload))
}

type Refs<'a> = (Option<&'a RawValue>, Option<&'a RawValue>);

fn message(
    form: Form,
    refs: Refs<'_>,
    topic: String,
    event: String,
    payload: Option<&RawValue>,
) -> Result<Message, Malformed> {
    if topic.len() > NAME_BYTES_MAX || event.len() > NAME_BYTES_MAX {
        return Err(Malformed::LongName);
    }
    let payload = payload.unwrap_or(RawValue::NULL).to_owned();
    Ok(Message { form, join_ref: reference(refs.0)?, reference: reference(refs.1)?, topic, event, payload })
}

fn reference(raw: Option<&RawValue>) -> Result<Ref, Malformed> {
    let text = raw.map(RawValue::get).filter(|text| *text != "null");
    match text {
        Some(text) if text.len() > REF_BYTES_MAX => Err(Malformed::LongRef),
        text => Ok(text.map(Into::into)),
    }
}

/// The status of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The request succeeded.
    Ok,
    /// It was refused.
    Error,
}

/// The address of a frame: its form, join ref and topic.
#[derive(Debug, Clone, Copy)]
pub struct To<'a> {
    /// The form.
    pub form: Form,
    /// The join ref; objects have none.
    pub join_ref: &'a Ref,
    /// The topic.
    pub topic: &'a str,
}

impl To<'_> {
    /// The reply to a message; `response` is JSON.
    #[must_use]
    pub fn reply(&self, reference: &Ref, status: Status, response: &[u8]) -> Bytes {
        let begin: &[u8] = match status {
            Status::Ok => br#"{"status":"ok","response":"#,
            Status::Error => br#"{"status":"error","response":"#,
        };
        self.push(reference, "phx_reply", &[begin, response, b"}"])
    }

    /// A push, or any frame with a ref. The payload is JSON in parts.
    #[must_use]
    pub fn push(&self, reference: &Ref, event: &str, payload: &[&[u8]]) -> Bytes {
        let length: usize = payload.iter().map(|part| part.len()).sum();
        let mut out = Vec::with_capacity(length + self.topic.len() + event.len() + 96);
        match self.form {
            Form::Array => {
                out.push(b'[');
                put_ref(&mut out, self.join_ref);
                out.push(b',');
                put_ref(&mut out, reference);
                out.push(b',');
                put_text(&mut out, self.topic);
                out.push(b',');
                put_text(&mut out, event);
                out.push(b',');
                payload.iter().for_each(|part| out.extend_from_slice(part));
                out.push(b']');
            }
            Form::Object => {
                out.extend_from_slice(br#"{"topic":"#);
                put_text(&mut out, self.topic);
                out.extend_from_slice(br#","event":"#);
                put_text(&mut out, event);
                out.extend_from_slice(br#","payload":"#);
                payload.iter().for_each(|part| out.extend_from_slice(part));
                out.extend_from_slice(br#","ref":"#);
                put_ref(&mut out, reference);
                out.push(b'}');
            }
        }
        Bytes::from(out)
    }
}

fn put_ref(out: &mut Vec<u8>, reference: &Ref) {
    out.extend(text::escaped(reference.as_deref().unwrap_or("null").into()));
}

fn put_text(out: &mut Vec<u8>, name: &str) {
    out.extend(text::json(name));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &Bytes) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    fn answered(frame: &str) -> String {
        let Message { form, join_ref, reference, topic, .. } = decode(frame).unwrap();
        text(&To { form, join_ref: &join_ref, topic: &topic }.reply(&reference, Status::Ok, b"{}")).to_owned()
    }

    #[test]
    fn refs_come_back_by_value_and_type() {
        for reference in ["\"1\"", "1", "null", "\"a\\\"b\"", "1.5", "true", "\"\\u00e9\""] {
            let reply = answered(&format!(r#" [{reference} , {reference},"t","e",{{}}, 7]"#));
            assert_eq!(
                reply,
                format!(r#"[{reference},{reference},"t","phx_reply",{{"status":"ok","response":{{}}}}]"#)
            );
            let reply = answered(&format!(r#"{{"topic":"t","event":"e","payload":{{}},"ref":{reference}}}"#));
            assert_eq!(
                reply,
                format!(
                    r#"{{"topic":"t","event":"phx_reply","payload":{{"status":"ok","response":{{}}}},"ref":{reference}}}"#
                )
            );
        }
    }

    #[test]
    fn what_an_object_lacks_is_null() {
        let message = decode(r#"{"topic":"t","event":"e"}"#).unwrap();
        assert_eq!(
            (message.form, message.join_ref, message.reference, message.payload.get()),
            (Form::Object, None, None, "null")
        );
    }

    #[test]
    fn binary_pushes_are_understood() {
        let message = decode_binary(b"\x00\x01\x02\x01\x0511".as_slice()).map(drop);
        assert_eq!(message, Err(Malformed::NoFrame));
        let message = decode_binary(b"\x00\x01\x02\x05\x03112topicabc{\"a\":1}").unwrap();
        assert_eq!(
            (message.join_ref.as_deref(), message.reference.as_deref()),
            (Some("\"1\""), Some("\"12\""))
        );
        assert_eq!(
            (message.topic.as_str(), message.event.as_str(), message.payload.get()),
            ("topic", "abc", "{\"a\":1}")
        );
        let nameless = decode_binary(b"\x00\x00\x00\x01\x01te[]").unwrap();
        assert_eq!((nameless.join_ref, nameless.reference), (None, None));
        assert!(decode_binary(br#"[null,"7","phoenix","heartbeat",{}]"#).is_ok());
        for other in [&b""[..], b"\x01\x00", b"\x02", b"hello", b"\xff"] {
            assert_eq!(decode_binary(other).map(drop), Err(Malformed::NoPush));
        }
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        for frame in [r#"[null,"7","phoenix","heartbeat",{}]"#, r#"{"topic":"t","event":"e"}"#] {
            let marked = format!("{MARK}{frame}");
            assert!(decode(&marked).is_ok() && decode_binary(marked.as_bytes()).is_ok(), "{frame}");
            assert_eq!(
                decode(&format!("{MARK}{marked}")).map(drop),
                Err(Malformed::NoFrame),
                "one is enough"
            );
        }
    }

    #[test]
    fn other_texts_are_no_frames() {
        for other in [
            "",
            "x",
            "1",
            "null",
            "[]",
            "{}",
            r#"["1","1","t","e"]"#,
            r#"["1","1",3,"e",{}]"#,
            r#"{"topic":1,"event":"e"}"#,
        ] {
            assert_eq!(decode(other).map(drop), Err(Malformed::NoFrame), "{other}");
        }
        for deep in [
            format!(r#"["1","1","t","e",{}1{}]"#, "[".repeat(64), "]".repeat(64)),
            "[".repeat(1 << 20),
            "{\"a\":".repeat(100),
        ] {
            assert_eq!(decode(&deep).map(drop), Err(Malformed::TooDeep));
        }
        let long = "x".repeat(300);
        assert_eq!(decode(&format!(r#"["1","{long}","t","e",{{}}]"#)).map(drop), Err(Malformed::LongRef));
        assert_eq!(decode(&format!(r#"["1","1","{long}","e",{{}}]"#)).map(drop), Err(Malformed::LongName));
    }
}
