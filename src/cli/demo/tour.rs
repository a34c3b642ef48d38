//! What to try on the demo: every line returns killmails, which a test makes sure of.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::SocketAddr;

use serde_json::json;

use crate::cli::api::escaped;
use crate::store::Incoming;
use crate::universe;

/// Only what happened lately counts as busy, seconds.
const LATELY_SECS: i64 = 6 * 3_600;
/// Streams of the tour end by themselves, seconds.
const STREAM_SECS: u32 = 20;

/// The lines, ready for a shell.
#[must_use]
pub fn lines(addr: SocketAddr, history: &[Incoming]) -> Vec<String> {
    let last = history.last().map_or(0, |last| last.killmail.time);
    let lately: Vec<&Incoming> = history.iter().filter(|killmail| killmail.killmail.time > last - LATELY_SECS).collect();
    let system = commonest(lately.iter().map(|k| k.killmail.solar_system_id));
    let region = commonest(lately.iter().filter_map(|k| Some(universe::system(k.killmail.solar_system_id)?.region_id)));
    let pilot = commonest(lately.iter().flat_map(|k| k.killmail.attackers.iter().filter_map(|a| a.character_id)));
    let alliance = commonest(lately.iter().flat_map(|k| k.killmail.attackers.iter().filter_map(|a| a.alliance_id)));
    let api = format!("http://{addr}/api/v1");
    let search = json!({ "character_ids": [pilot], "role": "attacker", "limit": 3 });
    let gatecamp = escaped(&json!({ "kills": 3, "minutes": 10 }).to_string());
    let valuable = escaped(&json!({ "min_isk": 1e9 }).to_string());
    let watchlist = escaped(&json!({ "alliances": [alliance], "role": "attacker" }).to_string());
    vec![
        format!("curl '{api}/killmails?limit=3'"),
        format!("curl '{api}/killmails?region_ids={region}&role=victim&limit=3'"),
        format!("curl '{api}/killmails/search' -H 'content-type: application/json' -d '{search}'"),
        format!("curl '{api}/killmails?plugin=high-value&plugin_config={valuable}&limit=3'"),
        format!("curl '{api}/killmails?plugin=gatecamp&plugin_config={gatecamp}&limit=3'"),
        format!("curl -N -m {STREAM_SECS} '{api}/kills/stream'"),
        format!("curl -N -m {STREAM_SECS} '{api}/kills/stream/enhanced?system_ids={system}&preload_days=1'"),
        format!(
            "curl -N -m {STREAM_SECS} '{api}/kills/stream/enhanced?alliance_ids={alliance}&preload_days=1&plugin=watchlist&plugin_config={watchlist}'"
        ),
    ]
}

/// The value that occurs most often, the smallest of several; the default of none.
fn commonest<T: Copy + Ord + Hash + Default>(values: impl Iterator<Item = T>) -> T {
    let mut counts: HashMap<T, usize> = HashMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(value, count)| (*count, std::cmp::Reverse(*value))).map(|(value, _)| value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commonest_is_found() {
        assert_eq!(commonest([3, 1, 2, 2, 1].into_iter()), 1);
        assert_eq!(commonest(std::iter::empty::<u32>()), 0);
    }
}
