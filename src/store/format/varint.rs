//! Compact numbers on disk: varints, ascending lists of ids as differences, and a cursor that never reads past
//! the end.
//!
//! Must not know: what the numbers mean.

/// The bytes end too early, or a value in them is impossible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Reads values from the front of a slice.
#[derive(Debug, Clone, Copy)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(Malformed)?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.bytes(N)?.try_into().map_err(|_| Malformed)
    }

    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_le_bytes)
    }

    pub fn f64(&mut self) -> Result<f64, Malformed> {
        self.array().map(f64::from_le_bytes)
    }

    pub fn varint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0u64;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| Malformed);
            }
        }
        Err(Malformed)
    }

    /// Reads a list that `put_ascending` wrote.
    pub fn ascending(&mut self) -> Result<Vec<u32>, Malformed> {
        let count = self.varint()? as usize;
        if count > self.rest.len() {
            return Err(Malformed);
        }
        let mut ids = Vec::with_capacity(count);
        let mut last = 0u32;
        for _ in 0..count {
            last = last.checked_add(self.varint()?).ok_or(Malformed)?;
            ids.push(last);
        }
        Ok(ids)
    }
}

/// Appends seven bits per byte, low bits first.
pub fn put_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends the count, then each id as its difference from the previous one.
pub fn put_ascending(out: &mut Vec<u8>, ids: &[u32]) {
    put_varint(out, ids.len() as u32);
    let mut last = 0;
    for id in ids {
        put_varint(out, id - last);
        last = *id;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ascending_lists_are_read_back(mut ids in proptest::collection::vec(any::<u32>(), 0..50)) {
            ids.sort_unstable();
            ids.dedup();
            let mut out = Vec::new();
            put_ascending(&mut out, &ids);
            let mut cursor = Cursor::new(&out);
            prop_assert_eq!(cursor.ascending(), Ok(ids));
            prop_assert_eq!(cursor.remaining(), 0);
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Cursor::new(&bytes).ascending();
            let _ = Cursor::new(&bytes).varint();
        }
    }
}
