//! The small things of a store once more, in a file beside the engine: plugins, how far sources were read, what was told of gaps. The
//! engine's files frame none of them, so when they do not open any more, `salvage` takes them from here.
//!
//! Values are added as they are written and not synced: behind after a loss of power, and made anew at every start. Of a key the last one
//! counts.
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

use crate::store::engine::whole_file;
use crate::store::format::envelope::{self, Magic};
use crate::store::format::varint::{Cursor, Malformed};
use crate::store::keys::Tree;

const NAME: &str = "small";
const MAGIC: Magic = [0xB5, b'K', b'S', 0x2E];
/// Bytes between the length and the key.
const HEAD_BYTES: usize = 4;
/// What was added since the file was made, bytes, before it is made anew.
const ADDED_MAX: usize = 4 << 20;

/// Values by tree and key.
pub type Values = BTreeMap<(Tree, Vec<u8>), Vec<u8>>;

/// The file, and what is in it.
#[derive(Debug)]
pub struct Second {
    path: PathBuf,
    file: Option<File>,
    values: Values,
    added: usize,
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
    /// A file of exactly these values.
    ///
    /// # Errors
    /// The file system.
    pub fn make(dir: &Path, values: Values) -> io::Result<Self> {
        let mut second = Self { path: dir.join(NAME), file: None, values, added: 0 };
        second.rewrite()?;
        Ok(second)
    }

    /// Notes what was written under a key; `None`: it was removed. What cannot be noted is only logged: it is a second copy.
    pub fn note(&mut self, tree: Tree, key: &[u8], value: Option<&[u8]>) {
        let known = (tree, key.to_vec());
        match value {
            Some(value) => self.values.insert(known, value.to_vec()),
            None => self.values.remove(&known),
        };
        if let Err(error) = self.add(&seal(tree, key, value)) {
            tracing::warn!("cannot write a second copy of a small value: {error}");
        }
    }

    fn add(&mut self, frame: &[u8]) -> io::Result<()> {
        self.added += frame.len();
        if self.added > ADDED_MAX {
            return self.rewrite();
        }
        match &mut self.file {
            Some(file) => file.write_all(frame),
            None => self.rewrite(),
        }
    }

    fn rewrite(&mut self) -> io::Result<()> {
        self.file = None;
        let frames: Vec<Vec<u8>> = self.values.iter().map(|((tree, key), value)| seal(*tree, key, Some(value))).collect();
        whole_file::write(&self.path, &frames.concat())?;
        self.file = Some(File::options().append(true).open(&self.path)?);
        self.added = 0;
        Ok(())
    }
}

fn seal(tree: Tree, key: &[u8], value: Option<&[u8]>) -> Vec<u8> {
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
        pairs.iter().map(|(key, value)| ((Tree::Plugins, key.as_bytes().to_vec()), value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn the_last_value_of_a_key_counts() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), Values::new());
        let mut second = Second::make(dir.path(), values(&[("a", "1"), ("b", "2")])).unwrap();
        second.note(Tree::Plugins, b"a", Some(b"3"));
        second.note(Tree::Plugins, b"b", None);
        second.note(Tree::Meta, b"checkpoint/x", Some(&[7; 300]));
        let mut expected = values(&[("a", "3")]);
        expected.insert((Tree::Meta, b"checkpoint/x".to_vec()), vec![7; 300]);
        assert_eq!(read(dir.path()).unwrap(), expected);
        Second::make(dir.path(), values(&[])).unwrap();
        assert_eq!(read(dir.path()).unwrap(), Values::new(), "of a store that stood here before");
    }

    #[test]
    fn it_does_not_grow_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let mut second = Second::make(dir.path(), Values::new()).unwrap();
        for n in 0..200_u32 {
            second.note(Tree::Meta, b"checkpoint/x", Some(&n.to_le_bytes().repeat(10_000)));
        }
        assert!(fs::metadata(dir.path().join(NAME)).unwrap().len() <= (ADDED_MAX + 50_000) as u64);
        assert_eq!(read(dir.path()).unwrap().into_values().next(), Some(199_u32.to_le_bytes().repeat(10_000)));
    }

    #[test]
    fn damage_costs_the_values_it_touches() {
        let dir = tempfile::tempdir().unwrap();
        let whole = values(&[("a", "first"), ("b", "second"), ("c", "third")]);
        Second::make(dir.path(), whole.clone()).unwrap();
        let path = dir.path().join(NAME);
        let bytes = fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 0x10;
            fs::write(&path, bent).unwrap();
            let found = read(dir.path()).unwrap();
            assert!(found.len() == 2 && found.iter().all(|(key, value)| whole.get(key) == Some(value)), "byte {at}: {found:?}");
        }
    }
}
