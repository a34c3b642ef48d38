//! The native type gives the same verdicts as the built component must.

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
