//! Keeps killmails in solar systems with many recent ones: at least `kills` of them within the
//! `minutes` before this one. Annotates how many there were and since when.
//!
//! Configuration: `{"kills": 3, "minutes": 10}`. It has no state of its own: it queries the server's
//! history, so live, resumed and replayed streams give the same verdicts.

use killstream_plugin::history::{self, Query};
use killstream_plugin::{Killmail, Kind, Plugin, Role, Term, Verdict, export};
use serde::{Deserialize, Serialize};

const KILLS_MAX: u32 = 1000;
const MINUTES_MAX: u32 = 24 * 60;

/// How many killmails, and within what time, count as a camp.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gatecamp {
    /// At least this many before this one.
    kills: u32,
    /// Within this many minutes before this one.
    minutes: u32,
}

#[derive(Serialize)]
struct Annotations {
    /// Killmails in this solar system within the time, without this one.
    kills: u64,
    /// When the first of them happened, unix seconds.
    since: i64,
}

impl Default for Gatecamp {
    fn default() -> Self {
        Self { kills: 3, minutes: 10 }
    }
}

impl Plugin for Gatecamp {
    fn check(&self) -> Result<(), String> {
        let within = |field, value, max| match value {
            1.. if value <= max => Ok(()),
            _ => Err(format!("{field}: {value} is not within 1 and {max}")),
        };
        within("kills", self.kills, KILLS_MAX)?;
        within("minutes", self.minutes, MINUTES_MAX)
    }

    fn evaluate(&self, killmail: &Killmail) -> Result<Verdict, String> {
        // `until` is exclusive, but killmails of the same second count.
        let (since, until) = (killmail.time - i64::from(self.minutes) * 60, killmail.time + 1);
        let here = Query::new(Kind::System, Role::Any, killmail.system).since(since).until(until);
        if history::count(here) < u64::from(self.kills) {
            return Ok(Verdict::Drop);
        }
        let camp = history::summarize(&[Term::new(Kind::System, Role::Any, [killmail.system])], since, until);
        Verdict::annotate(&Annotations { kills: camp.killmails, since: camp.first.unwrap_or(killmail.time) })
    }
}

export!(Gatecamp);

#[cfg(test)]
mod tests {
    use super::*;
    use killstream_plugin::testing::{Stage, configure};
    use serde_json::json;

    const CAMPED: u32 = 30_002_813;
    const OTHER: u32 = 30_000_142;

    fn killmail(id: u64, minute: u32, system: u32) -> serde_json::Value {
        let time = format!("2021-12-01T12:{minute:02}:00Z");
        json!({"killmail_id": id, "killmail_time": time, "solar_system_id": system, "victim": {}, "attackers": []})
    }

    #[test]
    fn the_camp_begins_with_the_nth_before_and_ends_with_its_time() {
        let plugin: Gatecamp = configure(r#"{"kills": 2, "minutes": 5}"#).expect("accepted");
        let mut stage = Stage::default();
        let mut judge = |id, minute, system| stage.judge(&plugin, &killmail(id, minute, system)).expect("judged");
        assert_eq!(judge(1, 0, CAMPED), Verdict::Drop);
        assert_eq!(judge(2, 1, OTHER), Verdict::Drop);
        assert_eq!(judge(3, 2, CAMPED), Verdict::Drop);
        assert_eq!(judge(4, 5, CAMPED), Verdict::KeepWith(r#"{"kills":2,"since":1638360000}"#.to_owned()));
        assert_eq!(judge(5, 6, CAMPED), Verdict::KeepWith(r#"{"kills":2,"since":1638360120}"#.to_owned()));
        assert_eq!(judge(6, 20, CAMPED), Verdict::Drop);
    }

    #[test]
    fn refusals_name_the_field() {
        let refusal = |config| configure::<Gatecamp>(config).expect_err("refused");
        assert_eq!(refusal(r#"{"kills": 0}"#), "kills: 0 is not within 1 and 1000");
        assert_eq!(refusal(r#"{"minutes": 1441}"#), "minutes: 1441 is not within 1 and 1440");
        assert!(refusal(r#"{"minutes": "ten"}"#).starts_with("minutes: invalid type"));
    }
}
