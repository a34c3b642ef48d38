//! Only an essential member can cost a killmail. Any other unreadable member counts as absent and keeps its
//! raw JSON at its place, in every format.
//!
//! Must not know: how members are stored on disk.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::domain::killmail::Killmail;
use crate::domain::merge::compare::MergeOutcome;
use crate::domain::merge::killmails::merge;
use crate::domain::merge::members::{Part, any_unreadable, each_unreadable};
use crate::wire::killmail::encode;
use crate::wire::read::package::{Package, Refused, parse};
use crate::wire::read::reason::Reason;
use crate::wire::upstream;

fn document() -> Value {
    json!({
        "killmail_id": 5, "hash": "a".repeat(40), "uploaded_at": 1_637_971_300, "sequence_id": 9,
        "esi": {
            "killmail_id": 5, "killmail_time": "2021-11-27T00:00:01Z", "solar_system_id": 30_000_142, "war_id": 7, "moon_id": 40_009_082,
            "victim": {
                "character_id": 90_000_001, "corporation_id": 98_000_001, "alliance_id": 99_000_001, "faction_id": 500_001,
                "ship_type_id": 670, "damage_taken": 1360, "position": {"x": 1.5, "y": -2, "z": 0},
                "items": [{"item_type_id": 3465, "flag": 5, "singleton": 0, "quantity_dropped": 1,
                           "items": [{"item_type_id": 34, "flag": 5, "singleton": 0, "quantity_destroyed": 3}]}],
            },
            "attackers": [{
                "character_id": 95_000_001, "corporation_id": 98_000_002, "alliance_id": 99_000_002, "faction_id": 500_002,
                "ship_type_id": 587, "weapon_type_id": 2873, "damage_done": 1360, "final_blow": true, "security_status": -1.5,
            }],
        },
        "zkb": {
            "locationID": 50_000_088, "hash": "a".repeat(40), "fittedValue": 1.5, "droppedValue": 0, "destroyedValue": 2, "totalValue": 2.5,
            "points": 7, "npc": false, "solo": true, "awox": false, "labels": ["cat:6", "solo"], "attackerCount": 1, "href": "https://x",
        },
    })
}

/// Every member of the document except the essential ones.
fn members() -> Vec<String> {
    let mut paths = Vec::new();
    let document = document();
    let parts = [
        "/esi",
        "/zkb",
        "/esi/victim",
        "/esi/attackers/0",
        "/esi/victim/items/0",
        "/esi/victim/items/0/items/0",
    ];
    for part in parts {
        let names = document.pointer(part).and_then(Value::as_object).unwrap().keys();
        paths.extend(names.map(|name| format!("{part}/{name}")));
    }
    let essential = ["killmail_id", "killmail_time", "solar_system_id", "victim", "attackers"]
        .map(|name| format!("/esi/{name}"));
    // The hash is also beside the body.
    paths.retain(|path| !essential.contains(path) && path != "/zkb/hash");
    paths.push("/zkb".to_owned());
    paths
}

fn with(path: &str, value: &Value) -> Value {
    let mut document = document();
    *document.pointer_mut(path).unwrap() = value.clone();
    document
}

fn read(document: &Value) -> Result<Killmail, Refused> {
    parse(document.to_string().as_bytes()).map(|Package { killmail, .. }| killmail.unwrap())
}

fn form(killmail: &Killmail) -> Value {
    serde_json::from_slice(&encode(killmail)).unwrap()
}

/// The place of a member of the document in our format.
fn place(path: &str) -> (String, &str) {
    let (part, name) = path.rsplit_once('/').unwrap();
    (part.strip_prefix("/esi").unwrap_or(part).to_owned(), name)
}

/// Values that few members accept, or none.
fn odd() -> [Value; 8] {
    [
        json!(1.5),
        json!(-1),
        json!("five"),
        json!(true),
        json!({"id": [null]}),
        json!([[]]),
        json!(1e300),
        json!(u64::MAX),
    ]
}

#[test]
fn only_essential_members_cost_a_killmail() {
    for path in members() {
        let mut unread = 0;
        for value in odd() {
            let killmail =
                read(&with(&path, &value)).unwrap_or_else(|refused| panic!("{path} {value}: {refused}"));
            let found = form(&killmail);
            let (part, name) = place(&path);
            let kept = found.pointer(&format!("{part}/unreadable/{name}"));
            unread += u32::from(kept.is_some());
            assert_eq!(kept.is_some(), any_unreadable(&killmail), "{path} {value}");
            assert!(kept.is_none_or(|kept| *kept == value), "{path} {value}: {kept:?}");
            // Except for the raw JSON, it is as if the member were absent.
            let mut absent = document();
            absent
                .pointer_mut(path.rsplit_once('/').unwrap().0)
                .and_then(Value::as_object_mut)
                .map(|part| part.remove(name));
            if kept.is_some() {
                let mut written = found.clone();
                written
                    .pointer_mut(&part)
                    .and_then(Value::as_object_mut)
                    .map(|part| part.remove("unreadable"));
                let absent = read(&absent);
                assert_eq!(written, form(&absent.unwrap()), "{path} {value}");
            }
        }
        assert!(unread >= 4, "{path}: {unread}");
    }
}

