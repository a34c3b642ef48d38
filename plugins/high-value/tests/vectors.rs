//! The plain type gives the verdicts that are expected of the built component.

use high_value::HighValue;
use killstream_plugin::testing::replay;

#[test]
fn default() {
    replay::<HighValue>(include_str!("../../vectors/high-value-default.json"));
}

#[test]
fn capitals() {
    replay::<HighValue>(include_str!("../../vectors/high-value-capitals.json"));
}

#[test]
fn structures() {
    replay::<HighValue>(include_str!("../../vectors/high-value-structures.json"));
}
