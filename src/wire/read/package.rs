//! Reads an upstream document of any format in use: the result is a killmail, a reference to one whose body
//! has to be fetched, or a refusal.
//!
//! Formats: bare ESI bodies, lines of EVE Ref, zKillboard's websocket and REST rows, our own; R2Z2 documents
//! (`esi` beside `zkb`); RedisQ packages with and without `killmail`. The formats of CREST and of zKillboard in
//! 2013 are recognised and refused, so that they are never misread.
//!
//! Must not know: where a document came from, or what happens to refused ones.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::domain::hash::COMPUTED;
use crate::domain::killmail::{Extra, Killmail};
use crate::domain::unreadable::UnreadableMembers;
use crate::domain::zkb::Zkb;
use crate::wire::keys::keep_unknown;
use crate::wire::read::json::{Shape, without_bom};
use crate::wire::read::member::{count, text};
use crate::wire::read::node::{Fields, Node};
use crate::wire::read::number::parse_integer;
use crate::wire::read::reason::{ReadError, Reason};
use crate::wire::read::{body, lenient, zkb};

/// Largest document, bytes: ten times the largest killmail ever.
pub const DOCUMENT_MAX_BYTES: usize = 8 << 20;

/// The contents of a document. Exactly one of `killmail` and `reference` is set.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Package {
    /// The killmail, if the document has its body.
    pub killmail: Option<Killmail>,
    /// The reference, if the document lacks the body.
    pub reference: Option<Reference>,
    /// When the source published it, unix seconds.
    pub uploaded_at: Option<i64>,
    /// The document's number in the source's sequence.
    pub sequence: Option<u64>,
    /// Number of an older document that was rewritten and should be read again.
    pub sequence_updated: Option<u64>,
}

/// Id and hash of a killmail whose body has to be fetched.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    /// Id of the killmail.
    pub killmail_id: u32,
    /// The hash that ESI requires.
    pub hash: String,
    /// zKillboard's block, if the document had one.
    pub zkb: Option<Zkb>,
    /// Members of the envelope that could not be read.
    pub unreadable: UnreadableMembers,
}

/// The reason of a document that only names a killmail.
pub const NO_BODY: &str = "no_body";

/// A document that was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Refused {
    /// Why, as a word for metrics and reports.
    pub reason: Reason,
    /// What exactly is wrong, for people.
    pub message: String,
    /// The member at fault, if it is a member.
    pub field: Option<&'static str>,
    /// Id of the killmail it is about, if it has one.
    pub killmail_id: Option<u64>,
}

/// Reads one document, with or without a byte order mark. Any bytes are safe to pass.
///
/// # Errors
/// Why it is refused.
pub fn parse(document: &[u8]) -> Result<Package, Refused> {
    let refused = |flaw: Box<ReadError>, killmail_id| Refused {
        reason: flaw.reason,
        message: flaw.message,
        field: flaw.field,
        killmail_id,
    };
    if document.len() > DOCUMENT_MAX_BYTES {
        let message = format!("{} bytes, more than {DOCUMENT_MAX_BYTES}", document.len());
        return Err(refused(ReadError::new(Reason::TooLarge, message), None));
    }
    match parse_tree(without_bom(document)) {
        Ok(Node::Object(fields)) => {
            let named = find_id(&fields);
            read(fields).map_err(|flaw| refused(flaw, named))
        }
        Ok(other) => Err(refused(
            ReadError::new(Reason::NotAnObject, format!("the document is {}", other.describe())),
            None,
        )),
        Err(flaw) => Err(refused(flaw, None)),
    }
}

/// Parses with serde; `lenient` reads documents that serde rejects or that are too large.
fn parse_tree(document: &[u8]) -> Result<Node<'_>, Box<ReadError>> {
    let strict = if lenient::is_large(Shape::measure(document)) {
        None
    } else {
        serde_json::from_slice(document).ok()
    };
    strict.map_or_else(|| lenient::read(document), Ok)
}

/// The document as valid JSON, with invalid values replaced by strings; `None` if it is truncated or
/// malformed.
#[must_use]
pub fn to_valid_json(document: &[u8]) -> Option<Cow<'_, [u8]>> {
    match serde_json::from_slice::<&RawValue>(document) {
        Ok(_) => Some(Cow::Borrowed(document)),
        Err(_) => lenient::read(document)
            .ok()
            .map(|node| Cow::Owned(node.into_valid_json().to_string().into_bytes())),
    }
}

