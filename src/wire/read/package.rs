//! One upstream document, of any form in use, becomes a killmail, or a reference to one whose body must be
//! fetched, or is refused.
//!
//! Forms: bare ESI bodies, EVE Ref lines, zKillboard's websocket and REST rows, our own; R2Z2 documents
//! (`esi` beside `zkb`); RedisQ packages with and without `killmail`; raw days. CREST's and zKillboard's of
//! 2013 are known and refused, never mangled.
//!
//! Must not know: where a document came from, what becomes of refused ones.

use std::borrow::Cow;
use std::ops::ControlFlow;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::domain::hash::COMPUTED;
use crate::domain::killmail::{Extra, Killmail};
use crate::domain::unreadable::Unreadable;
use crate::domain::zkb::Zkb;
use crate::wire::keys::keep;
use crate::wire::read::json::{Shape, without_bom};
use crate::wire::read::member::{count, text};
use crate::wire::read::node::{Fields, Node};
use crate::wire::read::number::{shown, whole};
use crate::wire::read::reason::{Flaw, Reason};
use crate::wire::read::{body, lenient, zkb};

/// No document is larger than this, bytes: ten times the largest killmail there ever was.
pub const DOCUMENT_MAX_BYTES: usize = 8 << 20;

/// What a document carries. Exactly one of `killmail` and `reference` is there.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Package {
    /// The killmail, where the document has its body.
    pub killmail: Option<Killmail>,
    /// What is known of a killmail whose body the document lacks.
    pub reference: Option<Reference>,
    /// When the source published it, unix seconds.
    pub uploaded_at: Option<i64>,
    /// The source's own number of the document.
    pub sequence: Option<u64>,
    /// An older document that was rewritten and should be read again.
    pub sequence_updated: Option<u64>,
}

/// A killmail by name only.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    /// Which killmail.
    pub killmail_id: u32,
    /// ESI's key to its body.
    pub hash: String,
    /// What zKillboard knows of it.
    pub zkb: Option<Zkb>,
    /// What of that cannot be read.
    pub unreadable: Unreadable,
}

/// A document that was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Refused {
    /// The word.
    pub reason: Reason,
    /// What exactly is wrong.
    pub message: String,
    /// The member at fault, where it is one.
    pub field: Option<&'static str>,
    /// The killmail it names, if it names one, as it names it.
    pub killmail_id: Option<u64>,
}

/// Reads one document; a byte order mark before it is skipped.
///
/// # Errors
/// Why it is refused. Any bytes are answered, none can hurt.
pub fn parse(document: &[u8]) -> Result<Package, Refused> {
    let refused = |flaw: Box<Flaw>, killmail_id| Refused {
        reason: flaw.reason,
        message: flaw.message,
        field: flaw.field,
        killmail_id,
    };
    if document.len() > DOCUMENT_MAX_BYTES {
        let message = format!("{} bytes, more than {DOCUMENT_MAX_BYTES}", document.len());
        return Err(refused(Flaw::new(Reason::TooLarge, message), None));
    }
    match tree(without_bom(document)) {
        Ok(Node::Object(fields)) => {
            let named = named_id(&fields);
            read(fields).map_err(|flaw| refused(flaw, named))
        }
        Ok(other) => {
            Err(refused(Flaw::new(Reason::NotAnObject, format!("the document is {}", other.shown())), None))
        }
        Err(flaw) => Err(refused(flaw, None)),
    }
}

/// A document with a value the parser cannot take, or with too many of them, is read part by part.
fn tree(document: &[u8]) -> Result<Node<'_>, Box<Flaw>> {
    let usual =
        if lenient::is_large(Shape::of(document)) { None } else { serde_json::from_slice(document).ok() };
    usual.map_or_else(|| lenient::read(document), Ok)
}

