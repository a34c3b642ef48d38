//! Every tree and every key on disk: what is stored under it, and how long it lives. The layout of a value is
//! defined in `format/` or by the module that writes it. `docs/storage.md` describes both, and the files outside
//! the engine.
//!
//! Must not know: which engine stores the values.

/// A separate map of keys to values in the engine. Its number and its name are on disk: append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tree {
    /// Killmails, by id.
    Records,
    /// Log entries, by number.
    Log,
    /// Log entries that revisions replaced, by revision.
    Revisions,
    /// Values of the store itself.
    Meta,
    /// Plugins, by name.
    Plugins,
    /// Documents that could not be read.
    Refused,
}

impl Tree {
    /// All trees in the order they are copied: `Meta` is last, so that an unfinished copy is recognized by its
    /// absence.
    pub const ALL: [Self; 6] =
        [Self::Records, Self::Log, Self::Revisions, Self::Plugins, Self::Refused, Self::Meta];
    /// Names on disk, by number.
    pub const NAMES: [&str; 6] = ["records", "log", "revisions", "meta", "plugins", "refused"];

    pub const fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// A key. Numbers in keys are big endian, so that keys sort by number. A value that is too long for one chunk
/// continues under the same key followed by the number of the chunk (`engine/chunked_values`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key<'a> {
    /// Killmail id -> its record, one frame or several. Replaced by each revision, never removed.
    Record(u32),
    /// Number in the log -> the log entry. Replaced by each revision, never removed.
    LogEntry(u64),
    /// Revision -> the number it changed, and the log entry before the change. Never changed.
    Revision(u64),
    /// Version of the layout of trees and keys. Written once.
    Schema,
    /// Identity of the store. Written once, and again by the first start of a restored backup.
    Epoch,
    /// Present if the store was restored from a backup and not started yet; removed by its first start.
    Restored,
    /// Head, and the numbers of killmails, revisions and conflicts. Replaced in each transaction.
    Numbers,
    /// Ranges of numbers that `salvage` could not recover. Written once.
    LostNumbers,
    /// Number of a dictionary -> the dictionary. Never changed, never removed.
    Dictionary(u8),
    /// Source -> how far it was read. Replaced together with the killmails it brought.
    Checkpoint(&'a str),
    /// Killmail id -> a document that only names the killmail. Removed once its body has arrived.
    Wanted(u32),
    /// Number in the log -> a time span that was filled in from archives. Never changed.
    Span(u64),
    /// Number of a file of the mirror -> the older file whose revision it announces. Never changed.
    RevisionNotice(u64),
    /// Number of a file of the mirror -> the log entry from which both numbers grow in step. Never changed.
    FileRun(u64),
    /// Subscription -> what its owner asked for. Replaced at each change, removed with the subscription.
    Webhook(&'a str),
    /// Subscription -> how far it was delivered. Replaced after each attempt, removed with the subscription.
    WebhookState(&'a str),
    /// Subscription and slot -> one of its last attempts. Replaced when the slots are used up, removed with the
    /// subscription.
    WebhookAttempt(&'a str, u8),
    /// Name of a plugin -> its versions. Replaced at each change, removed with the plugin.
    Plugin(&'a str),
    /// Number -> a document that could not be read. Removed when there are too many.
    RefusedDocument(u64),
    /// Reason -> how many documents were refused for it. Never removed.
    RefusedCount(&'a str),
}

/// Prefixes of the keys of one kind, for scanning a tree.
pub mod prefix {
    pub const DICTIONARY: &[u8] = b"dict/";
    pub const CHECKPOINT: &[u8] = b"checkpoint/";
    /// Begins like a checkpoint, so that these keys are copied wherever checkpoints are.
    pub const WANTED: &[u8] = b"checkpoint/wanted/";
    pub const SPAN: &[u8] = b"span/";
    pub const REVISION_NOTICE: &[u8] = b"told/";
    pub const FILE_RUN: &[u8] = b"file/";
    pub const WEBHOOK: &[u8] = b"webhook/";
    pub const WEBHOOK_STATE: &[u8] = b"webhook-state/";
    pub const WEBHOOK_ATTEMPT: &[u8] = b"webhook-attempt/";
    /// Distinguishes counts from documents, whose keys are numbers with a first byte of 0.
    pub const REFUSED_COUNT: &[u8] = &[0xFF];
}

impl Key<'_> {
    pub const fn tree(&self) -> Tree {
        match self {
            Self::Record(_) => Tree::Records,
            Self::LogEntry(_) => Tree::Log,
            Self::Revision(_) => Tree::Revisions,
            Self::Plugin(_) => Tree::Plugins,
            Self::RefusedDocument(_) | Self::RefusedCount(_) => Tree::Refused,
            Self::Schema
            | Self::Epoch
            | Self::Restored
            | Self::Numbers
            | Self::LostNumbers
            | Self::Dictionary(_)
            | Self::Checkpoint(_)
            | Self::Wanted(_)
            | Self::Span(_)
            | Self::RevisionNotice(_)
            | Self::FileRun(_)
            | Self::Webhook(_)
            | Self::WebhookState(_)
            | Self::WebhookAttempt(..) => Tree::Meta,
        }
    }

    /// The key on disk.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Record(id) => u64::from(*id).to_be_bytes().to_vec(),
            Self::LogEntry(number) | Self::Revision(number) | Self::RefusedDocument(number) => {
                number.to_be_bytes().to_vec()
            }
            Self::Schema => b"schema".to_vec(),
            Self::Epoch => b"epoch".to_vec(),
            Self::Restored => b"restored".to_vec(),
            Self::Numbers => b"numbers".to_vec(),
            Self::LostNumbers => b"holes".to_vec(),
            Self::Dictionary(number) => [prefix::DICTIONARY, &[*number]].concat(),
            Self::Checkpoint(source) => [prefix::CHECKPOINT, source.as_bytes()].concat(),
            Self::Wanted(id) => [prefix::WANTED, &id.to_be_bytes()].concat(),
            Self::Span(number) => [prefix::SPAN, &number.to_be_bytes()].concat(),
            Self::RevisionNotice(file) => [prefix::REVISION_NOTICE, &file.to_be_bytes()].concat(),
            Self::FileRun(file) => [prefix::FILE_RUN, &file.to_be_bytes()].concat(),
            Self::Webhook(id) => [prefix::WEBHOOK, id.as_bytes()].concat(),
            Self::WebhookState(id) => [prefix::WEBHOOK_STATE, id.as_bytes()].concat(),
            Self::WebhookAttempt(id, slot) => [prefix::WEBHOOK_ATTEMPT, id.as_bytes(), &[*slot]].concat(),
            // The zero byte, which no name contains, separates the name from the number of a chunk.
            Self::Plugin(name) => [name.as_bytes(), &[0]].concat(),
            Self::RefusedCount(reason) => [prefix::REFUSED_COUNT, reason.as_bytes()].concat(),
        }
    }
}

/// The number after a prefix; `None` if the key contains anything else.
pub fn number_after(prefix: &[u8], key: &[u8]) -> Option<u64> {
    key.strip_prefix(prefix)?.as_array().copied().map(u64::from_be_bytes)
}

/// The number of a refused document, if the key is that of its first chunk.
pub fn refused_document(key: &[u8]) -> Option<u64> {
    if key.starts_with(prefix::REFUSED_COUNT) { None } else { number_after(&[], key) }
}

/// Whether a second copy of the value is kept in a file outside the engine (`engine/second`), because it is small
/// and could not be recovered from the frames of killmails.
pub fn is_kept_twice(tree: Tree, key: &[u8]) -> bool {
    let prefixes = [
        prefix::CHECKPOINT,
        prefix::REVISION_NOTICE,
        prefix::FILE_RUN,
        prefix::WEBHOOK,
        prefix::WEBHOOK_STATE,
    ];
    match tree {
        Tree::Plugins => true,
        Tree::Meta => {
            prefixes.into_iter().any(|prefix| key.starts_with(prefix))
                || number_after(prefix::SPAN, key).is_some()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::mem::discriminant;

    use super::*;

    /// One key of each kind with its bytes on disk, which must never change.
    const KEYS: &[(Key<'_>, Tree, &[u8])] = &[
        (Key::Record(7), Tree::Records, &[0, 0, 0, 0, 0, 0, 0, 7]),
        (Key::LogEntry(258), Tree::Log, &[0, 0, 0, 0, 0, 0, 1, 2]),
        (Key::Revision(1), Tree::Revisions, &[0, 0, 0, 0, 0, 0, 0, 1]),
        (Key::Schema, Tree::Meta, b"schema"),
        (Key::Epoch, Tree::Meta, b"epoch"),
        (Key::Restored, Tree::Meta, b"restored"),
        (Key::Numbers, Tree::Meta, b"numbers"),
        (Key::LostNumbers, Tree::Meta, b"holes"),
        (Key::Dictionary(3), Tree::Meta, b"dict/\x03"),
        (Key::Checkpoint("r2z2"), Tree::Meta, b"checkpoint/r2z2"),
        (Key::Wanted(1), Tree::Meta, b"checkpoint/wanted/\0\0\0\x01"),
        (Key::Span(2), Tree::Meta, b"span/\0\0\0\0\0\0\0\x02"),
        (Key::RevisionNotice(3), Tree::Meta, b"told/\0\0\0\0\0\0\0\x03"),
        (Key::FileRun(4), Tree::Meta, b"file/\0\0\0\0\0\0\0\x04"),
        (Key::Webhook("one"), Tree::Meta, b"webhook/one"),
        (Key::WebhookState("one"), Tree::Meta, b"webhook-state/one"),
        (Key::WebhookAttempt("one", 7), Tree::Meta, b"webhook-attempt/one\x07"),
        (Key::Plugin("rich"), Tree::Plugins, b"rich\0"),
        (Key::RefusedDocument(5), Tree::Refused, &[0, 0, 0, 0, 0, 0, 0, 5]),
        (Key::RefusedCount("no_id"), Tree::Refused, b"\xFFno_id"),
    ];

    #[test]
    fn keys_on_disk_never_change() {
        for (key, tree, bytes) in KEYS {
            assert_eq!((key.tree(), key.bytes()), (*tree, bytes.to_vec()), "{key:?}");
        }
    }

    /// Decided for every key: a value that is lost with the engine unless it is kept twice.
    const fn must_be_kept_twice(key: &Key<'_>) -> bool {
        match key {
            Key::Checkpoint(_)
            | Key::Wanted(_)
            | Key::Span(_)
            | Key::RevisionNotice(_)
            | Key::FileRun(_)
            | Key::Webhook(_)
            | Key::WebhookState(_)
            | Key::Plugin(_) => true,
            // Recovered from the frames of killmails, or written by the next start.
            Key::Record(_)
            | Key::LogEntry(_)
            | Key::Revision(_)
            | Key::Schema
            | Key::Epoch
            | Key::Restored
            | Key::Numbers
            | Key::LostNumbers
            | Key::Dictionary(_) => false,
            // Too many, and only shown to people.
            Key::WebhookAttempt(..) | Key::RefusedDocument(_) | Key::RefusedCount(_) => false,
        }
    }

    #[test]
    fn every_kind_of_key_is_listed_and_kept_as_decided() {
        let kinds: HashSet<_> = KEYS.iter().map(|(key, ..)| discriminant(key)).collect();
        assert_eq!(kinds.len(), KEYS.len(), "a key of each kind, once");
        for (key, tree, bytes) in KEYS {
            assert_eq!(is_kept_twice(*tree, bytes), must_be_kept_twice(key), "{key:?}");
        }
        assert_eq!([b"\0\0\0\0\0\0\0\x05", b"\xFFno_idea"].map(|key| refused_document(key)), [Some(5), None]);
    }

    #[test]
    fn every_key_of_meta_is_described() {
        let described = include_str!("../../docs/storage.md");
        for (key, ..) in KEYS.iter().filter(|(_, tree, _)| *tree == Tree::Meta) {
            let bytes = key.bytes();
            let end = bytes.iter().rposition(|byte| *byte == b'/').map_or(bytes.len(), |at| at + 1);
            let text = format!("\"{}\"", String::from_utf8_lossy(&bytes[..end]));
            assert!(described.contains(&text), "docs/storage.md does not describe {text}");
        }
    }
}
