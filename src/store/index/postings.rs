//! A set of killmail ids: a single id, a sorted list of a few, or a bitmap of many. The only file that names
//! roaring.
//!
//! Most terms are characters with a few killmails. Bitmaps for all of them would take three times the memory of
//! these lists.
//!
//! Must not know: what the set is for, or what an id stands for.

use std::iter::Copied;
use std::slice;

use roaring::RoaringBitmap;
use roaring::bitmap;

use crate::store::format::varint::{Cursor, Malformed, put_ascending, put_varint};
use crate::store::index::id_range::IdRange;

/// A longer list becomes a bitmap.
const LIST_MAX: usize = 256;
/// Above this many ids, subtracting one whole bitmap from another is faster than looking up each id.
const DIFFERENCE_MIN: u64 = 4_096;
/// Stored in place of the length of a list.
const BITMAP_MARK: u32 = u32::MAX;

/// Killmail ids, ascending and distinct.
#[derive(Debug, Clone, PartialEq)]
pub enum Postings {
    /// The commonest case.
    One(u32),
    /// Sorted; may be empty.
    Few(Vec<u32>),
    Many(Box<RoaringBitmap>),
}

impl Default for Postings {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Postings {
    pub fn insert(&mut self, id: u32) {
        match self {
            Self::One(one) if *one == id => {}
            Self::One(one) => *self = Self::Few(if *one < id { vec![*one, id] } else { vec![id, *one] }),
            Self::Few(ids) if ids.is_empty() => *self = Self::One(id),
            Self::Few(ids) => {
                if ids.last().is_some_and(|last| *last < id) {
                    ids.push(id);
                } else if let Err(at) = ids.binary_search(&id) {
                    ids.insert(at, id);
                }
                if ids.len() > LIST_MAX {
                    *self = Self::Many(Box::new(ids.iter().copied().collect()));
                }
            }
            Self::Many(bitmap) => {
                bitmap.insert(id);
            }
        }
    }

    pub fn remove(&mut self, id: u32) {
        match self {
            Self::One(one) if *one == id => *self = Self::default(),
            Self::One(_) => {}
            Self::Few(ids) => {
                if let Ok(at) = ids.binary_search(&id) {
                    ids.remove(at);
                }
            }
            Self::Many(bitmap) => {
                bitmap.remove(id);
            }
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> u64 {
        match self {
            Self::One(_) => 1,
            Self::Few(ids) => ids.len() as u64,
            Self::Many(bitmap) => bitmap.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        match self {
            Self::One(_) => false,
            Self::Few(ids) => ids.is_empty(),
            Self::Many(bitmap) => bitmap.is_empty(),
        }
    }

    pub fn contains(&self, id: u32) -> bool {
        match self {
            Self::One(one) => *one == id,
            Self::Few(ids) => ids.binary_search(&id).is_ok(),
            Self::Many(bitmap) => bitmap.contains(id),
        }
    }

    /// How many ids are in the range.
    pub fn count(&self, range: IdRange) -> u64 {
        match self {
            _ if range.is_empty() => 0,
            Self::One(one) => u64::from(range.contains(*one)),
            Self::Few(ids) => slice_of(ids, range).len() as u64,
            Self::Many(bitmap) => bitmap.range_cardinality(range.low..=range.high),
        }
    }

    /// The ids in the range, ascending.
    pub fn iter(&self, range: IdRange) -> Iter<'_> {
        match self {
            _ if range.is_empty() => Iter::List([].iter().copied()),
            Self::One(one) => Iter::List(slice_of(slice::from_ref(one), range).iter().copied()),
            Self::Few(ids) => Iter::List(slice_of(ids, range).iter().copied()),
            Self::Many(bitmap) => Iter::Bitmap(bitmap.range(range.low..=range.high)),
        }
    }

    /// Appends the ids in the range, ascending.
    pub fn append_to(&self, out: &mut Vec<u32>, range: IdRange) {
        match self {
            _ if range.is_empty() => {}
            Self::One(one) => out.extend(range.contains(*one).then_some(*one)),
            Self::Few(ids) => out.extend_from_slice(slice_of(ids, range)),
            Self::Many(bitmap) => out.extend(bitmap.range(range.low..=range.high)),
        }
    }

    /// Appends the ids in the range that are in both sets, ascending, if both are bitmaps and the smaller one
    /// lies in the range as a whole, because bitmaps intersect only as a whole. Otherwise it appends nothing
    /// and returns false.
    pub fn append_common_to(&self, out: &mut Vec<u32>, other: &Self, range: IdRange) -> bool {
        let (Self::Many(one), Self::Many(two)) = (self, other) else { return false };
        let smaller = one.len().min(two.len());
        if self.count(range) != smaller && other.count(range) != smaller {
            return false;
        }
        out.extend((&**one & &**two).range(range.low..=range.high));
        true
    }

    /// Appends the ids in the range that are not in the other set, ascending.
    pub fn append_difference_to(&self, out: &mut Vec<u32>, other: &Self, range: IdRange) {
        if let (Self::Many(one), Self::Many(two)) = (self, other)
            && self.count(range) > DIFFERENCE_MIN
        {
            out.extend((&**one - &**two).range(range.low..=range.high));
            return;
        }
        let from = out.len();
        self.append_to(out, range);
        let mut kept = from;
        for at in from..out.len() {
            if !other.contains(out[at]) {
                out[kept] = out[at];
                kept += 1;
            }
        }
        out.truncate(kept);
    }

    #[cfg(test)]
    pub fn to_vec(&self) -> Vec<u32> {
        let mut out = Vec::with_capacity(self.len() as usize);
        self.append_to(&mut out, IdRange::ALL);
        out
    }

    /// From the smallest to the greatest id; `None` if there are none.
    pub fn span(&self) -> Option<IdRange> {
        match self {
            Self::One(one) => Some(IdRange::new(*one, *one)),
            Self::Few(ids) => Some(IdRange::new(*ids.first()?, *ids.last()?)),
            Self::Many(bitmap) => Some(IdRange::new(bitmap.min()?, bitmap.max()?)),
        }
    }

    /// Appends the form the set has in a snapshot: a list, or the portable form of a bitmap.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::One(one) => put_ascending(out, &[*one]),
            Self::Few(ids) => put_ascending(out, ids),
            Self::Many(bitmap) => {
                put_varint(out, BITMAP_MARK);
                out.extend_from_slice(&(bitmap.serialized_size() as u32).to_le_bytes());
                // Writing to a vector cannot fail.
                let _ = bitmap.serialize_into(&mut *out);
            }
        }
    }

