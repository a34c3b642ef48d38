//! The filter of a subscription as it is echoed to clients: names of parameters, sorted ids, RFC 3339 times.
//! History, counts, join replies and the list of subscriptions all use this form.
//!
//! Must not know: transports, or how the filter was written in the request.

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::domain::filter::{Filter, Match};
use crate::domain::subscription::{PluginUse, Subscription};
use crate::domain::term::Role;
use crate::wire::time::iso_seconds;

/// The filter as it was understood. `match` is always included, since it is what people guess wrong;
/// everything else only if it restricts.
#[derive(Debug, Clone, Copy)]
pub struct FilterEcho<'a> {
    /// The filter to write.
    pub filter: &'a Filter,
    /// The plugin to write, with its configuration.
    pub plugin: Option<&'a PluginUse>,
}

impl<'a> FilterEcho<'a> {
    /// The filter and plugin of a subscription.
    #[must_use]
    pub const fn new(subscription: &'a Subscription) -> Self {
        Self { filter: &subscription.filter, plugin: subscription.plugin.as_ref() }
    }
}

/// The configuration a plugin gets if the request has none.
const NO_CONFIG: &str = "{}";

const fn match_word(matching: Match) -> &'static str {
    match matching {
        Match::Any => "any",
        Match::All => "all",
    }
}

const fn role_word(role: Role) -> &'static str {
    match role {
        Role::Any => "any",
        Role::Victim => "victim",
        Role::Attacker => "attacker",
        Role::FinalBlow => "final_blow",
    }
}

impl Serialize for FilterEcho<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { filter, plugin } = self;
        let mut map = serializer.serialize_map(None)?;
        for listed in &filter.dimensions {
            map.serialize_entry(listed.dimension.parameter(), listed.ids.as_slice())?;
        }
        map.serialize_entry("match", match_word(filter.matching))?;
        if filter.role != Role::Any {
            map.serialize_entry("role", role_word(filter.role))?;
        }
        if !filter.labels.is_empty() {
            map.serialize_entry("labels", &filter.labels)?;
        }
        for (name, flag) in [("npc", filter.npc), ("solo", filter.solo), ("awox", filter.awox)] {
            write_if_some(&mut map, name, flag.as_ref())?;
        }
        write_if_some(&mut map, "min_value", filter.min_value.as_ref())?;
        write_if_some(&mut map, "max_value", filter.max_value.as_ref())?;
        write_if_some(&mut map, "since", filter.since.map(iso_seconds).as_ref())?;
        write_if_some(&mut map, "until", filter.until.map(iso_seconds).as_ref())?;
        write_if_some(&mut map, "plugin", plugin.map(|used| &used.name))?;
        write_if_some(
            &mut map,
            "plugin_config",
            plugin.map(|used| &used.config).filter(|config| *config != NO_CONFIG),
        )?;
        map.end()
    }
}

fn write_if_some<M: SerializeMap, T: Serialize>(
    map: &mut M,
    name: &str,
    value: Option<&T>,
) -> Result<(), M::Error> {
    value.map_or(Ok(()), |value| map.serialize_entry(name, value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::term::Dimension;

    #[test]
    fn a_filter_is_echoed_as_it_was_understood() {
        let mut subscription = Subscription::default();
        assert_eq!(json!(FilterEcho::new(&subscription)), json!({ "match": "any" }));
        let filter = &mut subscription.filter;
        filter.set_ids(Dimension::ShipType, vec![17_738, 587, 587]);
        (filter.matching, filter.role) = (Match::All, Role::FinalBlow);
        (filter.labels, filter.npc) = (vec!["pvp".to_owned()], Some(false));
        (filter.min_value, filter.max_value) = (Some(1e9), Some(2.5e9));
        (filter.since, filter.until) = (Some(1_637_971_200), Some(0));
        subscription.plugin =
            Some(PluginUse { name: "gatecamp".to_owned(), version: None, config: "{}".to_owned() });
        let expected = json!({
            "ship_type_ids": [587, 17_738], "match": "all", "role": "final_blow", "labels": ["pvp"], "npc": false,
            "min_value": 1e9, "max_value": 2.5e9, "since": "2021-11-27T00:00:00Z", "until": "1970-01-01T00:00:00Z", "plugin": "gatecamp",
        });
        assert_eq!(json!(FilterEcho::new(&subscription)), expected);
        subscription.plugin = Some(PluginUse {
            name: "gatecamp".to_owned(),
            version: None,
            config: r#"{"kills":3}"#.to_owned(),
        });
        assert_eq!(json!(FilterEcho::new(&subscription))["plugin_config"], r#"{"kills":3}"#);
    }
}
