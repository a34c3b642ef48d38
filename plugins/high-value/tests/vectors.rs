//! The native type gives the same verdicts as the built component must.

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
