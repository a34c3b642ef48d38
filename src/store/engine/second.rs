//! The small things of a store once more, in a file beside the engine: plugins, how far sources were read,
//! what was told of gaps. The engine's files frame none of them, so when they do not open any more, `salvage`
//! takes them from here.
//!
//! Values are added as they are written and not synced: behind after a loss of power, and made anew at every
//! start. Of a key the last one counts.
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
/// Bytes between the length and the key.
const HEAD_BYTES: usize = 4;
/// What was added since the file was made, bytes, before it is made anew.
const ADDED_MAX: usize = 4 << 20;

/// Values by tree and key.
pub type Values = BTreeMap<(Tree, Vec<u8>), Vec<u8>>;

/// The file, open for notes. What is in it stands in the engine as well, so nothing of it is kept in memory.
#[derive(Debug)]
pub struct Second {
    path: PathBuf,
    file: Option<File>,
    added: usize,
    added_max: usize,
}

/// What the file of a data folder says, as far as it is whole.
///
/// # Errors
/// The file system; a file that is not there says nothing.
pub fn read(dir: &Path) -> io::Result<Values> {
    let bytes = match fs::read(dir.join(NAME)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Values::new()),
        bytes => bytes?,
    };
    let mut values = Values::new();
    for (_, (tree, key, value)) in envelope::find(MAGIC, &bytes, open) {
        match value {
            Some(value) => values.insert((tree, key.to_vec()), value.to_vec()),
            None => values.remove(&(tree, key.to_vec())),
        };
    }
    Ok(values)
}

impl Second {
    /// A file of exactly these values, each of them sealed.
    ///
    /// # Errors
    /// The file system.
    pub fn make(dir: &Path, sealed: &[u8]) -> io::Result<Self> {
        let mut second = Self { path: dir.join(NAME), file: None, added: 0, added_max: 0 };
        second.rewrite(sealed)?;
        Ok(second)
    }

    /// Adds one sealed value. False if that is not possible, or the file has grown enough: it is to be
    /// rewritten, of all there is.
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

    /// Writes the file anew, of exactly these values.
    ///
    /// # Errors
    /// The file system.
    pub fn rewrite(&mut self, sealed: &[u8]) -> io::Result<()> {
        self.file = None;
        whole_file::write(&self.path, sealed)?;
        self.file = Some(File::options().append(true).open(&self.path)?);
        self.added = 0;
        // A large file may double, so that rewriting it costs little for each value.
        self.added_max = sealed.len().max(ADDED_MAX);
        Ok(())
    }
}

/// A value as it stands in the file; `None`: it was removed.
pub fn seal(tree: Tree, key: &[u8], value: Option<&[u8]>) -> Vec<u8> {
    let value_bytes = value.unwrap_or_default();
    envelope::seal(MAGIC, HEAD_BYTES + key.len() + value_bytes.len(), |out| {
        out.extend_from_slice(&[tree as u8, u8::from(value.is_none())]);
        out.extend_from_slice(&(key.len() as u16).to_le_bytes());
        out.extend_from_slice(key);
        out.extend_from_slice(value_bytes);
    })
}

/// Tree, key and value.
type Opened<'a> = (Tree, &'a [u8], Option<&'a [u8]>);

fn open(contents: &[u8]) -> Result<Opened<'_>, Malformed> {
    let mut cursor = Cursor::new(contents);
    let number = cursor.u8()?;
    let tree = Tree::ALL.into_iter().find(|tree| *tree as u8 == number).ok_or(Malformed)?;
    let removed = cursor.u8()? == 1;
    let key_length = usize::from(u16::from_le_bytes([cursor.u8()?, cursor.u8()?]));
    let (key, value) = contents[HEAD_BYTES..].split_at_checked(key_length).ok_or(Malformed)?;
    Ok((tree, key, (!removed).then_some(value)))
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
        let mut second = Second::make(dir.path(), &sealed(&values(&[("a", "1"), ("b", "2")]))).unwrap();
        assert!(second.add(&seal(Tree::Plugins, b"a", Some(b"3"))));
        assert!(second.add(&seal(Tree::Plugins, b"b", None)));
        assert!(second.add(&seal(Tree::Meta, b"checkpoint/x", Some(&[7; 300]))));
        let mut expected = values(&[("a", "3")]);
        expected.insert((Tree::Meta, b"checkpoint/x".to_vec()), vec![7; 300]);
        assert_eq!(read(dir.path()).unwrap(), expected);
        Second::make(dir.path(), &[]).unwrap();
        assert_eq!(read(dir.path()).unwrap(), Values::new(), "of a store that stood here before");
    }

    #[test]
    fn it_asks_to_be_made_anew_when_it_has_grown_enough() {
        let dir = tempfile::tempdir().unwrap();
        let length = || fs::metadata(dir.path().join(NAME)).unwrap().len() as usize;
        let one = seal(Tree::Meta, b"checkpoint/x", Some(&[7; 40_000]));
        let mut second = Second::make(dir.path(), &[]).unwrap();
        let adds = (0..200).take_while(|_| second.add(&one)).count();
        assert_eq!((adds, length()), (ADDED_MAX / one.len(), adds * one.len()));
        assert!(
            !second.add(&seal(Tree::Plugins, b"a", None)),
            "nothing is added until then, or a value would be missing between"
        );
        // A large one may double.
        let large = one.repeat(300);
        second.rewrite(&large).unwrap();
        assert_eq!(((0..400).take_while(|_| second.add(&one)).count(), length()), (300, 2 * large.len()));
    }

    #[test]
    fn damage_costs_the_values_it_touches() {
        let dir = tempfile::tempdir().unwrap();
        let whole = values(&[("a", "first"), ("b", "second"), ("c", "third")]);
        Second::make(dir.path(), &sealed(&whole)).unwrap();
        let path = dir.path().join(NAME);
        let bytes = fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 0x10;
            fs::write(&path, bent).unwrap();
            let found = read(dir.path()).unwrap();
            assert!(
                found.len() == 2 && found.iter().all(|(key, value)| whole.get(key) == Some(value)),
                "byte {at}: {found:?}"
            );
        }
    }
}
