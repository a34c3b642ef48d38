//! The format of a pack: magic, version, crc32, then columns of variable-length integers and floats, and one
//! text.
//!
//! Must not know: what the columns mean. `pack` writes them and `atlas` reads them, in the same order.

const MAGIC: &[u8; 6] = b"KSUNIV";
const VERSION: u16 = 1;
/// Magic, version (u16) and checksum of the rest (u32), little endian.
const HEADER_BYTES: usize = 12;

/// What is wrong with the bytes of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It does not start with the magic.
    #[error("these bytes are not a universe pack")]
    NotAPack,
    /// This program does not read that version.
    #[error("universe pack version {0} is not version {VERSION}")]
    Version(u16),
    /// The checksum does not match.
    #[error("the checksum of the universe pack does not match")]
    Checksum,
    /// It is too short or too long.
    #[error("the universe pack has the wrong length")]
    Length,
    /// A column holds an impossible value.
    #[error("column {0} of the universe pack is malformed")]
    Column(&'static str),
}

/// Writes the body of a pack, column by column.
#[derive(Default)]
pub(super) struct Writer {
    body: Vec<u8>,
}

impl Writer {
    pub(super) fn number(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.body.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.body.push(value as u8);
    }

    pub(super) fn numbers(&mut self, values: impl IntoIterator<Item = u32>) {
        values.into_iter().for_each(|value| self.number(value));
    }

    /// A column of ids with its length. They must be ascending: each is written as the difference to the one
    /// before.
    pub(super) fn ids(&mut self, ids: &[u32]) {
        self.number(ids.len() as u32);
        let mut last = 0;
        for &id in ids {
            self.number(id - last);
            last = id;
        }
    }

    pub(super) fn f32s(&mut self, values: impl IntoIterator<Item = f32>) {
        values.into_iter().for_each(|value| self.body.extend_from_slice(&value.to_le_bytes()));
    }

    pub(super) fn f64s(&mut self, values: impl IntoIterator<Item = f64>) {
        values.into_iter().for_each(|value| self.body.extend_from_slice(&value.to_le_bytes()));
    }

    pub(super) fn text(&mut self, text: &str) {
        self.number(text.len() as u32);
        self.body.extend_from_slice(text.as_bytes());
    }

    /// The finished pack.
    pub(super) fn finish(self) -> Vec<u8> {
        let mut pack = Vec::with_capacity(HEADER_BYTES + self.body.len());
        pack.extend_from_slice(MAGIC);
        pack.extend_from_slice(&VERSION.to_le_bytes());
        pack.extend_from_slice(&crc32fast::hash(&self.body).to_le_bytes());
        pack.extend_from_slice(&self.body);
        pack
    }
}

/// Reads the body of a pack in the order in which it was written.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Checks magic, version and checksum. The first column is read next.
    pub(super) fn open(pack: &'a [u8]) -> Result<Reader<'a>, Damage> {
        let mut reader = Reader { rest: pack };
        if reader.take::<6>() != Ok(*MAGIC) {
            return Err(Damage::NotAPack);
        }
        let version = u16::from_le_bytes(reader.take()?);
        if version != VERSION {
            return Err(Damage::Version(version));
        }
        let checksum = u32::from_le_bytes(reader.take()?);
        if crc32fast::hash(reader.rest) != checksum {
            return Err(Damage::Checksum);
        }
        Ok(reader)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Damage::Length)?;
        self.rest = rest;
        Ok(*head)
    }

    pub(super) fn number(&mut self) -> Result<u32, Damage> {
        let mut value = 0;
        for shift in (0..32).step_by(7) {
            let [byte] = self.take()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Damage::Length)
    }

    pub(super) fn numbers(&mut self, count: usize) -> Result<Box<[u32]>, Damage> {
        (0..count).map(|_| self.number()).collect()
    }

    pub(super) fn ids(&mut self, column: &'static str) -> Result<Box<[u32]>, Damage> {
        let count = self.number()? as usize;
        let mut ids = self.numbers(count)?;
        let mut last = 0_u32;
        for (row, id) in ids.iter_mut().enumerate() {
            if *id == 0 && row > 0 {
                return Err(Damage::Column(column));
            }
            last = last.checked_add(*id).ok_or(Damage::Column(column))?;
            *id = last;
        }
        Ok(ids)
    }

    pub(super) fn f32s(&mut self, count: usize) -> Result<Vec<f32>, Damage> {
        (0..count).map(|_| self.take().map(f32::from_le_bytes)).collect()
    }

    pub(super) fn f64s(&mut self, count: usize) -> Result<Vec<f64>, Damage> {
        (0..count).map(|_| self.take().map(f64::from_le_bytes)).collect()
    }

    /// The text, which is the last column.
    pub(super) fn last_text(mut self) -> Result<&'a str, Damage> {
        if self.number()? as usize != self.rest.len() {
            return Err(Damage::Length);
        }
        std::str::from_utf8(self.rest).map_err(|_| Damage::Column("text"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Vec<u8> {
        let mut writer = Writer::default();
        writer.ids(&[0, 5, 300, u32::MAX]);
        writer.numbers([7, u32::MAX]);
        writer.f64s([-1.5]);
        writer.text("Jita");
        writer.finish()
    }

    #[test]
    fn what_is_written_is_read() {
        let pack = small();
        let mut reader = Reader::open(&pack).expect("a pack");
        assert_eq!(*reader.ids("id").expect("ids"), [0, 5, 300, u32::MAX]);
        assert_eq!(*reader.numbers(2).expect("numbers"), [7, u32::MAX]);
        assert_eq!(reader.f64s(1).expect("floats"), [-1.5]);
        assert_eq!(reader.last_text().expect("text"), "Jita");
    }

    #[test]
    fn damage_is_told_apart() {
        let refused = |change: fn(&mut Vec<u8>)| {
            let mut pack = small();
            change(&mut pack);
            Reader::open(&pack).err()
        };
        assert_eq!(refused(|pack| pack[0] = b'X'), Some(Damage::NotAPack));
        assert_eq!(refused(Vec::clear), Some(Damage::NotAPack));
        assert_eq!(refused(|pack| pack[6] = 9), Some(Damage::Version(9)));
        assert_eq!(refused(|pack| pack.truncate(11)), Some(Damage::Length));
        assert_eq!(refused(|pack| pack.truncate(20)), Some(Damage::Checksum));
        assert_eq!(refused(|pack| pack[15] ^= 1), Some(Damage::Checksum));
    }
}
