//! A few thousand real killmails, embedded in the binary, to try killstream without waiting for a feed; and a
//! generator of any number of made-up ones.
//!
//! The real ones are public in-game records and the property of CCP hf. (see `sample/NOTICE`); refresh them
//! with
//! `cargo run --release --example sample_pack -- DIR`.
//!
//! Must not know: how upstream documents are parsed. The real ones are returned as lines of JSON as received.

pub(crate) mod appraise;
mod clock;
pub mod document;
mod fight;
pub mod generate;
mod loot;
pub(crate) mod participants;
mod prices;
pub mod rng;

use std::io::{BufRead, BufReader};

static EMBEDDED: &[u8] = include_bytes!("killmails.ndjson.zst");

/// The killmails of the sample, one JSON document each, in killmail id order, which is time order. They are
/// decompressed lazily. The upstream formats are mixed, as in real life:
///
/// - most are as ESI returns them, with `killmail_hash` next to the killmail's own members: some twelve busy
///   hours of 2021-12-02, about half of the killmails that happened then;
/// - some hundred are RedisQ packages, `{"package": {"killID", "killmail", "zkb"}}`, with real `zkb` values;
/// - a handful are ESI killmails with a top-level `zkb`, as zKillboard's websocket sent them; two of these
///   also occur as packages.
pub fn lines() -> impl Iterator<Item = String> {
    let decoder = zstd::Decoder::new(EMBEDDED).expect("a decoder needs nothing but memory");
    BufReader::new(decoder)
        .lines()
        .map(|line| line.expect("the embedded sample is intact: a unit test reads it"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::Value;

    use super::*;

    const ESI: usize = 3_500;
    const PACKAGES: usize = 422;
    const WEBSOCKET: usize = 5;

    fn documents() -> Vec<Value> {
        lines().map(|line| serde_json::from_str(&line).expect("a line is JSON")).collect()
    }

    fn killmail(document: &Value) -> &Value {
        document.pointer("/package/killmail").unwrap_or(document)
    }

    #[test]
    fn the_sample_contains_every_format() {
        let documents = documents();
        let packages = documents.iter().filter(|document| document.get("package").is_some()).count();
        let websocket = documents.iter().filter(|document| document.get("zkb").is_some()).count();
        let esi = documents.iter().filter(|document| document.get("killmail_hash").is_some()).count();
        assert_eq!(
            (esi, packages, websocket, documents.len()),
            (ESI, PACKAGES, WEBSOCKET, ESI + PACKAGES + WEBSOCKET)
        );
        assert!(EMBEDDED.len() < 2_000_000);
    }

    #[test]
    fn the_sample_is_in_id_order() {
        let ids: Vec<u64> =
            documents().iter().filter_map(|document| killmail(document)["killmail_id"].as_u64()).collect();
        assert_eq!(ids.len(), ESI + PACKAGES + WEBSOCKET);
        assert!(ids.is_sorted());
    }

    #[test]
    fn the_sample_contains_busy_systems_and_recurring_characters() {
        let mut systems: HashMap<u64, usize> = HashMap::new();
        let mut attackers: HashMap<u64, usize> = HashMap::new();
        for document in documents().iter().filter(|document| document.get("killmail_hash").is_some()) {
            assert!(document["killmail_time"].as_str().is_some_and(|time| time.starts_with("2021-12-")));
            *systems.entry(document["solar_system_id"].as_u64().unwrap_or_default()).or_default() += 1;
            for attacker in document["attackers"].as_array().into_iter().flatten() {
                if let Some(character) = attacker["character_id"].as_u64() {
                    *attackers.entry(character).or_default() += 1;
                }
            }
        }
        assert!(systems.values().any(|&killmails| killmails > 30), "a system with many killmails");
        assert!(
            attackers.values().filter(|&&killmails| killmails >= 5).count() > 100,
            "characters that occur repeatedly"
        );
    }
}
