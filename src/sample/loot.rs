//! What a made-up victim lost: the hull and the items in it.
//!
//! Must not know: who killed it.

use crate::domain::killmail::Item;
use crate::sample::participants::Participants;
use crate::sample::rng::{Counts, Dice};

/// The type id of the capsule.
pub const CAPSULE: u32 = 670;
const IMPLANT_FLAG: i64 = 89;
const CARGO_FLAG: i64 = 5;
/// Slot flags in the order in which a ship is fitted: high, medium and low slots, drone bay, rigs.
const SLOTS: [i64; 28] = [
    27, 28, 29, 30, 19, 20, 21, 22, 11, 12, 13, 14, 87, 87, 92, 93, 94, 31, 32, 33, 34, 23, 24, 15, 16, 17,
    18, 125,
];

const IMPLANTS: Counts = Counts(&[(0.73, 0, 0), (0.85, 1, 2), (0.94, 3, 5), (1.0, 6, 10)]);
const ITEMS: Counts = Counts(&[
    (0.09, 0, 2),
    (0.20, 3, 8),
    (0.30, 9, 14),
    (0.40, 15, 17),
    (0.50, 18, 21),
    (0.60, 22, 24),
    (0.70, 25, 27),
    (0.80, 28, 31),
    (0.90, 32, 37),
    (0.95, 38, 43),
    (0.988, 44, 65),
    (0.9988, 66, 150),
    (1.0, 151, 756),
]);

/// Draws the ship that was lost.
pub fn hull(participants: &Participants, dice: &mut Dice) -> u32 {
    if dice.chance(0.274) { CAPSULE } else { participants.ships_lost.draw(dice) }
}

/// Draws the items in it.
pub fn items(participants: &Participants, hull: u32, dice: &mut Dice) -> Vec<Item> {
    if hull == CAPSULE {
        let count = IMPLANTS.draw(dice);
        return (0..count)
            .map(|_| item(u64::from(dice.pick(&participants.implants)), IMPLANT_FLAG, false, 1))
            .collect();
    }
    let count = ITEMS.draw(dice) as usize;
    let mut items: Vec<Item> = Vec::with_capacity(count);
    for n in 0..count {
        let throw = dice.throw();
        let slot = SLOTS.get(n).filter(|_| !throw.is_multiple_of(4));
        let (cargo, flag) = (slot.is_none(), slot.copied().unwrap_or(CARGO_FLAG));
        let quantity = if cargo { 1 + (throw >> 8) % 400 } else { 1 };
        items.push(item(
            u64::from(participants.modules.draw(dice)),
            flag,
            (throw >> 20) % 100 < 45,
            quantity,
        ));
    }
    add_rare_items(participants, &mut items, dice);
    items
}

/// Adds blueprint copies and full containers, as rarely as they occur.
fn add_rare_items(participants: &Participants, items: &mut [Item], dice: &mut Dice) {
    let count = items.len() as u32;
    if count > 0 && dice.chance(0.05) {
        items[dice.below(count) as usize].singleton = 2;
    }
    if count > 0 && dice.chance(0.0095) {
        let inside = (0..1 + dice.below(6))
            .map(|_| item(u64::from(participants.modules.draw(dice)), 0, true, 3))
            .collect();
        items[dice.below(count) as usize].items = Some(inside);
    }
}

fn item(item_type_id: u64, flag: i64, dropped: bool, quantity: u64) -> Item {
    let quantity = Some(quantity);
    let (quantity_dropped, quantity_destroyed) = if dropped { (quantity, None) } else { (None, quantity) };
    Item {
        item_type_id,
        flag,
        singleton: 0,
        quantity_dropped,
        quantity_destroyed,
        items: None,
        ..Item::default()
    }
}