/// A document as JSON that every parser takes: what none takes in it is a text. `None`: it is not whole.
#[must_use]
pub fn readable(document: &[u8]) -> Option<Cow<'_, [u8]>> {
    match serde_json::from_slice::<&RawValue>(document) {
        Ok(_) => Some(Cow::Borrowed(document)),
        Err(_) => {
            lenient::read(document).ok().map(|node| Cow::Owned(node.readable().to_string().into_bytes()))
        }
    }
}

/// Reads a raw day: one object, killmail id to body. Calls `each` with the key and what came of the body, in
/// the order of the file, until it breaks.
///
/// # Errors
/// The text is no JSON object, or is cut off; what was read before was handed over.
pub fn parse_day(
    day: &[u8],
    mut each: impl FnMut(&str, Result<Package, Refused>) -> ControlFlow<()>,
) -> Result<(), Refused> {
    let read = lenient::members(without_bom(day), |key, body| each(key, parse_named(key, body)));
    read.map_err(|flaw| Refused {
        reason: flaw.reason,
        message: flaw.message,
        field: flaw.field,
        killmail_id: None,
    })
}

fn parse_named(key: &str, body: &[u8]) -> Result<Package, Refused> {
    let package = parse(body)?;
    let named = package
        .killmail
        .as_ref()
        .map(|k| k.killmail_id)
        .or(package.reference.as_ref().map(|r| r.killmail_id));
    if named.map(|id| id.to_string()).as_deref() == Some(key) {
        return Ok(package);
    }
    let message = format!("filed under {}", shown(&Value::from(key)));
    Err(Refused {
        reason: Reason::IdMismatch,
        message,
        field: Some("killmail_id"),
        killmail_id: named.map(u64::from),
    })
}

/// The killmail a document is about, for the pile of the refused: the first place that names one.
fn named_id(fields: &Fields<'_>) -> Option<u64> {
    let named = ["killmail_id", "killID"].into_iter().find_map(|key| fields.get(key).and_then(whole));
    named.or_else(|| {
        let object = |key| if let Some(Node::Object(inner)) = fields.get(key) { Some(inner) } else { None };
        ["package", "killmail", "esi"].into_iter().find_map(object).and_then(named_id)
    })
}

fn read(mut fields: Fields<'_>) -> Result<Package, Box<Flaw>> {
    match fields.take("package") {
        Some(Node::Null) => {
            return Err(Flaw::new(Reason::NoPackage, "the package is null: nothing happened"));
        }
        Some(Node::Object(package)) => return read_enveloped(package, "killmail"),
        Some(other) => fields.0.push(("package".into(), other)),
        None => {}
    }
    if fields.has("esi") {
        return read_enveloped(fields, "esi");
    }
    if fields.get("killmail").is_some_and(|inner| matches!(inner, Node::Object(_))) {
        return read_enveloped(fields, "killmail");
    }
    refuse_legacy(&fields)?;
    let no_body = ["victim", "attackers"]
        .into_iter()
        .all(|part| fields.get(part).is_none_or(|part| *part == Node::Null));
    if no_body && fields.has("zkb") {
        return read_enveloped(fields, "killmail");
    }
    Ok(Package { killmail: Some(body::read(fields)?), ..Package::default() })
}

/// What stands around a body.
#[derive(Default)]
struct Envelope<'a> {
    id: Option<Node<'a>>,
    hash: Option<String>,
    zkb: Option<Zkb>,
    body: Option<Node<'a>>,
    extra: Extra,
    unreadable: Unreadable,
    package: Package,
}

