//! Law 5, every push gets its answer: whatever messages a client sends, in any order and form, and whatever
//! its readers do meanwhile, each message is answered exactly once, with its own ref and in its own form, and
//! heartbeats at once. Only messages that belong to a superseded join are not answered. Killmails of a
//! preload are pushed exactly if the lists in the latest answer still include them, and counts come for such
//! systems only.
//!
//! The expectation is computed from the messages on each topic in their order, the results of opening
//! readers, and the lists in the answers.
//!
//! Must not know: sockets; the session is a value.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use killstream::domain::entry::{Entry, Origin, SharedEntry};
use killstream::domain::id::{Epoch, EventId, Place, Seq};
use killstream::feed::event::Delivered;
use killstream::phoenix::config::Config;
use killstream::phoenix::effect::Effect;
use killstream::phoenix::frame::{Form, decode};
use killstream::phoenix::session::{Opened, Session};
use killstream::store::facts::facts;
use killstream::wire::query::limits::Limits;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, TestRunner};
use serde_json::{Value, json};

use crate::laws::answer_steps::{EVENTS, Step, TOPICS, event_payload, join_payload, step};
use crate::laws::lists::{Lists, made, system_of};
use crate::laws::{Steps, cases};
use crate::support::killmail::SYSTEMS;

static STEPS: Steps = Steps::new("every push gets its answer");

/// A message of the client or the end of a reader, in the order of one topic.
#[derive(Debug, Clone)]
enum Message {
    Join { reference: Value, join_ref: Value, good: bool },
    Leave { reference: Value, join_ref: Value },
    Event { reference: Value, join_ref: Value },
    Ended,
}

struct Case {
    session: Session,
    history: BTreeMap<&'static str, Vec<Message>>,
    /// Pending readers: key and topic.
    opening: Vec<(u64, String)>,
    /// Whether they were opened, for each topic in order.
    outcomes: BTreeMap<String, Vec<bool>>,
    /// The form of each message, by its ref.
    forms: BTreeMap<String, bool>,
    frames: Vec<Value>,
    /// The join ref of each topic as the client knows it.
    current: BTreeMap<&'static str, Value>,
    pushed: BTreeMap<String, HashSet<u64>>,
    lists: Lists,
    refs: u64,
    now_ms: i64,
}

