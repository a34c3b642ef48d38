//! The messages of real killmails, and of killmails made to break them.

use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};

use super::*;
use crate::domain::entry::{Entry, Origin};
use crate::domain::id::Seq;
use crate::domain::killmail::Killmail;
use crate::domain::term::Dimension;
use crate::sample;
use crate::store::facts::facts;
use crate::webhook::message::discord::markdown::chars;
use crate::webhook::message::discord::{CONTENT_CHARS_MAX, EMBEDS_CHARS_MAX, EMBEDS_MAX};
use crate::wire::killmail;
use crate::wire::read::package;

const NOW_MS: i64 = 1_796_000_000_123;

fn delivered(killmail: Killmail) -> Delivered {
    let entry = Entry {
        seq: Seq(1),
        rev: 0,
        origin: Origin::Live,
        received_at_ms: killmail.time * 1000,
        uploaded_at: None,
        age_secs: 0,
        facts: facts(&killmail),
        killmail,
        json: OnceLock::new(),
    };
    Delivered { entry: Arc::new(entry), annotations: Vec::new() }
}

fn real() -> Vec<Delivered> {
    let killmail = |line: String| package::parse(line.as_bytes()).ok()?.killmail;
    sample::lines().filter_map(killmail).map(delivered).collect()
}

/// A real killmail with a value, a few attackers and no items, so that snapshots stay short.
fn short() -> Delivered {
    let fits = |kept: &Delivered| {
        let facts = &kept.entry.facts;
        facts.total_value.is_some()
            && facts.attacker_count == 2
            && !facts.victim.ids(Dimension::Alliance).is_empty()
    };
    let found = real().into_iter().find(fits).unwrap();
    let mut killmail = found.entry.killmail.clone();
    killmail.victim.items = None;
    delivered(killmail)
}

fn read(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap()
}

fn writer<'a>(format: Format, filter: &'a Filter, discord: &'a DiscordOptions) -> MessageWriter<'a> {
    MessageWriter { format, filter, discord }
}

fn of(dimension: Dimension, id: u32) -> Filter {
    let mut filter = Filter::default();
    filter.set_ids(dimension, vec![id]);
    filter
}