/// A body under the key `inside`, with its id, hash and zkb block beside it.
fn read_enveloped(fields: Fields<'_>, inside: &str) -> Result<Package, Box<Flaw>> {
    let mut envelope = Envelope::default();
    let mut computed = false;
    for (name, value) in fields.0 {
        match name.as_ref() {
            name if name == inside => envelope.body = Some(value),
            _ if value == Node::Null => {}
            "killmail_id" | "killID" => envelope.id = Some(value),
            "hash" | "killmail_hash" => envelope.hash = text(&value, &name, &mut envelope.unreadable),
            "hash_source" => computed = value.text() == Some(COMPUTED),
            "zkb" => envelope.zkb = zkb::read(value, false, &mut envelope.unreadable),
            "uploaded_at" => envelope.package.uploaded_at = count(&value, &name, &mut envelope.unreadable),
            "sequence_id" => envelope.package.sequence = count(&value, &name, &mut envelope.unreadable),
            "sequence_updated" => {
                envelope.package.sequence_updated = count(&value, &name, &mut envelope.unreadable)
            }
            _ => keep(&mut envelope.extra, &mut envelope.unreadable, &name, value),
        }
    }
    // A reference keeps it: it is right, and the body is asked for by it.
    if computed && matches!(envelope.body, Some(Node::Object(_))) {
        body::forget_hash(&mut envelope.hash, envelope.zkb.as_mut());
    }
    match envelope.body.take() {
        Some(Node::Object(fields)) => open(envelope, fields),
        None | Some(Node::Null) if inside == "esi" => {
            Err(Flaw::new(Reason::Placeholder, "the document holds no killmail"))
        }
        None | Some(Node::Null) => refer(envelope),
        Some(other) => {
            Err(Flaw::new(Reason::MissingFields, format!("{inside} is no object: {}", other.shown())))
        }
    }
}

fn open(envelope: Envelope<'_>, fields: Fields<'_>) -> Result<Package, Box<Flaw>> {
    refuse_legacy(&fields)?;
    let Envelope { id, hash, zkb, extra, mut unreadable, mut package, .. } = envelope;
    let mut killmail = body::read(fields)?;
    if let Some(id) = id.as_ref().filter(|id| id.integer().is_none()) {
        unreadable.insert("killmail_id", id.clone().raw());
    }
    // The body says who it is; an envelope that says nothing that can be read does not contradict it.
    if let Some(id) = id.filter(|id| id.integer().is_some_and(|id| id != 0))
        && body::named(&id, "the envelope's killmail_id", Reason::InvalidKillmailId)
            .map_err(|flaw| flaw.about("killmail_id"))?
            != killmail.killmail_id
    {
        let message = format!("the envelope names {}, the body {}", id.shown(), killmail.killmail_id);
        return Err(Flaw::new(Reason::IdMismatch, message).about("killmail_id"));
    }
    body::take_up(&mut killmail, hash, zkb, extra, &unreadable);
    package.killmail = Some(killmail);
    Ok(package)
}

fn refer(envelope: Envelope<'_>) -> Result<Package, Box<Flaw>> {
    let Envelope { id, hash, zkb, unreadable, mut package, .. } = envelope;
    let id = id.ok_or_else(|| {
        Flaw::new(Reason::MissingFields, "Missing required fields: killmail_id").about("killmail_id")
    })?;
    let killmail_id = body::named(&id, "killmail_id", Reason::InvalidKillmailId)
        .map_err(|flaw| flaw.about("killmail_id"))?;
    let hash = hash.or_else(|| zkb.as_ref()?.hash.clone()).filter(|hash| !hash.is_empty());
    let hash = hash.ok_or_else(|| {
        Flaw::new(Reason::MissingHash, "neither a body nor the hash to fetch it with").about("hash")
    })?;
    package.reference = Some(Reference { killmail_id, hash, zkb, unreadable });
    Ok(package)
}

/// Forms of old that only look like killmails.
fn refuse_legacy(fields: &Fields<'_>) -> Result<(), Box<Flaw>> {
    if fields.has("killmail_id") {
        return Ok(());
    }
    if fields.has("solarSystem") {
        return Err(Flaw::new(
            Reason::LegacyCrest,
            "a CREST killmail; ask ESI for this one by its id and hash",
        ));
    }
    if fields.has("solarSystemID") || (fields.has("killID") && fields.has("killTime")) {
        return Err(Flaw::new(
            Reason::Legacy2013,
            "zKillboard's form of 2013; ask ESI for this one by its id and hash",
        ));
    }
    Ok(())
}

#[cfg(test)]
#[path = "package_tests.rs"]
mod tests;
