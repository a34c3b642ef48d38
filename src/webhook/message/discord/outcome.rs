//! Whether a killmail is a kill or a loss for those a filter names.
//!
//! Must not know: how that is shown.

use crate::domain::facts::Facts;
use crate::domain::filter::{Filter, IdSet};
use crate::domain::term::{Dimension, Role};

/// What a killmail is for those the filter names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// One of them lost the ship.
    Loss,
    /// One of them attacked.
    Kill,
    /// The filter names nobody in it.
    Neutral,
}

/// The outcome for the ids of a filter. Pilots and their groups decide if the filter names any; else ships and weapons
/// do: titans lost to an alliance are its kills, though the filter names titans, too.
#[must_use]
pub fn outcome(filter: &Filter, facts: &Facts) -> Outcome {
    let from_dimensions = filter.dimensions.iter().map(|list| (list.dimension, filter.role, &list.ids));
    let from_clauses = filter.each.iter().map(|clause| (clause.dimension, clause.role, &clause.ids));
    let parties: Vec<Clause<'_>> =
        from_dimensions.chain(from_clauses).filter(|(kind, ..)| kind.is_party()).collect();
    let names_people = parties.iter().any(|(kind, ..)| is_people(*kind));
    let mut outcome = Outcome::Neutral;
    for clause in parties.iter().filter(|(kind, ..)| is_people(*kind) == names_people) {
        match clause_outcome(clause, facts) {
            Outcome::Loss => return Outcome::Loss,
            Outcome::Kill => outcome = Outcome::Kill,
            Outcome::Neutral => {}
        }
    }
    outcome
}

type Clause<'a> = (Dimension, Role, &'a IdSet);

const fn is_people(kind: Dimension) -> bool {
    matches!(kind, Dimension::Character | Dimension::Corporation | Dimension::Alliance | Dimension::Faction)
}

fn clause_outcome((kind, role, ids): &Clause<'_>, facts: &Facts) -> Outcome {
    let attackers = if *role == Role::FinalBlow { &facts.final_blow } else { &facts.attackers };
    if matches!(role, Role::Any | Role::Victim) && ids.meets(facts.victim.ids(*kind)) {
        Outcome::Loss
    } else if *role != Role::Victim && ids.meets(attackers.ids(*kind)) {
        Outcome::Kill
    } else {
        Outcome::Neutral
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::facts::{Columns, Places};
    use crate::domain::filter::RoleClause;

    fn facts() -> Facts {
        let side = |ids: &[u32], ships: &[u32]| {
            let mut columns = Columns::default();
            columns.set(Dimension::Alliance, ids.to_vec());
            columns.set(Dimension::ShipType, ships.to_vec());
            columns
        };
        Facts {
            places: Places::default().with(Dimension::System, 30_000_142),
            victim: side(&[1], &[11_567]),
            attackers: side(&[1, 2, 3], &[587]),
            final_blow: side(&[3], &[587]),
            ..Facts::default()
        }
    }

    fn filter(lists: &[(Dimension, u32)], role: Role) -> Filter {
        let mut filter = Filter { role, ..Filter::default() };
        lists.iter().for_each(|(kind, id)| filter.set_ids(*kind, vec![*id]));
        filter
    }

    #[test]
    fn the_victim_makes_it_a_loss_and_an_attacker_a_kill() {
        use Dimension::{Alliance, ShipType, System};
        for (lists, role, expected) in [
            (&[(Alliance, 1)][..], Role::Any, Outcome::Loss),
            (&[(Alliance, 2)], Role::Any, Outcome::Kill),
            (&[(Alliance, 9)], Role::Any, Outcome::Neutral),
            (&[(System, 30_000_142)], Role::Any, Outcome::Neutral),
            (&[], Role::Any, Outcome::Neutral),
            (&[(Alliance, 1)], Role::Attacker, Outcome::Kill),
            (&[(Alliance, 2)], Role::Victim, Outcome::Neutral),
            (&[(Alliance, 2)], Role::FinalBlow, Outcome::Neutral),
            (&[(Alliance, 3)], Role::FinalBlow, Outcome::Kill),
            (&[(ShipType, 11_567)], Role::Any, Outcome::Loss),
            (&[(ShipType, 587)], Role::Any, Outcome::Kill),
            (&[(ShipType, 11_567), (Alliance, 2)], Role::Any, Outcome::Kill),
        ] {
            assert_eq!(outcome(&filter(lists, role), &facts()), expected, "{lists:?} {role:?}");
        }
    }

    #[test]
    fn ids_with_a_role_of_their_own_count_in_that_role() {
        let clause = |role| RoleClause { dimension: Dimension::Alliance, role, ids: IdSet::new(vec![1]) };
        let filter = |role| Filter { each: vec![clause(role)], ..Filter::default() };
        assert_eq!(outcome(&filter(Role::Victim), &facts()), Outcome::Loss);
        assert_eq!(outcome(&filter(Role::Attacker), &facts()), Outcome::Kill);
        assert_eq!(outcome(&filter(Role::FinalBlow), &facts()), Outcome::Neutral);
    }
}
