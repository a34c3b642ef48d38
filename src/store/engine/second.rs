//! A second copy of the small values of a store (plugins, checkpoints, spans, file numbers and revision notices),
//! in the file `small` outside the engine. These values have no frames in the engine's files, so `salvage` reads
//! them from here if the engine does not open.
//!
//! Values are appended as they are written and not synced. After a power failure the file may be behind; every
//! start rewrites it. If a key occurs several times, the last value counts.
//!
//! ```text
//! tree u8 | removed u8 | key length u16 | key | value, each in an envelope
//! ```
//!
//! Must not know: what the values mean.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::store::format::envelope::{self, Magic};
use crate::store::format::varint::{Cursor, Malformed};
use crate::store::keys::Tree;
use crate::store::whole_file;

const NAME: &str = "small";
const MAGIC: Magic = [0xB5, b'K', b'S', 0x2E];
/// Bytes from the start of the contents to the key.
const HEAD_BYTES: usize = 4;
/// Bytes that may be appended to a small file before it is rewritten.
const ADDED_MAX: usize = 4 << 20;

pub type Values = BTreeMap<(Tree, Vec<u8>), Vec<u8>>;

/// The open file. The engine contains the same values, so none of them is kept in memory.
#[derive(Debug)]
pub struct SecondCopy {
    path: PathBuf,
    file: Option<File>,
    added: usize,
    added_max: usize,
}

/// Reads the intact values in the file of a data folder; there are none if it does not exist.
///
/// # Errors
/// The file system.
pub fn read(dir: &Path) -> io::Result<Values> {
    let bytes = match fs::read(dir.join(NAME)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Values::new()),
        bytes => bytes?,
    };
    let mut values = Values::new();
    for (_, entry) in envelope::find(MAGIC, &bytes, decode) {
        let key = (entry.tree, entry.key.to_vec());
        match entry.value {
            Some(value) => values.insert(key, value.to_vec()),
            None => values.remove(&key),
        };
    }
    Ok(values)
}

impl SecondCopy {
    /// Creates or replaces the file of a data folder. `sealed` is its content.
    ///
    /// # Errors
    /// The file system.
    pub fn create(dir: &Path, sealed: &[u8]) -> io::Result<Self> {
        let mut copy = Self { path: dir.join(NAME), file: None, added: 0, added_max: 0 };
        copy.rewrite(sealed)?;
        Ok(copy)
    }

    /// Appends a sealed value. Returns false if that failed or the file has grown too large: then it must be
    /// rewritten with all values.
    pub fn add(&mut self, sealed: &[u8]) -> bool {
        self.added += sealed.len();
        if self.added <= self.added_max
            && self.file.as_mut().is_some_and(|file| file.write_all(sealed).is_ok())
        {
            return true;
        }
        self.file = None;
        false
    }

    /// Replaces the content of the file.
    ///
    /// # Errors
    /// The file system.
    pub fn rewrite(&mut self, sealed: &[u8]) -> io::Result<()> {
        self.file = None;
        whole_file::write(&self.path, sealed)?;
        self.file = Some(File::options().append(true).open(&self.path)?);
        self.added = 0;
        // A large file may double, so that the cost of rewriting it stays small per value.
        self.added_max = sealed.len().max(ADDED_MAX);
        Ok(())
    }
}

/// The entry of a value in the file; `None` records that the value was removed.
pub fn seal(tree: Tree, key: &[u8], value: Option<&[u8]>) -> Vec<u8> {
    let value_bytes = value.unwrap_or_default();
    envelope::seal(MAGIC, HEAD_BYTES + key.len() + value_bytes.len(), |out| {
        out.extend_from_slice(&[tree as u8, u8::from(value.is_none())]);
        out.extend_from_slice(&(key.len() as u16).to_le_bytes());
        out.extend_from_slice(key);
        out.extend_from_slice(value_bytes);
    })
}

struct Entry<'a> {
    tree: Tree,
    key: &'a [u8],
    value: Option<&'a [u8]>,
}

fn decode(contents: &[u8]) -> Result<Entry<'_>, Malformed> {
    let mut cursor = Cursor::new(contents);
    let number = cursor.u8()?;
    let tree = Tree::ALL.into_iter().find(|tree| *tree as u8 == number).ok_or(Malformed)?;
    let removed = cursor.u8()? == 1;
    let key_length = usize::from(u16::from_le_bytes([cursor.u8()?, cursor.u8()?]));
    let (key, value) = contents[HEAD_BYTES..].split_at_checked(key_length).ok_or(Malformed)?;
    Ok(Entry { tree, key, value: (!removed).then_some(value) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, &str)]) -> Values {
        pairs
            .iter()
            .map(|(key, value)| ((Tree::Plugins, key.as_bytes().to_vec()), value.as_bytes().to_vec()))
            .collect()
    }

    fn sealed(values: &Values) -> Vec<u8> {
        values.iter().flat_map(|((tree, key), value)| seal(*tree, key, Some(value))).collect()
    }

    #[test]
    fn the_last_value_of_a_key_counts() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), Values::new());
        let mut copy = SecondCopy::create(dir.path(), &sealed(&values(&[("a", "1"), ("b", "2")]))).unwrap();
        assert!(copy.add(&seal(Tree::Plugins, b"a", Some(b"3"))));
        assert!(copy.add(&seal(Tree::Plugins, b"b", None)));
        assert!(copy.add(&seal(Tree::Meta, b"checkpoint/x", Some(&[7; 300]))));
        let mut expected = values(&[("a", "3")]);
        expected.insert((Tree::Meta, b"checkpoint/x".to_vec()), vec![7; 300]);
        assert_eq!(read(dir.path()).unwrap(), expected);
        SecondCopy::create(dir.path(), &[]).unwrap();
        assert_eq!(
            read(dir.path()).unwrap(),
            Values::new(),
            "values of an earlier store of this folder are gone"
        );
    }

    #[test]
    fn it_asks_to_be_rewritten_when_it_has_grown() {
        let dir = tempfile::tempdir().unwrap();
        let length = || fs::metadata(dir.path().join(NAME)).unwrap().len() as usize;
        let one = seal(Tree::Meta, b"checkpoint/x", Some(&[7; 40_000]));
        let mut copy = SecondCopy::create(dir.path(), &[]).unwrap();
        let adds = (0..200).take_while(|_| copy.add(&one)).count();
        assert_eq!((adds, length()), (ADDED_MAX / one.len(), adds * one.len()));
        assert!(
            !copy.add(&seal(Tree::Plugins, b"a", None)),
            "nothing is appended before that, or the file would lack the value in between"
        );
        // A large one may double.
        let large = one.repeat(300);
        copy.rewrite(&large).unwrap();
        assert_eq!(((0..400).take_while(|_| copy.add(&one)).count(), length()), (300, 2 * large.len()));
    }

    #[test]
    fn damage_destroys_only_the_values_it_touches() {
        let dir = tempfile::tempdir().unwrap();
        let whole = values(&[("a", "first"), ("b", "second"), ("c", "third")]);
        SecondCopy::create(dir.path(), &sealed(&whole)).unwrap();
        let path = dir.path().join(NAME);
        let bytes = fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            fs::write(&path, damaged).unwrap();
            let found = read(dir.path()).unwrap();
            assert!(
                found.len() == 2 && found.iter().all(|(key, value)| whole.get(key) == Some(value)),
                "byte {at}: {found:?}"
            );
        }
    }
}
