//! Makes up zKillboard's `zkb` block for a killmail without one: prices by a simple rule, flags and labels by
//! zKillboard's rules.
//!
//! Must not know: how the block is serialized.

use crate::clock::DAY_SECS;
use crate::domain::killmail::{Attacker, Extra, Killmail};
use crate::domain::zkb::Zkb;
use crate::sample::loot::CAPSULE;
use crate::sample::prices;
use crate::sample::rng::Dice;
use crate::universe::{self, Space};

/// Units of a stack that are priced: fuel and ore come in hundreds of thousands and cost next to nothing.
const STACK_MAX: u64 = 1_000;
/// Characters and corporations with ids up to these are NPCs.
const NPC_CHARACTERS: u32 = 3_999_999;
const NPC_CORPORATIONS: u32 = 1_999_999;
/// Groups of capsules, shuttles and rookie ships: losing one is neither solo nor awox.
const TRIFLES: [u32; 3] = [29, 31, 237];

/// The block of a made-up killmail. The price of the hull and the points are random.
pub fn appraise(killmail: &Killmail, dice: &mut Dice) -> Zkb {
    let ship = killmail.victim.ship_type_id.unwrap_or_default();
    let hull =
        if ship == CAPSULE { prices::CAPSULE_ISK } else { (16.6 + 1.9 * dice.normal()).exp().min(9e10) };
    let location = 40_000_000 + u64::from(dice.below(400_000));
    Zkb { location_id: Some(location), ..block(killmail, hull, dice) }
}

/// A block for a real killmail that has none, marked `estimated`. The same killmail always gets the same one.
#[must_use]
pub fn estimate(killmail: &Killmail) -> Zkb {
    let mut dice = Dice::new(u64::from(killmail.killmail_id));
    let mut zkb = block(killmail, prices::hull(killmail.victim.ship_type_id.unwrap_or_default()), &mut dice);
    zkb.extra.insert("estimated".to_owned(), true.into());
    zkb
}

fn block(killmail: &Killmail, hull: f64, dice: &mut Dice) -> Zkb {
    let ship = killmail.victim.ship_type_id.unwrap_or_default();
    let (mut dropped, mut destroyed, mut fitted) = (0.0, hull, hull);
    for item in killmail.victim.items.iter().flatten() {
        let price = prices::item(item);
        let worth = |quantity: Option<u64>| price * quantity.unwrap_or_default().min(STACK_MAX) as f64;
        dropped += worth(item.quantity_dropped);
        destroyed += worth(item.quantity_destroyed);
        fitted += if item.flag == 5 { 0.0 } else { price };
    }
    let total = prices::cents(dropped + destroyed);
    let group = universe::group_of(ship).unwrap_or_default();
    let category = universe::category_of_group(group).unwrap_or_default();
    let trifle = TRIFLES.contains(&group);
    let players = killmail.attackers.iter().filter(|a| is_player(a)).count();
    let npc = players == 0;
    let solo = players == 1 && category == 6 && !trifle;
    let blow = killmail.attackers.iter().find(|a| a.final_blow);
    let awox =
        !trifle && blow.is_some_and(|a| is_player(a) && a.corporation_id == killmail.victim.corporation_id);
    let hash = killmail.hash.clone();
    let href = hash
        .as_ref()
        .map(|hash| format!("https://esi.evetech.net/killmails/{}/{hash}/", killmail.killmail_id));
    let droppable = prices::cents((total - hull).max(0.0));
    let extra = std::iter::once(("totalDroppableValue".to_owned(), droppable.into())).collect::<Extra>();
    Zkb {
        location_id: None,
        hash,
        fitted_value: Some(prices::cents(fitted)),
        dropped_value: Some(prices::cents(dropped)),
        destroyed_value: Some(prices::cents(destroyed)),
        total_value: Some(total),
        points: Some(if npc { 1 } else { 1 + i64::from(dice.below(40)) / players as i64 }),
        npc: Some(npc),
        solo: Some(solo),
        awox: Some(awox),
        labels: Some(labels(killmail, category, total, [npc, solo, awox])),
        attacker_count: Some(killmail.attackers.len() as u64),
        href,
        extra,
        ..Zkb::default()
    }
}

/// Changes a block as zKillboard does when it processes a killmail again: other prices, marked as a gank.
pub fn appraise_again(zkb: &mut Zkb, dice: &mut Dice) {
    let turn = 1.0 + 0.1 * dice.normal();
    for value in
        [&mut zkb.fitted_value, &mut zkb.dropped_value, &mut zkb.destroyed_value, &mut zkb.total_value]
            .into_iter()
            .flatten()
    {
        *value = prices::cents(*value * turn);
    }
    zkb.labels.get_or_insert_default().push("ganked".to_owned());
}

fn is_player(attacker: &Attacker) -> bool {
    attacker.character_id.is_some_and(|id| id > NPC_CHARACTERS)
        || attacker.corporation_id.is_some_and(|id| id > NPC_CORPORATIONS)
}

fn labels(killmail: &Killmail, category: u32, isk: f64, [npc, solo, awox]: [bool; 3]) -> Vec<String> {
    let zone = match killmail.time.rem_euclid(DAY_SECS) / 3600 {
        8..=13 => "tz:au",
        14..=16 => "tz:ru",
        17..=21 => "tz:eu",
        4..=7 => "tz:usw",
        _ => "tz:use",
    };
    let crowd = match killmail.attackers.len() {
        _ if solo => "solo",
        1000.. => "#:1000+",
        100.. => "#:100+",
        50.. => "#:50+",
        25.. => "#:25+",
        10.. => "#:10+",
        5.. => "#:5+",
        2.. => "#:2+",
        _ => "#:1",
    };
    let place = match universe::system(killmail.solar_system_id).map(|system| system.class()) {
        Some(Space::High) => "loc:highsec",
        Some(Space::Low) => "loc:lowsec",
        Some(Space::Null) => "loc:nullsec",
        Some(Space::Wormhole) => "loc:w-space",
        Some(Space::Abyssal) => "loc:abyssal",
        _ => "",
    };
    let worth = match isk {
        1e12.. => "isk:1t+",
        1e11.. => "isk:100b+",
        1e10.. => "isk:10b+",
        5e9.. => "isk:5b+",
        1e9.. => "isk:1b+",
        _ => "",
    };
    let kind = if npc { "npc" } else { "pvp" };
    let mut labels = Vec::with_capacity(7);
    labels.push(zone.to_owned());
    labels.push(format!("cat:{category}"));
    let rest = [crowd, kind, if awox { "awox" } else { "" }, place, worth];
    labels.extend(rest.into_iter().filter(|label| !label.is_empty()).map(str::to_owned));
    labels
}
