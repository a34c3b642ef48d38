//! The plain type gives the verdicts that are expected of the built component.

use gatecamp::Gatecamp;
use killstream_plugin::testing::replay;

#[test]
fn default() {
    replay::<Gatecamp>(include_str!("../../vectors/gatecamp-default.json"));
}

#[test]
fn tight() {
    replay::<Gatecamp>(include_str!("../../vectors/gatecamp-tight.json"));
}