type Expected = BTreeMap<String, (Value, Option<&'static str>)>;

impl Case {
    fn new() -> Self {
        let config = Config { topics_max: 64, count_ms: 1000, ..Config::default() };
        let limits = Limits { plugin_config_bytes: 8 << 10 };
        Self {
            session: Session::new(Arc::new(config), limits, "test".into(), Form::Object, 0),
            history: BTreeMap::new(),
            opening: Vec::new(),
            outcomes: BTreeMap::new(),
            forms: BTreeMap::new(),
            frames: Vec::new(),
            current: BTreeMap::new(),
            pushed: BTreeMap::new(),
            lists: Lists::default(),
            refs: 0,
            now_ms: 1,
        }
    }

    /// A unique ref: a string or a number.
    fn reference(&mut self, number: bool) -> Value {
        self.refs += 1;
        if number { json!(self.refs) } else { json!(self.refs.to_string()) }
    }

    /// Sends a message and returns the frames that come at once.
    fn send(
        &mut self,
        object: bool,
        refs: (&Value, &Value),
        (topic, event): (&str, &str),
        payload: &Value,
    ) -> Vec<Value> {
        STEPS.count(if object { "an object" } else { "an array" });
        let (join_ref, reference) = refs;
        self.forms.insert(reference.to_string(), object);
        let frame = if object {
            json!({ "topic": topic, "event": event, "payload": payload, "ref": reference, "join_ref": join_ref })
        } else {
            json!([join_ref, reference, topic, event, payload])
        };
        STEPS.add(
            "a message while a join is pending",
            u64::from(self.opening.iter().any(|(_, opening)| opening == topic)),
        );
        let mut effects = Vec::new();
        self.session.message(decode(&frame.to_string()).unwrap(), &mut effects);
        self.apply(effects)
    }

    fn apply(&mut self, effects: Vec<Effect>) -> Vec<Value> {
        let mut frames = Vec::new();
        for effect in effects {
            match effect {
                Effect::Send(text) => frames.push(serde_json::from_slice(&text).unwrap()),
                Effect::SendShared { head, killmail, tail } => {
                    frames.push(serde_json::from_slice(&[head, killmail, tail].concat()).unwrap());
                    STEPS.count("a shared killmail");
                }
                Effect::Open(open) => {
                    STEPS.add("a repeated join", u64::from(open.replaces.is_some()));
                    self.opening.push((open.key, open.topic));
                }
                Effect::Preload { .. } => STEPS.count("a preload"),
                Effect::Count { .. } => STEPS.count("a count"),
                Effect::Change { .. } => STEPS.count("a change"),
                Effect::Close { .. } => STEPS.count("a close"),
                Effect::Refused => STEPS.count("a refused join"),
            }
        }
        frames.iter().for_each(|frame| self.lists.update(frame));
        self.frames.extend(frames.iter().cloned());
        frames
    }

    fn heartbeat(&mut self, object: bool) -> Result<(), TestCaseError> {
        let reference = self.reference(false);
        let frames = self.send(object, (&Value::Null, &reference), ("phoenix", "heartbeat"), &json!({}));
        prop_assert_eq!(frames.len(), 1, "a heartbeat is answered at once");
        prop_assert_eq!(
            reply_of(&frames[0]),
            Some((&reference, Some(&Value::Null).filter(|_| !object), "ok"))
        );
        STEPS.count("a heartbeat");
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Heartbeat { object } => self.heartbeat(object)?,
            Step::Join { topic, payload, object, join_ref, number } => {
                let topic = TOPICS[topic];
                let reference = self.reference(number);
                let join_ref = if join_ref { reference.clone() } else { Value::Null };
                let (payload, good) = join_payload(payload);
                self.history.entry(topic).or_default().push(Message::Join {
                    reference: reference.clone(),
                    join_ref: join_ref.clone(),
                    good,
                });
                self.current.insert(topic, reference.clone());
                self.send(object, (&join_ref, &reference), (topic, "phx_join"), &payload);
                STEPS.count("a join");
            }
            Step::Leave { topic, current } => {
                let topic = TOPICS[topic];
                let (reference, join_ref) =
                    (self.reference(false), self.join_ref(topic, current.then_some(true)));
                self.history
                    .entry(topic)
                    .or_default()
                    .push(Message::Leave { reference: reference.clone(), join_ref: join_ref.clone() });
                self.send(false, (&join_ref, &reference), (topic, "phx_leave"), &json!({}));
                STEPS.count("a leave");
            }
            Step::Event { topic, event, payload, join_ref, object } => {
                let topic = TOPICS[topic];
                let (reference, join_ref) = (self.reference(true), self.join_ref(topic, join_ref));
                self.history
                    .entry(topic)
                    .or_default()
                    .push(Message::Event { reference: reference.clone(), join_ref: join_ref.clone() });
                self.send(
                    object,
                    (&join_ref, &reference),
                    (topic, EVENTS[event % EVENTS.len()]),
                    &event_payload(payload),
                );
                STEPS.count("an event");
            }
            Step::InvalidFrame(pick) => {
                let invalid = ["x", "{}", "[1]", "[1,2,3,4,5]"][pick % 4];
                let mut effects = Vec::new();
                self.session.malformed(&decode(invalid).unwrap_err(), &mut effects);
                prop_assert_eq!(self.apply(effects).len(), 1);
                STEPS.count("an invalid frame");
            }
            Step::Open { pick, good } => self.open(pick, good),
            Step::Live { pick, id } => self.live(pick, id)?,
            Step::Portion { pick, ids } => self.portion(pick, &ids)?,
            Step::Count { pick, system } => self.count(pick, SYSTEMS[system])?,
            Step::End(pick) => self.end(pick),
            Step::Tick => {
                self.now_ms += 1500;
                let mut effects = Vec::new();
                self.session.tick(self.now_ms, &mut effects);
                self.apply(effects);
            }
        }
        Ok(())
    }

    /// The current join ref, a superseded one, or none.
    fn join_ref(&self, topic: &str, which: Option<bool>) -> Value {
        match which {
            None => Value::Null,
            Some(true) => self.current.get(topic).cloned().unwrap_or(Value::Null),
            Some(false) => json!("gone"),
        }
    }

    fn open(&mut self, pick: usize, good: bool) {
        if self.opening.is_empty() {
            return;
        }
        let (key, topic) = self.opening.swap_remove(pick % self.opening.len());
        self.outcomes.entry(topic).or_default().push(good);
        let mut effects = Vec::new();
        if good {
            let opened = Opened {
                subscription_id: format!("reader {key}"),
                id: place(1),
                gap: None,
                preparing: false,
            };
            self.session.opened(key, opened, &mut effects);
            STEPS.count("a reader opened");
        } else {
            self.session.refused(key, "no plugin", &mut effects);
            STEPS.count("a reader refused");
        }
        self.apply(effects);
    }

    /// A joined channel: its topic and key.
    fn joined(&self, pick: usize) -> Option<(String, u64)> {
        let topics: Vec<_> = self.session.topics().map(|(topic, key)| (topic.to_owned(), key)).collect();
        (!topics.is_empty()).then(|| topics[pick % topics.len()].clone())
    }

    fn live(&mut self, pick: usize, id: u32) -> Result<(), TestCaseError> {
        let Some((topic, key)) = self.joined(pick) else { return Ok(()) };
        let mut effects = Vec::new();
        let pushed = self.session.killmail(key, &kept(id), &place(5), self.now_ms, &mut effects);
        let frames = self.apply(effects);
        prop_assert_eq!(frames.len(), usize::from(pushed));
        STEPS.count(if pushed { "a live killmail" } else { "a killmail that was pushed before" });
        self.check_once(&topic, &frames)
    }

    fn portion(&mut self, pick: usize, ids: &[u32]) -> Result<(), TestCaseError> {
        let Some((topic, key)) = self.joined(pick) else { return Ok(()) };
        let Some(system) = ids.first().map(|id| system_of(*id)) else { return Ok(()) };
        // A portion is of one system, and has each killmail once.
        let ids: BTreeSet<u32> = ids.iter().copied().filter(|id| system_of(*id) == system).collect();
        let wanted: BTreeSet<u32> =
            ids.iter().copied().filter(|id| self.lists.wants(&topic, &made(*id).build())).collect();
        STEPS.add("a portion with killmails that are no longer wanted", u64::from(wanted.len() < ids.len()));
        if !wanted.is_empty() {
            self.lists.preloaded(&topic, system);
        }
        let known = self.pushed.get(&topic);
        let new =
            wanted.iter().filter(|id| known.is_none_or(|known| !known.contains(&u64::from(**id)))).count();
        let mut effects = Vec::new();
        let pushed = self.session.portion(
            key,
            (system, ids.iter().map(|id| kept(*id)).collect()),
            self.now_ms,
            &mut effects,
        );
        prop_assert_eq!(pushed, new, "of {:?}, {:?} are wanted on {}", ids, wanted, topic);
        self.session.preload_complete(key, 1, &[], &mut effects);
        STEPS.count("a portion");
        let frames = self.apply(effects);
        self.check_once(&topic, &frames)
    }

    fn count(&mut self, pick: usize, system: u32) -> Result<(), TestCaseError> {
        let Some((topic, key)) = self.joined(pick) else { return Ok(()) };
        let due = self.lists.counted(&topic, system);
        let mut effects = Vec::new();
        let counted = self.session.preload_count(key, (system, 1), self.now_ms, &mut effects);
        prop_assert_eq!(
            (counted, self.apply(effects).len()),
            (due, usize::from(due)),
            "the count of {} on {}",
            system,
            topic
        );
        STEPS.count(if due { "a count of a preload" } else { "a count that is not due" });
        Ok(())
    }

    /// Checks that each killmail is pushed once on a topic.
    fn check_once(&mut self, topic: &str, frames: &[Value]) -> Result<(), TestCaseError> {
        for frame in frames {
            let (frame_topic, event, payload) = match frame {
                Value::Array(parts) => (&parts[2], &parts[3], &parts[4]),
                frame => (&frame["topic"], &frame["event"], &frame["payload"]),
            };
            prop_assert_eq!(frame_topic, topic);
            for killmail in payload["killmails"].as_array().into_iter().flatten() {
                prop_assert_eq!(event, "killmail_update");
                let id = killmail["killmail_id"].as_u64().unwrap();
                prop_assert!(
                    self.pushed.entry(topic.to_owned()).or_default().insert(id),
                    "killmail {} twice on {}",
                    id,
                    topic
                );
            }
        }
        Ok(())
    }

    fn end(&mut self, pick: usize) {
        let Some((topic, key)) = self.joined(pick) else { return };
        if let Some(topic) = TOPICS.into_iter().find(|name| *name == topic) {
            self.history.entry(topic).or_default().push(Message::Ended);
            let mut effects = Vec::new();
            self.session.ended(key, "plugin_gone", "gone", &mut effects);
            self.apply(effects);
            STEPS.count("a reader's end");
        }
    }

    /// The answers expected to the messages on a topic.
    fn expected(&self, topic: &str, messages: &[Message], expected: &mut Expected) {
        let mut outcomes = self.outcomes.get(topic).into_iter().flatten();
        let mut joined: Option<Value> = None;
        for message in messages {
            let (reference, answer) = match message {
                Message::Ended => {
                    joined = None;
                    continue;
                }
                Message::Join { reference, .. } if topic == "room:lobby" => {
                    (reference, (Value::Null, Some("error")))
                }
                Message::Join { reference, join_ref, good } => {
                    let good = *good && topic != "killmails:other" && *outcomes.next().unwrap();
                    joined =
                        good.then(|| if join_ref.is_null() { reference.clone() } else { join_ref.clone() });
                    (reference, (join_ref.clone(), Some(if good { "ok" } else { "error" })))
                }
                Message::Leave { join_ref, .. } | Message::Event { join_ref, .. }
                    if joined.as_ref().is_some_and(|joined| !join_ref.is_null() && joined != join_ref) =>
                {
                    STEPS.count("a superseded join");
                    continue;
                }
                Message::Leave { reference, join_ref } => {
                    let answered = joined.take().unwrap_or_else(|| join_ref.clone());
                    (reference, (answered, Some("ok")))
                }
                Message::Event { reference, .. } => match &joined {
                    Some(joined) => (reference, (joined.clone(), None)),
                    None => (reference, (Value::Null, Some("error"))),
                },
            };
            expected.insert(reference.to_string(), answer);
        }
    }
}

