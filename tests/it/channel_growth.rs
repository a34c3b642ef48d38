//! Lists that grow and shrink at random against a model of what must come: everything live that is wanted
//! when it comes, of each new id the newest of the past less what was sent, and nothing twice.
//!
//! Must not know: places, preloads, sets; only what a client sees.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::channel::{Channel, killmail_ids};
use crate::support::dice::Dice;
use crate::support::killmail::{SYSTEMS, killmail};
use crate::support::server::Server;
use crate::support::upstream::Upstream;
use crate::support::{PATIENCE, long};

const PILOTS: [u32; 5] = [95_000_001, 95_000_002, 95_000_003, 95_000_004, 95_000_005];
const NEWEST: usize = 3;

/// A published killmail.
struct Past {
    id: u64,
    /// Its system and characters.
    names: Vec<u32>,
}

struct Model {
    past: Vec<Past>,
    wanted: BTreeSet<u32>,
    sent: BTreeSet<u64>,
}

impl Model {
    /// What a preload of these new ids brings.
    fn grow(&mut self, ids: &[u32]) -> BTreeSet<u64> {
        let mut found = BTreeSet::new();
        for id in ids.iter().filter(|id| !self.wanted.contains(id)) {
            let mut of: Vec<u64> =
                self.past.iter().filter(|past| past.names.contains(id)).map(|past| past.id).collect();
            of.sort_unstable();
            found.extend(of.into_iter().rev().take(NEWEST));
        }
        self.wanted.extend(ids);
        let new: BTreeSet<u64> = found.difference(&self.sent).copied().collect();
        self.sent.extend(&new);
        new
    }
}

/// A few of these.
fn some(dice: &mut Dice, from: &[u32]) -> Vec<u32> {
    let mut some: Vec<u32> = (0..=dice.below(2)).map(|_| dice.pick(from)).collect();
    some.sort_unstable();
    some.dedup();
    some
}

struct Case {
    upstream: Upstream,
    client: Channel,
    watcher: Channel,
    model: Model,
    dice: Dice,
    ids: Vec<u32>,
}

impl Case {
    async fn publish(&mut self) {
        let Some(id) = self.ids.pop() else { return };
        let (system, victim, attacker) =
            (self.dice.pick(&SYSTEMS), self.dice.pick(&PILOTS), self.dice.pick(&PILOTS));
        self.upstream.publish(killmail(id).system(system).victim(victim).attackers(&[96_000_000, attacker]));
        assert_eq!(self.watcher.live(1).await, [u64::from(id)]);
        let names = vec![system, victim, attacker];
        if names.iter().any(|name| self.model.wanted.contains(name)) {
            assert_eq!(
                self.client.live(1).await,
                [u64::from(id)],
                "wanted: {names:?} of {:?}",
                self.model.wanted
            );
            self.model.sent.insert(id.into());
        }
        self.model.past.push(Past { id: id.into(), names });
    }

    async fn grow(&mut self, systems: bool) {
        let (event, key, from) = if systems {
            ("subscribe_systems", "systems", &SYSTEMS[..])
        } else {
            ("subscribe_characters", "character_ids", &PILOTS[..])
        };
        let ids = some(&mut self.dice, from);
        let news = ids.iter().any(|id| !self.model.wanted.contains(id));
        let expected = self.model.grow(&ids);
        let wish = json!({ "limit_per_system": NEWEST, "delivery_interval_ms": 0, "delivery_batch_size": 1 + self.dice.below(3) });
        let (status, response) = self.client.say(event, json!({ key: ids, "preload": wish })).await;
        assert_eq!((status.as_str(), response.get("message").is_none()), ("ok", news));
        if news {
            assert_eq!(self.preloaded().await, expected, "{ids:?} new in {:?}", self.model.wanted);
        }
    }

    async fn shrink(&mut self) {
        let wanted: Vec<u32> = self.model.wanted.iter().copied().collect();
        if wanted.is_empty() {
            return;
        }
        let ids = some(&mut self.dice, &wanted);
        let (systems, characters): (Vec<u32>, Vec<u32>) = ids.iter().partition(|id| SYSTEMS.contains(id));
        self.client
            .say(
                "update_subscriptions",
                json!({ "remove_systems": systems, "remove_characters": characters }),
            )
            .await;
        self.model.wanted.retain(|id| !ids.contains(id));
    }

    /// Joins anew with the lists there are: only what is new to them is looked for, and what was sent does
    /// not come again.
    async fn rejoin(&mut self) {
        let (systems, characters): (Vec<u32>, Vec<u32>) =
            self.model.wanted.iter().partition(|id| SYSTEMS.contains(id));
        let wish = json!({ "limit_per_system": NEWEST, "delivery_interval_ms": 0 });
        self.client
            .send(json!(["1", "1", "killmails:lobby", "phx_join", { "systems": systems, "character_ids": characters, "preload": wish }]))
            .await;
        let ids: Vec<u32> = std::mem::take(&mut self.model.wanted).into_iter().collect();
        let expected = self.model.grow(&ids);
        if ids.is_empty() {
            self.client.event("phx_reply").await;
        } else {
            assert_eq!(self.preloaded().await, expected, "joined again with {ids:?}");
        }
    }

    /// The killmails of the preload under way; each comes once.
    async fn preloaded(&mut self) -> BTreeSet<u64> {
        let mut got = BTreeSet::new();
        loop {
            let frame = self.client.frame_within(PATIENCE).await.expect("the preload does not end");
            let update: &Value = &frame[4];
            match frame[3].as_str().unwrap() {
                "killmail_update" => {
                    assert_eq!(update["preload"], true);
                    let ids = killmail_ids(update);
                    let systems = update["killmails"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .all(|killmail| killmail["system_id"] == update["system_id"]);
                    assert!(
                        systems && ids.is_sorted_by(|a, b| a > b),
                        "newest first, of one system: {ids:?}"
                    );
                    for id in ids {
                        assert!(got.insert(id), "{id} twice");
                    }
                }
                "preload_complete" => {
                    assert_eq!((&update["total_kills"], &update["errors"]), (&json!(got.len()), &json!([])));
                    return got;
                }
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn whatever_grows_and_shrinks_all_comes_and_nothing_twice() {
    for seed in 0..if long() { 20 } else { 3 } {
        let upstream = Upstream::start();
        let server = Server::following(&upstream);
        let (mut client, mut watcher) =
            (Channel::v2(server.address()).await, Channel::v2(server.address()).await);
        client.join(json!({})).await;
        watcher.ask(json!(["1", "1", "killmails:all", "phx_join", {}])).await;
        let mut dice = Dice::new(seed);
        // Numbers in the log and ids of killmails go different ways.
        let mut ids: Vec<u32> = (1000..1200).collect();
        for at in (1..ids.len()).rev() {
            ids.swap(at, usize::try_from(dice.below(at as u64 + 1)).unwrap());
        }
        let model = Model { past: Vec::new(), wanted: BTreeSet::new(), sent: BTreeSet::new() };
        let mut case = Case { upstream, client, watcher, model, dice, ids };
        for _ in 0..120 {
            match case.dice.below(10) {
                0..=4 => case.publish().await,
                5 => case.grow(true).await,
                6 => case.grow(false).await,
                7 | 8 => case.shrink().await,
                _ => case.rejoin().await,
            }
        }
        assert!(case.model.sent.len() > 10, "seed {seed}: only {} killmails came", case.model.sent.len());
    }
}
