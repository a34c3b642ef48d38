//! Prices of hulls and items in the sample: by group for hulls, and a fixed made-up price for every item
//! type.
//!
//! Must not know: who lost them.

use crate::domain::killmail::Item;
use crate::sample::loot::CAPSULE;
use crate::universe;

/// A capsule without implants, ISK.
pub const CAPSULE_ISK: f64 = 10_000.0;

/// Prices of hulls by ship group, millions of ISK, in the order of magnitude of 2026. Other groups have the
/// price of their category.
const HULLS: [(u32, f64); 47] = [
    (25, 0.6),
    (26, 11.0),
    (27, 190.0),
    (28, 1.5),
    (30, 75_000.0),
    (31, 0.02),
    (237, 0.01),
    (324, 25.0),
    (358, 180.0),
    (380, 200.0),
    (419, 65.0),
    (420, 1.6),
    (463, 25.0),
    (485, 3_500.0),
    (513, 1_700.0),
    (540, 350.0),
    (541, 60.0),
    (543, 260.0),
    (547, 2_200.0),
    (659, 24_000.0),
    (830, 20.0),
    (831, 25.0),
    (832, 200.0),
    (833, 220.0),
    (834, 30.0),
    (883, 3_000.0),
    (893, 25.0),
    (894, 280.0),
    (898, 1_200.0),
    (900, 1_500.0),
    (902, 9_000.0),
    (906, 200.0),
    (941, 700.0),
    (963, 200.0),
    (1022, 0.8),
    (1201, 90.0),
    (1202, 170.0),
    (1283, 25.0),
    (1305, 45.0),
    (1527, 25.0),
    (1534, 50.0),
    (1538, 2_500.0),
    (1972, 400.0),
    (4594, 9_000.0),
    (4902, 300.0),
    (5087, 500.0),
    (5120, 4_000.0),
];
/// Prices of structures, and of everything else that can be lost, millions of ISK.
const STRUCTURE: f64 = 900.0;
const OTHER: f64 = 5.0;

/// The category of structures.
const STRUCTURES: u32 = 65;

/// The price of a hull, ISK: always the same for a type, up to a third above or below that of its group.
#[must_use]
pub fn hull(ship: u32) -> f64 {
    if ship == CAPSULE {
        return CAPSULE_ISK;
    }
    let group = universe::group_of(ship).unwrap_or_default();
    let of_category =
        || if universe::category_of_group(group) == Some(STRUCTURES) { STRUCTURE } else { OTHER };
    let millions =
        HULLS.iter().find(|(of, _)| *of == group).map_or_else(of_category, |(_, millions)| *millions);
    cents(millions * 1e6 * (0.67 + 0.67 * spread(u64::from(ship))))
}

/// The price of one unit, ISK: always the same for a type, and low in the cargo hold.
#[must_use]
pub fn item(item: &Item) -> f64 {
    let spread = spread(item.item_type_id);
    let in_hold = item.flag == 5;
    cents(if in_hold { 10.0 + 9_000.0 * spread * spread } else { 1_000.0 + 4e6 * spread * spread * spread })
}

/// A fraction from 0 to 1 that is fixed for a type and evenly distributed over types.
fn spread(type_id: u64) -> f64 {
    (type_id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64 / f64::from(1 << 24)
}

/// Rounds to two decimals.
#[must_use]
pub fn cents(isk: f64) -> f64 {
    (isk * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_hulls_cost_more() {
        let [rifter, typhoon, revelation, avatar] = [587, 644, 19720, 11567].map(hull);
        assert!(
            CAPSULE_ISK < rifter && rifter < typhoon && typhoon < revelation && revelation < avatar,
            "{rifter} {typhoon} {revelation} {avatar}"
        );
        assert!((3e10..2e11).contains(&avatar), "{avatar}");
        assert!((hull(587) - rifter).abs() < f64::EPSILON);
    }
}
