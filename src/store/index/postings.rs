//! The killmails of one term, by killmail id: one, a sorted list of a few, or a bitmap of many. The only file
//! naming roaring.
//!
//! Most terms are characters seen a few times: a bitmap for each would take three times the memory of all
//! lists together.
//!
//! Must not know: what the term is, or what is behind an id.

use std::iter::Copied;
use std::slice;

use roaring::RoaringBitmap;
use roaring::bitmap::Iter;

use crate::store::format::varint::{Cursor, Malformed, put_ascending, put_varint};

/// Above this a list becomes a bitmap.
const FEW: usize = 256;
/// Above this many ids bitmaps are taken from one another whole, which beats looking up each.
const DIFFERENCE_MIN: u64 = 4_096;
/// Stands where a list has its length.
const BITMAP_MARK: u32 = u32::MAX;

/// Killmail ids, ascending and distinct.
#[derive(Debug, Clone, PartialEq)]
pub enum Postings {
    /// Exactly one: the commonest case.
    One(u32),
    /// A sorted list; may be empty.
    Few(Vec<u32>),
    /// A bitmap.
    Many(Box<RoaringBitmap>),
}

impl Default for Postings {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Postings {
    /// Adds an id; nothing if it is there.
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
                if ids.len() > FEW {
                    *self = Self::Many(Box::new(ids.iter().copied().collect()));
                }
            }
            Self::Many(bitmap) => {
                bitmap.insert(id);
            }
        }
    }

    /// Takes an id out.
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

    /// How many ids.
    #[cfg(test)]
    pub fn len(&self) -> u64 {
        match self {
            Self::One(_) => 1,
            Self::Few(ids) => ids.len() as u64,
            Self::Many(bitmap) => bitmap.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::One(_) => false,
            Self::Few(ids) => ids.is_empty(),
            Self::Many(bitmap) => bitmap.is_empty(),
        }
    }

    /// Whether the id is among them.
    pub fn contains(&self, id: u32) -> bool {
        match self {
            Self::One(one) => *one == id,
            Self::Few(ids) => ids.binary_search(&id).is_ok(),
            Self::Many(bitmap) => bitmap.contains(id),
        }
    }

    /// How many ids from `low` to `high`, both included.
    pub fn count(&self, low: u32, high: u32) -> u64 {
        match self {
            Self::One(one) => u64::from((low..=high).contains(one)),
            Self::Few(ids) => between(ids, low, high).len() as u64,
            Self::Many(bitmap) if low <= high => bitmap.range_cardinality(low..=high),
            Self::Many(_) => 0,
        }
    }

    /// The ids from `low` to `high`, both included, ascending; from both ends.
    pub fn range(&self, low: u32, high: u32) -> Range<'_> {
        match self {
            Self::One(one) => Range::List(
                if (low..=high).contains(one) { slice::from_ref(one) } else { &[] }.iter().copied(),
            ),
            Self::Few(ids) => Range::List(between(ids, low, high).iter().copied()),
            Self::Many(bitmap) if low <= high => Range::Bitmap(bitmap.range(low..=high)),
            Self::Many(_) => Range::List([].iter().copied()),
        }
    }

    /// Appends the ids from `low` to `high`, both included, ascending.
    pub fn gather(&self, low: u32, high: u32, out: &mut Vec<u32>) {
        match self {
            Self::One(one) => out.extend((low..=high).contains(one).then_some(*one)),
            Self::Few(ids) => out.extend_from_slice(between(ids, low, high)),
            Self::Many(bitmap) if low <= high => out.extend(bitmap.range(low..=high)),
            Self::Many(_) => {}
        }
    }

    /// Appends the ids from `low` to `high` that are in both, ascending, if both are bitmaps and the smaller
    /// lies within: bitmaps join whole. Otherwise nothing, and false.
    pub fn join(&self, other: &Self, low: u32, high: u32, out: &mut Vec<u32>) -> bool {
        let (Self::Many(one), Self::Many(two)) = (self, other) else { return false };
        let least = one.len().min(two.len());
        if self.count(low, high) != least && other.count(low, high) != least {
            return false;
        }
        out.extend((&**one & &**two).range(low..=high));
        true
    }

    /// Appends the ids from `low` to `high` that the other has not, ascending.
    pub fn gather_without(&self, other: &Self, low: u32, high: u32, out: &mut Vec<u32>) {
        if let (Self::Many(one), Self::Many(two)) = (self, other)
            && self.count(low, high) > DIFFERENCE_MIN
        {
            out.extend((&**one - &**two).range(low..=high));
            return;
        }
        let from = out.len();
        self.gather(low, high, out);
        let mut kept = from;
        for at in from..out.len() {
            if !other.contains(out[at]) {
                out[kept] = out[at];
                kept += 1;
            }
        }
        out.truncate(kept);
    }

    /// Every id, ascending.
    #[cfg(test)]
    pub fn to_vec(&self) -> Vec<u32> {
        let mut out = Vec::with_capacity(self.len() as usize);
        self.gather(0, u32::MAX, &mut out);
        out
    }

    /// The smallest and the greatest.
    pub fn ends(&self) -> Option<(u32, u32)> {
        match self {
            Self::One(one) => Some((*one, *one)),
            Self::Few(ids) => Some((*ids.first()?, *ids.last()?)),
            Self::Many(bitmap) => Some((bitmap.min()?, bitmap.max()?)),
        }
    }

    /// Appends the ids as bytes: a list, or the portable form of a bitmap.
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

    /// Back from `encode`.
    pub fn decode(cursor: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let mut ahead = *cursor;
        if ahead.varint()? == BITMAP_MARK {
            let length = ahead.u32()? as usize;
            let bitmap = RoaringBitmap::deserialize_from(ahead.take(length)?).map_err(|_| Malformed)?;
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

/// Ids of one term, one by one: for those who need only a few from an end.
pub enum Range<'a> {
    /// Of a list.
    List(Copied<slice::Iter<'a, u32>>),
    /// Of a bitmap.
    Bitmap(Iter<'a>),
}

impl Iterator for Range<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        match self {
            Self::List(ids) => ids.next(),
            Self::Bitmap(ids) => ids.next(),
        }
    }
}

impl DoubleEndedIterator for Range<'_> {
    fn next_back(&mut self) -> Option<u32> {
        match self {
            Self::List(ids) => ids.next_back(),
            Self::Bitmap(ids) => ids.next_back(),
        }
    }
}