    /// The inverse of `encode`.
    pub fn decode(cursor: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let mut ahead = *cursor;
        if ahead.varint()? == BITMAP_MARK {
            let length = ahead.u32()? as usize;
            let bitmap = RoaringBitmap::deserialize_from(ahead.bytes(length)?).map_err(|_| Malformed)?;
            *cursor = ahead;
            return Ok(Self::Many(Box::new(bitmap)));
        }
        let ids = cursor.ascending()?;
        Ok(if let [one] = ids[..] { Self::One(one) } else { Self::Few(ids) })
    }

    /// Memory behind the value itself, bytes, estimated.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::One(_) => 0,
            Self::Few(ids) => ids.capacity() * 4 + 16,
            Self::Many(bitmap) => bitmap.serialized_size() + 96,
        }
    }
}

/// Ids in ascending order; reversible, for callers that need only the last few.
pub enum Iter<'a> {
    List(Copied<slice::Iter<'a, u32>>),
    Bitmap(bitmap::Iter<'a>),
}

impl Iterator for Iter<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        match self {
            Self::List(ids) => ids.next(),
            Self::Bitmap(ids) => ids.next(),
        }
    }
}

impl DoubleEndedIterator for Iter<'_> {
    fn next_back(&mut self) -> Option<u32> {
        match self {
            Self::List(ids) => ids.next_back(),
            Self::Bitmap(ids) => ids.next_back(),
        }
    }
}

fn slice_of(ids: &[u32], range: IdRange) -> &[u32] {
    let from = ids.partition_point(|id| *id < range.low);
    let to = ids.partition_point(|id| *id <= range.high);
    ids.get(from..to).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn postings_are_a_set(ids in proptest::collection::vec(0u32..2_000, 0..700), gone in proptest::collection::vec(0u32..2_000, 0..300),
                              low in 0u32..2_100, high in 0u32..2_100) {
            let (mut postings, mut set) = (Postings::default(), BTreeSet::new());
            for id in &ids {
                postings.insert(*id);
                set.insert(*id);
            }
            for id in &gone {
                postings.remove(*id);
                set.remove(id);
            }
            prop_assert_eq!(postings.to_vec(), set.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!((postings.len(), postings.is_empty()), (set.len() as u64, set.is_empty()));
            prop_assert_eq!(postings.span(), set.first().zip(set.last()).map(|(low, high)| IdRange::new(*low, *high)));
            let range = IdRange::new(low, high);
            let inside: Vec<u32> = set.iter().copied().filter(|id| (low..=high).contains(id)).collect();
            let mut appended = Vec::new();
            postings.append_to(&mut appended, range);
            prop_assert_eq!(postings.count(range), inside.len() as u64);
            prop_assert_eq!(postings.iter(range).collect::<Vec<_>>(), &inside[..]);
            prop_assert!(postings.iter(range).rev().eq(inside.iter().rev().copied()));
            prop_assert_eq!(&appended, &inside);
            let mut bytes = Vec::new();
            postings.encode(&mut bytes);
            let mut cursor = Cursor::new(&bytes);
            prop_assert_eq!(Postings::decode(&mut cursor).expect("decodes").to_vec(), postings.to_vec());
            prop_assert_eq!(cursor.remaining(), 0);
            prop_assert!((0..2_000).all(|id| postings.contains(id) == set.contains(&id)));
            let mut other = Postings::default();
            gone.iter().chain(&ids[..ids.len() / 3]).for_each(|id| other.insert(*id));
            let mut rest = vec![7];
            postings.append_difference_to(&mut rest, &other, range);
            let expected: Vec<u32> = inside.into_iter().filter(|id| !other.contains(*id)).collect();
            prop_assert_eq!(&rest[1..], &expected[..]);
        }
    }
}
