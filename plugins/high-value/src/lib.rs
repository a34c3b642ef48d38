//! Keeps killmails of at least `min_isk`, optionally only losses of ships of some groups, and
//! annotates their value and its class.
//!
//! Configuration: `{"min_isk": 1000000000, "ship_groups": ["capital", 513]}`. `ship_groups` may have
//! group ids and the words `capital`, `supercapital`, `freighter`, `capsule`, `structure`.

use killstream_plugin::{Interest, Killmail, Kind, Plugin, Role, Term, Verdict, export, universe};
use serde::{Deserialize, Serialize};

mod class;

use class::Class;

/// Which killmails are kept.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HighValue {
    /// The least total value, ISK.
    min_isk: f64,
    /// Groups of the victim's ship; empty means any.
    ship_groups: Vec<Class>,
}

/// The annotation of a kept killmail.
#[derive(Serialize)]
struct Annotations {
    value: f64,
    tier: &'static str,
}

impl Default for HighValue {
    fn default() -> Self {
        Self { min_isk: 1e9, ship_groups: Vec::new() }
    }
}

impl Plugin for HighValue {
    fn check(&self) -> Result<(), String> {
        if self.min_isk < 0.0 {
            return Err(format!("min_isk: {} is below 0", self.min_isk));
        }
        Ok(())
    }

    fn interest(&self) -> Interest {
        Interest { min_value: self.min_isk, any_of: self.groups().into_iter().collect(), ..Interest::default() }
    }

    fn evaluate(&self, killmail: &Killmail) -> Result<Verdict, String> {
        if killmail.total_value < self.min_isk || !self.takes(killmail) {
            return Ok(Verdict::Drop);
        }
        Verdict::annotate(&Annotations { value: killmail.total_value, tier: tier(killmail.total_value) })
    }
}

export!(HighValue);

impl HighValue {
    fn takes(&self, killmail: &Killmail) -> bool {
        let group = killmail.victim_ship_group;
        self.ship_groups.is_empty() || self.ship_groups.iter().any(|class| class.holds(group, || universe::category(killmail.victim_ship)))
    }

    /// The groups as one term of interest; `none` for a whole category, which a term cannot express.
    fn groups(&self) -> Option<Term> {
        let groups: Option<Vec<_>> = self.ship_groups.iter().map(Class::groups).collect();
        groups
            .map(|groups| groups.concat())
            .filter(|groups| !groups.is_empty())
            .map(|groups| Term::new(Kind::ShipGroup, Role::Victim, groups))
    }
}

/// The value classes of zKillboard's labels.
fn tier(isk: f64) -> &'static str {
    const TIERS: [(f64, &str); 5] = [(1e12, "1t+"), (100e9, "100b+"), (10e9, "10b+"), (5e9, "5b+"), (1e9, "1b+")];
    TIERS.iter().find(|(least, _)| isk >= *least).map_or("below 1b", |(_, tier)| tier)
}

#[cfg(test)]
mod tests {
    use super::*;
    use killstream_plugin::testing::configure;

    fn refusal(config: &str) -> String {
        configure::<HighValue>(config).expect_err("refused")
    }

    #[test]
    fn nothing_configured_is_a_billion_of_anything() {
        let plugin: HighValue = configure("{}").expect("accepted");
        assert_eq!(plugin.min_isk, 1e9);
        assert!(plugin.interest().any_of.is_empty());
    }

    #[test]
    fn interest_names_value_and_groups() {
        let plugin: HighValue = configure(r#"{"min_isk": 5, "ship_groups": ["supercapital", 513]}"#).expect("accepted");
        let interest = plugin.interest();
        assert_eq!((interest.min_value, interest.any_of), (5.0, vec![Term::new(Kind::ShipGroup, Role::Victim, [30, 659, 513])]));
        let plugin: HighValue = configure(r#"{"ship_groups": [30, "structure"]}"#).expect("accepted");
        assert!(plugin.interest().any_of.is_empty(), "a category is no term");
    }

    #[test]
    fn refusals_name_the_field() {
        assert_eq!(refusal(r#"{"min_isk": -1}"#), "min_isk: -1 is below 0");
        assert!(refusal(r#"{"min_isk": "much"}"#).starts_with("min_isk: invalid type: string \"much\""));
        assert!(refusal(r#"{"min_iks": 1}"#).starts_with("min_iks: unknown field"));
        assert!(refusal(r#"{"ship_groups": [30, "boat"]}"#).starts_with("ship_groups[1]: \"boat\" is no ship group"));
        assert!(refusal(r#"{"ship_groups": [0]}"#).starts_with("ship_groups[0]: 0 is no ship group"));
        assert!(refusal("[1").contains("EOF"));
    }

    #[test]
    fn tiers_are_zkillboards_bins() {
        let tiers = [0.0, 999_999_999.99, 1e9, 4.99e9, 5e9, 10e9, 99e9, 100e9, 1e12].map(tier);
        assert_eq!(tiers, ["below 1b", "below 1b", "1b+", "1b+", "5b+", "10b+", "10b+", "100b+", "1t+"]);
    }
}