/// Ref, join ref (objects have none) and status of a reply.
fn reply_of(frame: &Value) -> Option<(&Value, Option<&Value>, &str)> {
    match frame {
        Value::Array(parts) if parts[3] == "phx_reply" => {
            Some((&parts[1], Some(&parts[0]), parts[4]["status"].as_str()?))
        }
        Value::Object(frame) if frame["event"] == "phx_reply" => {
            Some((&frame["ref"], None, frame["payload"]["status"].as_str()?))
        }
        _ => None,
    }
}

fn place(seq: u64) -> EventId {
    EventId { epoch: Epoch(7), place: Place::Live(Seq(seq)) }
}

fn kept(id: u32) -> Delivered {
    let killmail = made(id).build();
    let entry = Entry {
        seq: Seq(id.into()),
        rev: 0,
        origin: Origin::Live,
        received_at_ms: 0,
        uploaded_at: None,
        age_secs: 0,
        facts: facts(&killmail),
        killmail,
        // Every third one is large.
        json: OnceLock::from(Bytes::from(
            json!({ "killmail_id": id, "more": "x".repeat((id as usize % 3 / 2) << 16) }).to_string(),
        )),
    };
    Delivered { entry: SharedEntry::new(entry), annotations: Vec::new() }
}

fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut case = Case::new();
    for step in steps {
        case.step(step)?;
    }
    while !case.opening.is_empty() {
        case.open(0, true);
    }
    let mut expected = Expected::new();
    for (topic, messages) in &case.history {
        case.expected(topic, messages, &mut expected);
    }
    let mut answered = BTreeMap::new();
    for frame in &case.frames {
        let Some((reference, join_ref, status)) = reply_of(frame) else { continue };
        let reference = reference.to_string();
        prop_assert_eq!(
            case.forms.get(&reference),
            Some(&frame.is_object()),
            "the form of the answer {}",
            frame
        );
        prop_assert!(answered.insert(reference.clone(), status).is_none(), "answered twice: {}", frame);
        if let Some((expected_join, expected_status)) = expected.get(&reference) {
            prop_assert_eq!(
                join_ref,
                Some(expected_join).filter(|_| frame.is_array()),
                "the join ref of {}",
                frame
            );
            prop_assert!(expected_status.is_none_or(|expected| expected == status), "{}", frame);
        }
    }
    for reference in expected.keys() {
        prop_assert!(answered.contains_key(reference), "no answer to {}", reference);
    }
    let beats = case.forms.len()
        - case.history.values().flatten().filter(|message| !matches!(message, Message::Ended)).count();
    prop_assert_eq!(answered.len(), expected.len() + beats, "nothing else is answered");
    Ok(())
}

#[test]
fn every_push_gets_its_answer() {
    let mut runner = TestRunner::new(Runs { failure_persistence: None, ..Runs::with_cases(cases()) });
    runner.run(&vec(step(), 5..60), run).unwrap_or_else(|e| panic!("{e}"));
    let messages = [
        "a heartbeat",
        "a join",
        "a repeated join",
        "a refused join",
        "a leave",
        "an event",
        "an invalid frame",
        "an object",
        "an array",
    ];
    let readers = [
        "a message while a join is pending",
        "a superseded join",
        "a reader opened",
        "a reader refused",
        "a reader's end",
    ];
    let pushed = [
        "a live killmail",
        "a killmail that was pushed before",
        "a shared killmail",
        "a portion",
        "a preload",
        "a count",
        "a change",
        "a close",
    ];
    let counts = [
        "a portion with killmails that are no longer wanted",
        "a count of a preload",
        "a count that is not due",
    ];
    STEPS.report(&[&messages[..], &readers, &pushed, &counts].concat());
}
