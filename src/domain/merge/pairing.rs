//! Pairs the attackers or items of two copies of a killmail. Both are multisets, and either copy may know
//! less.
//!
//! Must not know: what the parts are.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::ops::Range;

/// Comparisons of two parts that one merge may make before it gives up. Real killmails need one for each
/// part; only thousands of indistinguishable parts come near the limit.
pub(crate) const COMPARISONS_MAX: usize = 4_000_000;

#[derive(Debug)]
pub(crate) struct Budget(usize);

impl Default for Budget {
    fn default() -> Self {
        Self(COMPARISONS_MAX)
    }
}

impl Budget {
    /// Takes one comparison from the budget; `false` if none is left.
    pub fn spend(&mut self) -> bool {
        let left = self.0.checked_sub(1);
        self.0 = left.unwrap_or(0);
        left.is_some()
    }
}

/// Finds a partner in `theirs` for each of `ours`, so that every pair fits; `None` if there is no such
/// pairing.
///
/// Parts that differ in `key` never fit. Among parts of equal key, `order` puts similar ones at similar
/// places, so that most pairs fit at the first attempt.
pub(crate) fn pair<T>(
    ours: &[T],
    theirs: &[T],
    key: impl Fn(&T, &T) -> Ordering,
    order: impl Fn(&T, &T) -> Ordering,
    mut fits: impl FnMut(&T, &T, &mut Budget) -> bool,
    budget: &mut Budget,
) -> Option<Vec<usize>> {
    if ours.len() != theirs.len() {
        return None;
    }
    if ours.iter().zip(theirs).all(|(a, b)| key(a, b).is_eq() && budget.spend() && fits(a, b, budget)) {
        return Some((0..ours.len()).collect());
    }
    let (left, right) = (sorted(ours, &key, &order), sorted(theirs, &key, &order));
    if left.iter().zip(&right).any(|(a, b)| key(&ours[*a], &theirs[*b]).is_ne()) {
        return None;
    }
    let mut partner = vec![0; ours.len()];
    for run in runs(&left, |a, b| key(&ours[*a], &ours[*b]).is_eq()) {
        let (rows, columns) = (&left[run.clone()], &right[run]);
        let mut fit = |row: usize, column: usize| {
            budget.spend() && fits(&ours[rows[row]], &theirs[columns[column]], budget)
        };
        for (row, column) in assign(rows.len(), &mut fit)?.into_iter().enumerate() {
            partner[rows[row]] = columns[column];
        }
    }
    Some(partner)
}

fn sorted<T>(
    parts: &[T],
    key: impl Fn(&T, &T) -> Ordering,
    order: impl Fn(&T, &T) -> Ordering,
) -> Vec<usize> {
    let mut places: Vec<usize> = (0..parts.len()).collect();
    places.sort_by(|a, b| key(&parts[*a], &parts[*b]).then_with(|| order(&parts[*a], &parts[*b])));
    places
}

fn runs<'a>(
    places: &'a [usize],
    same: impl Fn(&usize, &usize) -> bool + 'a,
) -> impl Iterator<Item = Range<usize>> + 'a {
    let mut at = 0;
    places.chunk_by(same).map(move |run| {
        let range = at..at + run.len();
        at = range.end;
        range
    })
}

/// Assigns each row its own column: bipartite matching by augmenting paths, starting from the pairs that fit
/// in place. It does not recurse, since thousands of rows must not overflow the stack.
fn assign(len: usize, fit: &mut impl FnMut(usize, usize) -> bool) -> Option<Vec<usize>> {
    let mut taken: Vec<Option<usize>> = vec![None; len];
    let mut loose = Vec::new();
    for (at, owner) in taken.iter_mut().enumerate() {
        if fit(at, at) {
            *owner = Some(at);
        } else {
            loose.push(at);
        }
    }
    for row in loose {
        augment(row, &mut taken, fit)?;
    }
    let mut columns = vec![0; len];
    for (column, row) in taken.into_iter().enumerate() {
        columns[row?] = column;
    }
    Some(columns)
}

fn augment(
    start: usize,
    taken: &mut [Option<usize>],
    fit: &mut impl FnMut(usize, usize) -> bool,
) -> Option<()> {
    let mut came_from: Vec<Option<usize>> = vec![None; taken.len()];
    let mut waiting = VecDeque::from([start]);
    while let Some(row) = waiting.pop_front() {
        for column in 0..taken.len() {
            if came_from[column].is_some() || taken[column] == Some(row) || !fit(row, column) {
                continue;
            }
            came_from[column] = Some(row);
            match taken[column] {
                Some(owner) => waiting.push_back(owner),
                None => {
                    shift_path(column, start, &came_from, taken);
                    return Some(());
                }
            }
        }
    }
    None
}

/// Walks back from the free column: each row on the path takes the column it reached and leaves its old one
/// to the previous row.
fn shift_path(free: usize, start: usize, came_from: &[Option<usize>], taken: &mut [Option<usize>]) {
    let mut column = free;
    while let Some(row) = came_from[column] {
        let left = taken.iter().position(|owner| *owner == Some(row));
        taken[column] = Some(row);
        match left {
            Some(left) if row != start => column = left,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A key and a value that may be unknown.
    type Part = (u8, Option<u8>);

    fn compatible(a: &Part, b: &Part, _: &mut Budget) -> bool {
        a.1.is_none() || b.1.is_none() || a.1 == b.1
    }

    fn paired(ours: &[Part], theirs: &[Part]) -> Option<Vec<usize>> {
        pair(ours, theirs, |a, b| a.0.cmp(&b.0), |a, b| a.1.cmp(&b.1), compatible, &mut Budget::default())
    }

    /// Tries every permutation.
    fn by_permutations(ours: &[Part], theirs: &[Part], used: &mut Vec<bool>) -> bool {
        let Some((first, rest)) = ours.split_first() else { return true };
        (0..theirs.len()).any(|at| {
            if used[at] || first.0 != theirs[at].0 || !compatible(first, &theirs[at], &mut Budget::default())
            {
                return false;
            }
            used[at] = true;
            let found = by_permutations(rest, theirs, used);
            used[at] = false;
            found
        })
    }

    fn parts() -> impl Strategy<Value = Vec<Part>> {
        prop::collection::vec((0..2_u8, prop::option::of(0..3_u8)), 0..7)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]
        #[test]
        fn a_pairing_is_found_exactly_when_there_is_one(ours in parts(), theirs in parts()) {
            let exists = ours.len() == theirs.len() && by_permutations(&ours, &theirs, &mut vec![false; theirs.len()]);
            let found = paired(&ours, &theirs);
            prop_assert_eq!(found.is_some(), exists);
            if let Some(found) = found {
                let mut distinct = found.clone();
                distinct.sort_unstable();
                prop_assert_eq!(distinct, (0..ours.len()).collect::<Vec<_>>());
                for (a, at) in ours.iter().zip(found) {
                    prop_assert!(a.0 == theirs[at].0 && compatible(a, &theirs[at], &mut Budget::default()));
                }
            }
        }
    }

    #[test]
    fn thousands_of_indistinguishable_parts_end() {
        let ours = vec![(0, Some(1)); 5_000];
        let mut theirs = ours.clone();
        theirs[4_999].1 = Some(2);
        assert_eq!(paired(&ours, &theirs), None);
    }
}