#[test]
fn unreadable_members_survive_every_format() {
    for path in members() {
        for value in odd() {
            let once = read(&with(&path, &value)).unwrap();
            let again = parse(&encode(&once)).unwrap().killmail.unwrap();
            assert_eq!(encode(&again), encode(&once), "{path} {value}");
            assert_eq!(any_unreadable(&again), any_unreadable(&once), "{path} {value}");
            let upstream = parse(&upstream::body(&once)).unwrap().killmail.unwrap();
            assert_eq!(
                (&upstream.victim, &upstream.attackers),
                (&once.victim, &once.attackers),
                "{path} {value}"
            );
            assert_eq!(upstream.unreadable, once.unreadable, "{path} {value}");
        }
    }
}

#[test]
fn later_values_fill_in_and_known_ones_stay() {
    let full = read(&document()).unwrap();
    for path in members() {
        for value in odd() {
            let unread = read(&with(&path, &value)).unwrap();
            if any_unreadable(&unread) {
                assert_eq!(
                    merge(&unread, &full, false),
                    MergeOutcome::Revised(Box::new(full.clone())),
                    "{path} {value}"
                );
                assert_eq!(merge(&full, &unread, true), MergeOutcome::Unchanged, "{path} {value}");
                assert_eq!(merge(&unread, &unread, true), MergeOutcome::Unchanged, "{path} {value}");
            }
        }
    }
}

#[test]
fn numbers_in_strings_are_numbers() {
    let plain = read(&document()).unwrap();
    for path in members().into_iter().chain(
        ["/killmail_id", "/esi/killmail_id", "/esi/solar_system_id", "/sequence_id", "/uploaded_at"]
            .map(str::to_owned),
    ) {
        let number = document().pointer(&path).filter(|value| value.is_number()).map(Value::to_string);
        let Some(number) = number else { continue };
        assert_eq!(read(&with(&path, &json!(number))), Ok(plain.clone()), "{path}");
    }
    let package = parse(with("/sequence_id", &json!("9")).to_string().as_bytes()).unwrap();
    assert_eq!((package.sequence, package.uploaded_at), (Some(9), Some(1_637_971_300)));
    let odd = read(&with("/zkb/totalValue", &json!(" 5.0 "))).unwrap().zkb.unwrap();
    assert_eq!((odd.total_value, odd.unreadable.is_empty()), (Some(5.0), true));
    for text in ["", "5 ISK", "0x10", "NaN", "1e999", "+5", "1_000"] {
        let zkb = read(&with("/zkb/totalValue", &json!(text))).unwrap().zkb.unwrap();
        assert_eq!((zkb.total_value, zkb.unreadable.contains("totalValue")), (None, true), "{text}");
    }
}

#[test]
fn zero_is_not_an_id_except_of_a_location() {
    for path in members().into_iter().filter(|path| path.ends_with("_id")) {
        for zero in [json!(0), json!("0"), json!(0.0)] {
            let killmail = read(&with(&path, &zero)).unwrap();
            let found = form(&killmail);
            let (part, name) = place(&path);
            assert_eq!(found.pointer(&format!("{part}/{name}")), None, "{path}");
            assert!(!any_unreadable(&killmail), "{path}");
        }
    }
    assert_eq!(read(&with("/killmail_id", &json!(0))).unwrap().killmail_id, 5, "the body says who it is");
    assert_eq!(read(&with("/zkb/locationID", &json!(0))).unwrap().zkb.unwrap().location_id, Some(0));
}

#[test]
fn only_the_killmail_and_its_system_must_fit_32_bits() {
    let large = json!(1_u64 << 40);
    for path in ["/esi/killmail_id", "/esi/solar_system_id", "/killmail_id"] {
        assert_eq!(read(&with(path, &large)).unwrap_err().reason, Reason::IdOutOfRange, "{path}");
    }
    for path in members() {
        let killmail = read(&with(&path, &large)).unwrap();
        let fits = [
            "moon_id",
            "item_type_id",
            "quantity_dropped",
            "quantity_destroyed",
            "locationID",
            "attackerCount",
            "points",
            "flag",
            "singleton",
        ];
        let (_, name) = place(&path);
        let is_number = fits.contains(&name)
            || name.contains("Value")
            || name.starts_with("damage")
            || name == "security_status";
        assert_eq!(any_unreadable(&killmail), !is_number, "{path}");
    }
}

