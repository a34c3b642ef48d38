//! The plain type gives the verdicts that are expected of the built component.

use killstream_plugin::testing::replay;
use watchlist::Watchlist;

#[test]
fn any() {
    replay::<Watchlist>(include_str!("../../vectors/watchlist-any.json"));
}

#[test]
fn victim() {
    replay::<Watchlist>(include_str!("../../vectors/watchlist-victim.json"));
}

#[test]
fn attacker() {
    replay::<Watchlist>(include_str!("../../vectors/watchlist-attacker.json"));
}

#[test]
fn final_blow() {
    replay::<Watchlist>(include_str!("../../vectors/watchlist-final-blow.json"));
}