/// The id of the killmail a refused document is about, from the first place that has one.
fn find_id(fields: &Fields<'_>) -> Option<u64> {
    let direct =
        ["killmail_id", "killID"].into_iter().find_map(|key| fields.get(key).and_then(parse_integer));
    direct.or_else(|| {
        let object = |key| if let Some(Node::Object(inner)) = fields.get(key) { Some(inner) } else { None };
        ["package", "killmail", "esi"].into_iter().find_map(object).and_then(find_id)
    })
}

fn read(mut fields: Fields<'_>) -> Result<Package, Box<ReadError>> {
    match fields.take("package") {
        Some(Node::Null) => {
            return Err(ReadError::new(Reason::NoPackage, "the package is null: nothing happened"));
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

/// What surrounds a body.
#[derive(Default)]
struct Envelope<'a> {
    id: Option<Node<'a>>,
    hash: Option<String>,
    zkb: Option<Zkb>,
    body: Option<Node<'a>>,
    extra: Extra,
    unreadable: UnreadableMembers,
    package: Package,
}

/// Reads a body under the key `inside`, with id, hash and zKillboard's block beside it.
fn read_enveloped(fields: Fields<'_>, inside: &str) -> Result<Package, Box<ReadError>> {
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
            _ => keep_unknown(&mut envelope.extra, &mut envelope.unreadable, &name, value),
        }
    }
    // A reference keeps the hash: it is right, and needed to fetch the body.
    if computed && matches!(envelope.body, Some(Node::Object(_))) {
        body::forget_hash(&mut envelope.hash, envelope.zkb.as_mut());
    }
    match envelope.body.take() {
        Some(Node::Object(fields)) => read_body_in(envelope, fields),
        None | Some(Node::Null) if inside == "esi" => {
            Err(ReadError::new(Reason::Placeholder, "the document holds no killmail"))
        }
        None | Some(Node::Null) => read_reference(envelope),
        Some(other) => Err(ReadError::new(
            Reason::MissingFields,
            format!("{inside} is not an object: {}", other.describe()),
        )),
    }
}

fn read_body_in(envelope: Envelope<'_>, fields: Fields<'_>) -> Result<Package, Box<ReadError>> {
    refuse_legacy(&fields)?;
    let Envelope { id, hash, zkb, extra, mut unreadable, mut package, .. } = envelope;
    let mut killmail = body::read(fields)?;
    if let Some(id) = id.as_ref().filter(|id| id.integer().is_none()) {
        unreadable.insert("killmail_id", id.clone().into_raw());
    }
    // The id in the body counts. An unreadable id in the envelope does not contradict it.
    if let Some(id) = id.filter(|id| id.integer().is_some_and(|id| id != 0))
        && body::read_nonzero_id(&id, "the envelope's killmail_id", Reason::InvalidKillmailId)
            .map_err(|error| error.about("killmail_id"))?
            != killmail.killmail_id
    {
        let message = format!("the envelope names {}, the body {}", id.describe(), killmail.killmail_id);
        return Err(ReadError::new(Reason::IdMismatch, message).about("killmail_id"));
    }
    body::add_envelope(&mut killmail, hash, zkb, extra, &unreadable);
    package.killmail = Some(killmail);
    Ok(package)
}

fn read_reference(envelope: Envelope<'_>) -> Result<Package, Box<ReadError>> {
    let Envelope { id, hash, zkb, unreadable, mut package, .. } = envelope;
    let id = id.ok_or_else(|| {
        ReadError::new(Reason::MissingFields, "Missing required fields: killmail_id").about("killmail_id")
    })?;
    let killmail_id = body::read_nonzero_id(&id, "killmail_id", Reason::InvalidKillmailId)
        .map_err(|error| error.about("killmail_id"))?;
    let hash = hash.or_else(|| zkb.as_ref()?.hash.clone()).filter(|hash| !hash.is_empty());
    let hash = hash.ok_or_else(|| {
        ReadError::new(Reason::MissingHash, "neither a body nor a hash to fetch it").about("hash")
    })?;
    package.reference = Some(Reference { killmail_id, hash, zkb, unreadable });
    Ok(package)
}

/// Refuses obsolete formats that resemble killmails.
fn refuse_legacy(fields: &Fields<'_>) -> Result<(), Box<ReadError>> {
    if fields.has("killmail_id") {
        return Ok(());
    }
    if fields.has("solarSystem") {
        return Err(ReadError::new(
            Reason::LegacyCrest,
            "a CREST killmail; ask ESI for this one by its id and hash",
        ));
    }
    if fields.has("solarSystemID") || (fields.has("killID") && fields.has("killTime")) {
        return Err(ReadError::new(
            Reason::Legacy2013,
            "zKillboard's format of 2013; ask ESI for this one by its id and hash",
        ));
    }
    Ok(())
}

#[cfg(test)]
#[path = "package_tests.rs"]
mod tests;