/// The document with raw bytes as the value at a path.
fn with_raw(path: &str, value: &[u8]) -> Vec<u8> {
    let text = with(path, &json!("HERE")).to_string();
    let (before, behind) = text.split_once("\"HERE\"").unwrap();
    [before.as_bytes(), value, behind.as_bytes()].concat()
}

#[test]
fn an_invalid_value_costs_only_its_member() {
    let digits = "7".repeat(400);
    let deep = format!("{}{}", "[".repeat(150), "]".repeat(150));
    for value in [
        &b"1e999"[..],
        digits.as_bytes(),
        br#"["\ud800"]"#,
        br#""\ud800""#,
        deep.as_bytes(),
        b"[\"x\xff\"]",
        b"NaN",
    ] {
        let text = String::from_utf8_lossy(value).into_owned();
        for path in members().into_iter().chain(["/hash", "/uploaded_at", "/zkb/hash"].map(str::to_owned)) {
            let killmail = parse(&with_raw(&path, value))
                .unwrap_or_else(|refused| panic!("{path} {text}: {refused}"))
                .killmail
                .unwrap();
            let (part, name) = place(&path);
            let found = form(&killmail);
            assert_eq!(found.pointer(&format!("{part}/unreadable/{name}")), Some(&json!(text)), "{path}");
            let again = parse(&encode(&killmail)).unwrap().killmail.unwrap();
            assert_eq!(encode(&again), encode(&killmail), "{path} {text}");
        }
        for (path, reason) in [
            ("/esi/killmail_id", Reason::InvalidKillmailId),
            ("/esi/solar_system_id", Reason::InvalidSystemId),
            ("/esi/victim", Reason::InvalidVictim),
            ("/esi/killmail_time", Reason::InvalidTimeType),
        ] {
            assert_eq!(parse(&with_raw(path, value)).unwrap_err().reason, reason, "{path} {text}");
        }
    }
    let unknown = with_raw("/zkb/points", b"7,\"unheard\":{\"of\":[1e999]}");
    assert_eq!(
        form(&parse(&unknown).unwrap().killmail.unwrap())["zkb"]["unreadable"],
        json!({"unheard": r#"{"of":[1e999]}"#})
    );
    let attackers =
        parse(&with_raw("/esi/attackers", br#"[{"damage_done":5},1e999,null]"#)).unwrap().killmail.unwrap();
    assert_eq!(
        (attackers.attackers.len(), &form(&attackers)["unreadable"]),
        (1, &json!({"attackers": "[1e999,null]"}))
    );
}

#[test]
fn raw_json_is_kept_beside_its_replacement() {
    for (path, value, shown) in [
        ("/hash", &b"5"[..], json!({"hash": 5})),
        ("/uploaded_at", b"\"x\"", json!({"uploaded_at": "x"})),
        ("/killmail_id", b"\"five\"", json!({"killmail_id": "five"})),
        ("/sequence_id", b"[9]", json!({"sequence_id": [9]})),
        ("/esi/attackers", b"[\"x\",null,5]", json!({"attackers": ["x", null, 5]})),
    ] {
        let killmail = parse(&with_raw(path, value)).unwrap().killmail.unwrap();
        assert_eq!((&form(&killmail)["unreadable"], killmail.hash.is_some()), (&shown, true), "{path}");
    }
    let zkb = form(&parse(&with_raw("/zkb/hash", b"5")).unwrap().killmail.unwrap())["zkb"].clone();
    assert_eq!((&zkb["hash"], &zkb["unreadable"]), (&json!("a".repeat(40)), &json!({"hash": 5})));
    let place = parse(&with_raw("/zkb/locationID", b"1180591620717411303424")).unwrap().killmail.unwrap();
    assert_eq!(form(&place)["zkb"]["unreadable"], json!({"locationID": "1180591620717411303424"}));
}

#[test]
fn absent_counts_only_in_our_own_format() {
    let mut given = document();
    given["zkb"]["absent"] = json!(["points", "npc"]);
    given["esi"]["provenance"] = json!({"redisq": ["points"]});
    for document in [given.clone(), {
        let mut row = given["esi"].clone();
        row["zkb"] = given["zkb"].clone();
        row
    }] {
        let killmail = read(&document).unwrap();
        assert!(killmail.provenance.is_empty());
        let found = form(&killmail);
        assert_eq!((&found["zkb"]["points"], &found["zkb"]["absent"]), (&json!(7), &Value::Null));
        assert_eq!(found["zkb"]["unreadable"], json!({"absent": ["points", "npc"]}));
        assert_eq!(found["unreadable"], json!({"provenance": {"redisq": ["points"]}}));
        let again = parse(&encode(&killmail)).unwrap().killmail.unwrap();
        assert_eq!(encode(&again), encode(&killmail));
    }
}

#[test]
fn elements_that_are_not_attackers_are_kept_apart() {
    let killmail = read(&with("/esi/attackers", &json!([7, {"damage_done": 5}, null, "x"]))).unwrap();
    let found = form(&killmail);
    assert_eq!(found["attackers"].as_array().map(Vec::len), Some(1));
    assert_eq!(found["unreadable"]["attackers"], json!([7, null, "x"]));
    assert_eq!(read(&with("/esi/attackers", &json!([]))).unwrap().attackers, []);
}

#[test]
fn of_repeated_names_the_last_counts() {
    let text = document().to_string();
    let twice = |points: &str| text.replace(r#""points":7"#, points);
    let zkb = |text: String| parse(text.as_bytes()).unwrap().killmail.unwrap().zkb.unwrap();
    let known = zkb(twice(r#""points":1.5,"points":7"#));
    assert_eq!((known.points, known.unreadable.is_empty()), (Some(7), true));
    let unknown = zkb(twice(r#""points":7,"points":1.5"#));
    assert_eq!((unknown.points, unknown.unreadable.contains("points")), (None, true));
}

#[test]
fn either_spelling_of_a_value_is_read() {
    let mut document = document();
    document["zkb"]["total_value"] = json!(9.5);
    document["zkb"]["totalValue"] = json!("much");
    let zkb = read(&document).unwrap().zkb.unwrap();
    assert_eq!((zkb.total_value, zkb.unreadable.is_empty()), (Some(9.5), true));
    document["zkb"]["total_value"] = json!([]);
    let zkb = read(&document).unwrap().zkb.unwrap();
    assert_eq!((zkb.total_value, zkb.unreadable.contains("totalValue")), (None, true));
}

#[test]
fn values_too_deep_to_be_read_again_are_kept_as_strings() {
    let deep = (0..110).fold(json!(1), |inner, _| json!([inner]));
    for path in ["/zkb/points", "/esi/victim/items/0/items/0/flag", "/esi/unheard_of"] {
        let mut document = document();
        let (part, name) = path.rsplit_once('/').unwrap();
        document.pointer_mut(part).unwrap()[name] = deep.clone();
        let mut killmail = read(&document).unwrap();
        let first = encode(&killmail);
        for _ in 0..3 {
            killmail = parse(&encode(&killmail)).unwrap().killmail.unwrap();
        }
        assert_eq!(encode(&killmail), first, "{path}");
    }
}

#[test]
fn each_unreadable_member_is_visited_with_its_part() {
    let mut document = with("/zkb/points", &json!(1.5));
    document["esi"]["victim"]["items"][0]["items"][0]["quantity_destroyed"] = json!(-1);
    document["esi"]["unreadable"] = json!({"unheard_of": 5});
    let mut told = Vec::new();
    each_unreadable(&read(&document).unwrap(), &mut |part, name, raw| {
        told.push((part, name.map(str::to_owned), raw.clone()))
    });
    let named = |name: &str| Some(name.to_owned());
    assert_eq!(
        told,
        [
            (Part::Killmail, None, json!(5)),
            (Part::Zkb, named("points"), json!(1.5)),
            (Part::Item, named("quantity_destroyed"), json!(-1)),
        ]
    );
}

#[test]
fn plausible_future_documents_are_accepted() {
    let beside =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/cases/zkb-member-of-another-type.ndjson");
    let Ok(text) = fs::read_to_string(beside) else { return };
    let zkb = |line: &str| form(&read(&serde_json::from_str(line).unwrap()).unwrap())["zkb"].clone();
    let blocks: Vec<Value> = text.lines().map(zkb).collect();
    assert_eq!(
        (&blocks[0]["points"], &blocks[0]["absent"], &blocks[0]["unreadable"]),
        (&json!(0), &json!(["points"]), &json!({"points": 1.5}))
    );
    assert_eq!((&blocks[1]["totalValue"], &blocks[1]["unreadable"]), (&json!(5.0), &Value::Null));
    assert_eq!((&blocks[2]["locationID"], &blocks[3]["attackerCount"]), (&json!(40_046_921), &json!(1)));
}