fn between(ids: &[u32], low: u32, high: u32) -> &[u32] {
    let from = ids.partition_point(|id| *id < low);
    let to = ids.partition_point(|id| *id <= high);
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
            prop_assert_eq!(postings.ends(), set.first().copied().zip(set.last().copied()));
            let inside: Vec<u32> = set.iter().copied().filter(|id| (low..=high).contains(id)).collect();
            let mut gathered = Vec::new();
            postings.gather(low, high, &mut gathered);
            prop_assert_eq!(postings.count(low, high), inside.len() as u64);
            prop_assert_eq!(postings.range(low, high).collect::<Vec<_>>(), &inside[..]);
            prop_assert!(postings.range(low, high).rev().eq(inside.iter().rev().copied()));
            prop_assert_eq!(&gathered, &inside);
            let mut bytes = Vec::new();
            postings.encode(&mut bytes);
            let mut cursor = Cursor::new(&bytes);
            prop_assert_eq!(Postings::decode(&mut cursor).expect("decodes").to_vec(), postings.to_vec());
            prop_assert_eq!(cursor.remaining(), 0);
            prop_assert!((0..2_000).all(|id| postings.contains(id) == set.contains(&id)));
            let mut other = Postings::default();
            gone.iter().chain(&ids[..ids.len() / 3]).for_each(|id| other.insert(*id));
            let mut rest = vec![7];
            postings.gather_without(&other, low, high, &mut rest);
            let expected: Vec<u32> = inside.into_iter().filter(|id| !other.contains(*id)).collect();
            prop_assert_eq!(&rest[1..], &expected[..]);
        }
    }
}