#[test]
fn canonical_messages_match_the_snapshot() {
    let (filter, options) = (Filter::default(), DiscordOptions::default());
    let writer = writer(Format::Canonical, &filter, &options);
    let mut annotated = short();
    annotated.annotations = vec![("tagger".to_owned(), Arc::from(r#"{"tag":"expensive"}"#))];
    let one = read(&writer.killmail_update(&[short()], Purpose::Update, NOW_MS));
    insta::assert_json_snapshot!("canonical_update", one);
    let two = read(&writer.killmail_update(&[short(), annotated], Purpose::Preload, NOW_MS));
    assert_eq!((&two["kills"][0], &two["preload"]), (&one["kills"][0], &json!(true)));
    assert_eq!(two["kills"][1]["enriched"], json!({ "tagger": { "tag": "expensive" } }));
    let test = read(&writer.killmail_update(&[short()], Purpose::Test, NOW_MS));
    assert_eq!((&test["test"], test.get("preload"), one.get("test")), (&json!(true), None, None));
    let count = writer.count_update(30_000_142, 17, NOW_MS);
    assert_eq!(
        count,
        r#"{"type":"killmail_count_update","system_id":30000142,"count":17,"timestamp":"2026-11-30T00:53:20.123000Z"}"#
    );
    assert_eq!(writer.url_parameters(), []);
}

#[test]
fn kills_are_the_json_of_every_transport() {
    let (filter, options) = (Filter::default(), DiscordOptions::default());
    let writer = writer(Format::Canonical, &filter, &options);
    for kept in real().iter().take(500) {
        let body = writer.killmail_update(std::slice::from_ref(kept), Purpose::Update, NOW_MS);
        let json = killmail::json(&kept.entry);
        assert!(body.windows(json.len()).any(|part| part == json), "{}", kept.entry.killmail.killmail_id);
    }
}

#[test]
fn discord_messages_match_the_snapshot() {
    let loss = of(Dimension::Alliance, short().entry.killmail.victim.alliance_id.unwrap());
    let options = DiscordOptions { mention: "<@&7>".parse().ok(), thread_id: "9".parse().ok() };
    let writer = writer(Format::Discord, &loss, &options);
    let one = read(&writer.killmail_update(&[short()], Purpose::Update, NOW_MS));
    insta::assert_json_snapshot!("discord_loss", one);
    let two = read(&writer.killmail_update(&[short(), short()], Purpose::Preload, NOW_MS));
    insta::assert_json_snapshot!("discord_preload", two);
    let test = read(&writer.killmail_update(&[short()], Purpose::Test, NOW_MS));
    assert!(test["content"].as_str().unwrap().starts_with("<@&7> Test: "), "{test}");
    assert_eq!(
        read(&writer.count_update(30_000_142, 1, NOW_MS)),
        json!({ "content": "Jita (The Forge): 1 killmail in the last 24 hours", "allowed_mentions": { "parse": [] } })
    );
    assert_eq!(writer.url_parameters(), [("wait", "true".to_owned()), ("thread_id", "9".to_owned())]);
}

#[test]
fn the_color_says_whose_loss_it_is() {
    let options = DiscordOptions::default();
    let victim = short().entry.killmail.victim.alliance_id.unwrap();
    let attacker = short().entry.killmail.attackers[0].corporation_id.unwrap();
    for (filter, color, word) in [
        (of(Dimension::Alliance, victim), 0xd63031, "Loss: "),
        (of(Dimension::Corporation, attacker), 0x27ae60, "Kill: "),
        (of(Dimension::System, short().entry.facts.system()), 0x636e72, "Killmail: "),
    ] {
        let writer = writer(Format::Discord, &filter, &options);
        let body = read(&writer.killmail_update(&[short()], Purpose::Update, NOW_MS));
        assert_eq!(body["embeds"][0]["color"], json!(color));
        assert!(body["embeds"][0]["title"].as_str().unwrap().starts_with(word), "{body}");
    }
}

/// The limits of Discord, measured in the message itself.
fn assert_within_limits(body: &Value, killmails: usize) {
    let text = |value: &Value| chars(value.as_str().unwrap_or_default());
    let content = text(&body["content"]);
    assert!((1..=CONTENT_CHARS_MAX).contains(&content), "{content}");
    let embeds = body["embeds"].as_array().unwrap();
    assert!(embeds.len() == killmails && embeds.len() <= EMBEDS_MAX, "{} of {killmails}", embeds.len());
    let mut sum = 0;
    for embed in embeds {
        let fields = embed["fields"].as_array().unwrap();
        assert!((1..=25).contains(&fields.len()) && (1..=256).contains(&text(&embed["title"])));
        sum += text(&embed["title"]);
        for field in fields {
            assert!(
                (1..=256).contains(&text(&field["name"])) && (1..=1024).contains(&text(&field["value"])),
                "{field}"
            );
            sum += text(&field["name"]) + text(&field["value"]);
        }
    }
    assert!(sum <= EMBEDS_CHARS_MAX, "{sum}");
}

#[test]
fn every_real_killmail_fits_and_ten_fit_into_one_message() {
    let (filter, options) = (Filter::default(), DiscordOptions::default());
    let writer = writer(Format::Discord, &filter, &options);
    let killmails = real();
    assert!(killmails.len() > 3_000);
    for group in killmails.chunks(12) {
        let fitting = writer.fitting(group);
        assert_eq!(fitting, group.len().min(EMBEDS_MAX));
        let body = read(&writer.killmail_update(&group[..fitting], Purpose::Update, NOW_MS));
        assert_within_limits(&body, fitting);
        let one = read(&writer.killmail_update(&group[..1], Purpose::Update, NOW_MS));
        assert_within_limits(&one, 1);
    }
    assert_eq!(writer.fitting(&[]), 0);
}

#[test]
fn a_killmail_with_nothing_known_or_everything_absurd_still_fits() {
    let (filter, options) =
        (Filter::default(), DiscordOptions { mention: "@everyone".parse().ok(), thread_id: None });
    let writer = writer(Format::Discord, &filter, &options);
    let nothing = Killmail {
        killmail_id: 1,
        time: 0,
        solar_system_id: 7,
        time_implausible: true,
        ..Killmail::default()
    };
    let body = read(&writer.killmail_update(&[delivered(nothing)], Purpose::Update, NOW_MS));
    assert_within_limits(&body, 1);
    assert_eq!(body["content"], "@everyone Unknown ship lost in System 7");
    assert_eq!((body["embeds"][0].get("timestamp"), body["embeds"][0].get("thumbnail")), (None, None));
    assert_eq!(body["allowed_mentions"], json!({ "parse": ["everyone"] }));

    let mut absurd = short().entry.killmail.clone();
    let most = Some(u32::MAX);
    let victim = &mut absurd.victim;
    (victim.character_id, victim.corporation_id, victim.alliance_id, victim.faction_id) =
        (most, most, most, most);
    victim.ship_type_id = most;
    absurd.zkb.as_mut().unwrap().total_value = Some(f64::MAX);
    for attacker in &mut absurd.attackers {
        (attacker.ship_type_id, attacker.weapon_type_id, attacker.faction_id) = (most, Some(1), most);
    }
    let group: Vec<Delivered> = (0..20).map(|_| delivered(absurd.clone())).collect();
    let fitting = writer.fitting(&group);
    assert!(fitting >= 8, "{fitting}");
    assert_within_limits(&read(&writer.killmail_update(&group[..fitting], Purpose::Update, NOW_MS)), fitting);
}

#[test]
fn formats_have_one_word_each() {
    for format in Format::ALL {
        assert_eq!(serde_json::to_value(format).unwrap(), json!(format.word()));
    }
}
