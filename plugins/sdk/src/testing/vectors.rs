//! Test vectors: killmails and the expected verdicts, the same for the native type and the built component.

use serde_json::Value;

use super::{Stage, configure};
use crate::{Plugin, Verdict};

/// Replays a vector as `plugins/README.md` describes: evaluates its cases in order, while the history grows.
///
/// # Panics
///
/// If a verdict differs from the expected one, or the vector is invalid.
pub fn replay<P: Plugin>(vector: &str) {
    let vector: Value = serde_json::from_str(vector).expect("a vector is JSON");
    let plugin: P = configure(&vector["config"].to_string()).expect("the configuration is accepted");
    let mut stage = Stage { types: types(&vector["universe"]["types"]), ..Stage::default() };
    let cases = vector["cases"].as_array().expect("a vector has cases");
    assert!(!cases.is_empty(), "a vector has cases");
    for case in cases {
        let verdict = match stage.judge(&plugin, &case["killmail"]) {
            Ok(Verdict::Drop) => Value::from("drop"),
            Ok(Verdict::Keep) => Value::from("keep"),
            Ok(Verdict::KeepWith(annotations)) => serde_json::from_str(&annotations).expect("annotations are JSON"),
            Err(error) => panic!("killmail {}: {error}", case["killmail"]["killmail_id"]),
        };
        assert_eq!(verdict, case["expect"], "killmail {}", case["killmail"]["killmail_id"]);
    }
}

/// `{"670": [29, 6]}`: group and category of each type.
fn types(table: &Value) -> std::collections::BTreeMap<u32, (u32, u32)> {
    let entry = |(id, place): (&String, &Value)| Some((id.parse().ok()?, (place[0].as_u64()? as u32, place[1].as_u64()? as u32)));
    table.as_object().into_iter().flatten().filter_map(entry).collect()
}
