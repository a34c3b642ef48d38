//! Every tree and every key on disk at one glance: what stands under it, and how long it lives. What a value
//! looks like in bytes is said in `format/` and by whoever writes it; the files beside the engine are drawn
//! in `docs/storage.md`.
//!
//! Must not know: which engine keeps the values.

/// A map of keys to values that the engine keeps apart from the others. On disk by number and by name: append
/// only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tree {
    /// Killmails, by id.
    Records,
    /// The log, by number.
    Log,
    /// What revisions replaced, by revision.
    Revisions,
    /// The store's own values.
    Meta,
    /// Plugins, by name.
    Plugins,
    /// Documents that could not be read.
    Refused,
}

impl Tree {
    /// All of them, the store's own values last: a copy without them is seen to be unfinished.
    pub const ALL: [Self; 6] =
        [Self::Records, Self::Log, Self::Revisions, Self::Plugins, Self::Refused, Self::Meta];
    /// Their names, by number.
    pub const NAMES: [&str; 6] = ["records", "log", "revisions", "meta", "plugins", "refused"];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// A key. Numbers in keys are big endian, so that keys ascend with them. A value that is too long for one
/// chunk goes on under the same key with the chunk's number behind it (`engine/chunked_values`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key<'a> {
    /// Killmail id -> its record, one frame or several. Replaced by each revision, never removed.
    Record(u32),
    /// Number in the log -> the entry without items and texts. Replaced by each revision, never removed.
    LogEntry(u64),
    /// Revision -> the number it changed and the entry before it. Never changed.
    Revision(u64),
    /// The arrangement of trees and keys. Written once.
    Schema,
    /// The store's identity. Written once, and again by the first start of a restored backup.
    Epoch,
    /// This store was restored from a backup; removed by its first start.
    Restored,
    /// Head, killmails, revisions and conflicts. Replaced in each transaction.
    Numbers,
    /// Ranges of numbers that `salvage` could not bring back. Written once.
    LostNumbers,
    /// A dictionary that records are compressed with. Never changed, never removed.
    Dictionary(u8),
    /// Source -> how far it was read. Replaced with what it brought.
    Checkpoint(&'a str),
    /// Killmail id -> a document that only names the killmail. Removed when its body has come.
    Wanted(u32),
    /// Number in the log -> a stretch of time that archives filled in. Never changed.
    Span(u64),
    /// Number of a file of the mirror -> the older file whose revision it tells of. Never changed.
    RevisionNotice(u64),
    /// Number of a file of the mirror -> the entry it begins a run with. Never changed.
    FileRun(u64),
    /// Name of a plugin -> its versions. Replaced at each change, removed with the plugin.
    Plugin(&'a str),
    /// Number -> a document that could not be read. Removed when there are too many.
    RefusedDocument(u64),
    /// Reason -> how many documents were refused for it. Never removed.
    RefusedCount(&'a str),
}

/// What keys of one kind begin with, for scans of a tree.
pub mod prefix {
    /// [`super::Key::Dictionary`].
    pub const DICTIONARY: &[u8] = b"dict/";
    /// [`super::Key::Checkpoint`].
    pub const CHECKPOINT: &[u8] = b"checkpoint/";
    /// [`super::Key::Wanted`]: checkpoints, so that they are kept wherever those are.
    pub const WANTED: &[u8] = b"checkpoint/wanted/";
    /// [`super::Key::Span`].
    pub const SPAN: &[u8] = b"span/";
    /// [`super::Key::RevisionNotice`].
    pub const REVISION_NOTICE: &[u8] = b"told/";
    /// [`super::Key::FileRun`].
    pub const FILE_RUN: &[u8] = b"file/";
    /// [`super::Key::RefusedCount`]; documents stand under their numbers, whose first byte is 0 for ages.
    pub const REFUSED_COUNT: &[u8] = &[0xFF];
}

impl Key<'_> {
    /// The tree it is in.
    #[must_use]
    pub const fn tree(&self) -> Tree {
        match self {
            Self::Record(_) => Tree::Records,
            Self::LogEntry(_) => Tree::Log,
            Self::Revision(_) => Tree::Revisions,
            Self::Plugin(_) => Tree::Plugins,
            Self::RefusedDocument(_) | Self::RefusedCount(_) => Tree::Refused,
            _ => Tree::Meta,
        }
    }

    /// The key as it stands on disk.
    #[must_use]
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
            // Chunks have a number behind the zero byte, which no name has.
            Self::Plugin(name) => [name.as_bytes(), &[0]].concat(),
            Self::RefusedCount(reason) => [prefix::REFUSED_COUNT, reason.as_bytes()].concat(),
        }
    }
}

/// The number behind a prefix, if that is all there is in the key.
#[must_use]
pub fn number_after(prefix: &[u8], key: &[u8]) -> Option<u64> {
    key.strip_prefix(prefix)?.as_array().copied().map(u64::from_be_bytes)
}

/// The number of the refused document that begins under a key; counts have none, nor have further chunks.
#[must_use]
pub fn refused_document(key: &[u8]) -> Option<u64> {
    if key.starts_with(prefix::REFUSED_COUNT) { None } else { number_after(&[], key) }
}

/// Whether a value is so small and so dear that it is kept a second time, in a file beside the engine
/// (`engine/second`).
#[must_use]
pub fn is_kept_twice(tree: Tree, key: &[u8]) -> bool {
    let kept = [prefix::CHECKPOINT, prefix::REVISION_NOTICE, prefix::FILE_RUN];
    match tree {
        Tree::Plugins => true,
        Tree::Meta => {
            kept.into_iter().any(|prefix| key.starts_with(prefix))
                || number_after(prefix::SPAN, key).is_some()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One key of each kind, as it has always stood on disk.
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
        (Key::Plugin("rich"), Tree::Plugins, b"rich\0"),
        (Key::RefusedDocument(5), Tree::Refused, &[0, 0, 0, 0, 0, 0, 0, 5]),
        (Key::RefusedCount("no_id"), Tree::Refused, b"\xFFno_id"),
    ];

    #[test]
    fn keys_stand_on_disk_as_they_always_did() {
        for (key, tree, bytes) in KEYS {
            assert_eq!((key.tree(), key.bytes()), (*tree, bytes.to_vec()), "{key:?}");
        }
    }

    #[test]
    fn small_values_are_kept_twice_and_killmails_are_not() {
        let twice: Vec<Key<'_>> =
            KEYS.iter().filter(|(_, tree, key)| is_kept_twice(*tree, key)).map(|(key, ..)| *key).collect();
        let expected = [
            Key::Checkpoint("r2z2"),
            Key::Wanted(1),
            Key::Span(2),
            Key::RevisionNotice(3),
            Key::FileRun(4),
            Key::Plugin("rich"),
        ];
        assert_eq!(twice, expected);
        assert_eq!([b"\0\0\0\0\0\0\0\x05", b"\xFFno_idea"].map(|key| refused_document(key)), [Some(5), None]);
    }
}
