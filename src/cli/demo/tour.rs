//! The commands the demo suggests to try. A test checks that each of them finds something.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::SocketAddr;

use serde_json::json;

use crate::cli::api::escape;
use crate::store::incoming::Incoming;
use crate::universe;

/// The busiest systems and pilots are those of this last part of the history, seconds.
const RECENT_SECS: i64 = 6 * 3_600;
/// How long the suggested streams run, seconds.
const STREAM_SECS: u32 = 20;

#[derive(Debug)]
pub struct Step {
    /// What the command shows.
    pub shows: String,
    /// The command line.
    pub command: String,
}

/// All suggestions, with ids that occur often in this history.
#[must_use]
pub fn steps(addr: SocketAddr, history: &[Incoming]) -> Vec<Step> {
    let last = history.last().map_or(0, |last| last.killmail.time);
    let recent: Vec<&Incoming> =
        history.iter().filter(|killmail| killmail.killmail.time > last - RECENT_SECS).collect();
    let system = most_frequent(recent.iter().map(|k| k.killmail.solar_system_id));
    let region = most_frequent(
        recent.iter().filter_map(|k| Some(universe::system(k.killmail.solar_system_id)?.region_id)),
    );
    let pilot =
        most_frequent(recent.iter().flat_map(|k| k.killmail.attackers.iter().filter_map(|a| a.character_id)));
    let alliance =
        most_frequent(recent.iter().flat_map(|k| k.killmail.attackers.iter().filter_map(|a| a.alliance_id)));
    let api = format!("http://{addr}/api/v1");
    let search = json!({ "character_ids": [pilot], "role": "attacker", "limit": 3 });
    let gatecamp = escape(&json!({ "kills": 3, "minutes": 10 }).to_string());
    let valuable = escape(&json!({ "min_isk": 1e9 }).to_string());
    let watchlist = escape(&json!({ "alliances": [alliance], "role": "attacker" }).to_string());
    let step = |shows: &str, command: String| Step { shows: shows.to_owned(), command };
    let live = format!("curl -N -m {STREAM_SECS}");
    vec![
        step(
            "the newest losses of a billion ISK and more",
            format!("curl '{api}/killmails?min_value=1e9&limit=3'"),
        ),
        step(
            "how many losses players caused in the busiest region, over the whole sample",
            format!("curl '{api}/killmails/count?region_ids={region}&npc=false'"),
        ),
        step(
            "what the busiest pilot shot last",
            format!("curl '{api}/killmails/search' -H 'content-type: application/json' -d '{search}'"),
        ),
        step(
            "losses in that region OR caused by a certain alliance",
            format!("curl '{api}/killmails?region_ids={region}&alliance_ids={alliance}&limit=3'"),
        ),
        step(
            "losses in that region AND caused by that alliance",
            format!("curl '{api}/killmails?region_ids={region}&alliance_ids={alliance}&match=all&limit=3'"),
        ),
        step(
            "a plugin that queries the history: losses that look like a gate camp, with its reasons under \"enriched\"",
            format!("curl '{api}/killmails?plugin=gatecamp&plugin_config={gatecamp}&limit=3'"),
        ),
        step(
            "a plugin that filters by value",
            format!("curl '{api}/killmails?plugin=high-value&plugin_config={valuable}&limit=3'"),
        ),
        step("everything, live", format!("{live} '{api}/kills/stream'")),
        step(
            "a day of the busiest system in batches, then live",
            format!("{live} '{api}/kills/stream/enhanced?system_ids={system}&preload_days=1'"),
        ),
        step(
            "the same for an alliance, each killmail annotated by a plugin",
            format!(
                "{live} '{api}/kills/stream/enhanced?alliance_ids={alliance}&preload_days=1&plugin=watchlist&plugin_config={watchlist}'"
            ),
        ),
    ]
}

/// The most frequent value, the smallest of equally frequent ones; the default if there are no values.
fn most_frequent<T: Copy + Ord + Hash + Default>(values: impl Iterator<Item = T>) -> T {
    let mut counts: HashMap<T, usize> = HashMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    counts
        .into_iter()
        .max_by_key(|(value, count)| (*count, std::cmp::Reverse(*value)))
        .map(|(value, _)| value)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_value_is_found() {
        assert_eq!(most_frequent([3, 1, 2, 2, 1].into_iter()), 1);
        assert_eq!(most_frequent(std::iter::empty::<u32>()), 0);
    }
}
