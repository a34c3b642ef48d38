//! The native type gives the same verdicts as the built component must.

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
