//! Documents from outside: real files are read without losing a field, obsolete formats are refused, and any
//! bytes are safe.
//!
//! Must not know: the canonical JSON beyond the names it keeps.

use std::env;
use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::domain::killmail::Item;
use crate::domain::merge::compare::{MergeOutcome, merge};
use crate::sample;
use crate::wire::killmail::encode;
use crate::wire::time;

/// The folder of real killmails, if it exists.
fn real() -> Option<PathBuf> {
    let named = env::var_os("KILLSTREAM_DATA").map(PathBuf::from);
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    [named, Some(beside)]
        .into_iter()
        .flatten()
        .map(|folder| folder.join("killmails"))
        .find(|folder| folder.is_dir())
}

fn lines(file: &str) -> Option<Vec<Vec<u8>>> {
    let Some(folder) = real() else {
        eprintln!("NO REAL DATA HERE: {file} is not read; set KILLSTREAM_DATA to the folder of real data");
        return None;
    };
    let bytes = fs::read(folder.join(file)).expect("the data folder is complete");
    let bytes =
        if file.ends_with(".zst") { zstd::decode_all(bytes.as_slice()).expect("whole") } else { bytes };
    eprintln!("reading {}", folder.join(file).display());
    Some(bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect())
}

/// Checks that everything in `given` is in `found` under the same name. Nulls are ignored; numbers and times
/// are compared by value.
fn assert_contained(given: &Value, found: Option<&Value>, path: &str) {
    match (given, found) {
        (Value::Null, _) => {}
        (Value::Object(given), Some(Value::Object(found))) => {
            given.iter().for_each(|(name, value)| {
                assert_contained(value, found.get(name), &format!("{path}.{name}"))
            });
        }
        (Value::Array(given), Some(Value::Array(found))) if given.len() == found.len() => {
            given
                .iter()
                .zip(found)
                .enumerate()
                .for_each(|(at, (g, f))| assert_contained(g, Some(f), &format!("{path}[{at}]")));
        }
        (Value::Number(given), Some(Value::Number(found))) => {
            assert_eq!(given.as_f64(), found.as_f64(), "{path}")
        }
        (Value::String(given), Some(Value::String(found))) if path == ".killmail_time" => {
            assert_eq!(time::parse(given), time::parse(found), "{path}");
        }
        (given, found) => assert_eq!(Some(given), found, "{path}"),
    }
}

/// Parses every line, checks that nothing is lost, and returns the number of lines.
fn check_lines(lines: &[Vec<u8>]) -> usize {
    for line in lines {
        let given: Value = serde_json::from_slice(line).expect("JSON");
        let package = parse(line).unwrap_or_else(|refused| {
            panic!("{refused}: {}", String::from_utf8_lossy(&line[..line.len().min(300)]))
        });
        let found: Value = serde_json::from_slice(&encode(&package.killmail.expect("a body"))).expect("JSON");
        let inner = given.get("package").unwrap_or(&given);
        let body = ["killmail", "esi"].into_iter().find_map(|key| inner.get(key)).unwrap_or(inner);
        assert_contained(body, Some(&found), "");
        if let Some(zkb) = inner.get("zkb") {
            assert_contained(zkb, found.get("zkb"), ".zkb");
        }
    }
    lines.len()
}

#[test]
fn every_real_killmail_is_read_completely() {
    for (file, count) in [
        ("killmails-esi.ndjson.zst", 41_766),
        ("killmails-esi.sample.ndjson", 418),
        ("edge.ndjson", 214),
        ("redisq-packages.ndjson", 10),
        ("redisq-packages-reserialised.ndjson", 413),
        ("redisq-packages-normalised.derived.ndjson", 412),
        ("zkb-websocket-killstream.ndjson", 5),
    ] {
        if let Some(lines) = lines(file) {
            assert_eq!(check_lines(&lines), count, "{file}");
        }
    }
}

#[test]
fn the_bundled_sample_is_read_completely() {
    let lines: Vec<Vec<u8>> = sample::lines().map(|line| line.into_bytes()).collect();
    assert_eq!(check_lines(&lines), 3_927);
}

#[test]
fn r2z2_documents_are_read_with_their_envelope() {
    let Some(lines) = lines("samples/r2z2-documents.constructed.json") else { return };
    let file: Value = serde_json::from_slice(&lines.join(&b'\n')).unwrap();
    let documents: Vec<Vec<u8>> =
        file["documents"].as_array().unwrap().iter().map(|d| d.to_string().into_bytes()).collect();
    assert_eq!(check_lines(&documents), 7);
    for (bytes, document) in documents.iter().zip(file["documents"].as_array().unwrap()) {
        let package = parse(bytes).unwrap();
        assert_eq!(package.sequence, document["sequence_id"].as_u64());
        assert_eq!(package.uploaded_at, document["uploaded_at"].as_i64());
        assert_eq!(package.killmail.unwrap().hash.as_deref(), document["hash"].as_str());
    }
}

#[test]
fn rest_rows_without_a_body_are_references() {
    let Some(lines) = lines("zkb-rest.ndjson") else { return };
    assert_eq!(lines.len(), 408);
    for line in &lines {
        let package = parse(line).unwrap();
        let given: Value = serde_json::from_slice(line).unwrap();
        let reference = package.reference.unwrap();
        assert_eq!(
            (package.killmail, Some(u64::from(reference.killmail_id))),
            (None, given["killmail_id"].as_u64())
        );
        assert_eq!(Some(reference.hash.as_str()), given["zkb"]["hash"].as_str());
        assert!(reference.zkb.unwrap().total_value.is_some());
    }
}

#[test]
fn every_legacy_killmail_is_refused_by_its_format() {
    let mut unnamed = 0;
    for (file, count, reason) in [
        ("legacy-redisq-crest.ndjson", 55, Reason::LegacyCrest),
        ("legacy-crest-killmails.ndjson", 1, Reason::LegacyCrest),
        ("legacy-zkb-api-2013.ndjson", 91, Reason::Legacy2013),
    ] {
        let Some(lines) = lines(file) else { continue };
        assert_eq!(lines.len(), count);
        for line in &lines {
            let refused = parse(line).unwrap_err();
            assert_eq!(refused.reason, reason);
            unnamed += usize::from(refused.killmail_id.is_none());
        }
    }
    assert!(unnamed <= 1, "one document of 2013 has the id -1; all others have a valid one");
}

#[test]
fn the_same_killmail_in_two_formats_does_not_conflict() {
    let (Some(exact), Some(derived)) =
        (lines("redisq-packages-reserialised.ndjson"), lines("redisq-packages-normalised.derived.ndjson"))
    else {
        return;
    };
    let read = |line: &Vec<u8>| parse(line).unwrap().killmail.unwrap();
    let derived: Vec<Killmail> = derived.iter().map(read).collect();
    let mut met = 0;
    for one in exact.iter().map(read) {
        if let Some(other) = derived.iter().find(|k| k.killmail_id == one.killmail_id) {
            assert_ne!(merge(&one, other, false), MergeOutcome::Conflict, "{}", one.killmail_id);
            met += 1;
        }
    }
    assert_eq!(met, 412);
}

fn body() -> Value {
    json!({"killmail_id": 5, "killmail_time": "2021-11-27T00:00:01Z", "solar_system_id": 30_000_142,
           "victim": {"ship_type_id": 670, "items": [{"item_type_id": 34, "flag": 5, "singleton": 0}]}, "attackers": [{"final_blow": true}]})
}

/// The body with the value at a path (separated by `/`) replaced or removed.
fn but(path: &str, value: Option<Value>) -> Value {
    let mut body = body();
    let (parent, name) = path.rsplit_once('/').unwrap();
    let fields = body.pointer_mut(parent).and_then(Value::as_object_mut).unwrap();
    match value {
        Some(value) => drop(fields.insert(name.to_owned(), value)),
        None => drop(fields.remove(name)),
    }
    body
}

fn reason_of(document: &Value) -> Option<Reason> {
    parse(document.to_string().as_bytes()).err().map(|refused| refused.reason)
}

#[test]
fn each_error_has_its_reason() {
    assert_eq!(reason_of(&body()), None);
    for nobody in
        [json!({}), json!({"character_id": 0, "ship_type_id": 0}), json!({"corporation_id": 98_000_001})]
    {
        assert_eq!(reason_of(&but("/victim", Some(nobody))), None, "any object is a victim");
    }
    let set = |path: &str, value: Value| reason_of(&but(path, Some(value)));
    for (found, reason) in [
        (reason_of(&but("/victim", None)), Reason::MissingFields),
        (set("/attackers", Value::Null), Reason::MissingFields),
        (set("/killmail_id", json!(0)), Reason::InvalidKillmailId),
        (set("/killmail_id", json!(-5)), Reason::InvalidKillmailId),
        (set("/killmail_id", json!(5.5)), Reason::InvalidKillmailId),
        (set("/killmail_id", json!("5 or so")), Reason::InvalidKillmailId),
        (set("/killmail_id", json!(4_294_967_296_u64)), Reason::IdOutOfRange),
        (set("/killmail_id", json!(1e300)), Reason::IdOutOfRange),
        (set("/solar_system_id", json!(0)), Reason::InvalidSystemId),
        (set("/solar_system_id", json!(u64::MAX)), Reason::IdOutOfRange),
        (set("/victim", json!([])), Reason::InvalidVictim),
        (set("/victim", json!("x")), Reason::InvalidVictim),
        (set("/attackers", json!({"0": {}})), Reason::InvalidAttackers),
        (set("/attackers", json!("none")), Reason::InvalidAttackers),
        (reason_of(&but("/killmail_time", None)), Reason::MissingTime),
        (set("/killmail_time", json!(1_637_971_201)), Reason::InvalidTimeType),
        (set("/killmail_time", json!("2021.11.27 00:00:01")), Reason::InvalidTimeFormat),
        (reason_of(&json!({"package": null})), Reason::NoPackage),
        (reason_of(&json!([])), Reason::NotAnObject),
        (reason_of(&json!({"killmail_id": 5, "zkb": {"points": 1}})), Reason::MissingHash),
        (reason_of(&json!({"killmail_id": null, "hash": null, "esi": null, "zkb": {"href": "x"}, "sequence_id": 4})), Reason::Placeholder),
        (reason_of(&json!({"killmail_id": 6, "hash": "a", "esi": body(), "sequence_id": 4})), Reason::IdMismatch),
        (reason_of(&json!({"killmail_id": 1_u64 << 32, "hash": "a", "esi": body()})), Reason::IdOutOfRange),
        (parse(b"{\"killmail_id\":").err().map(|r| r.reason), Reason::MalformedJson),
    ]
    .map(|(found, reason)| (found, Some(reason)))
    {
        assert_eq!(found, reason);
    }
    assert_eq!(parse(&vec![b' '; DOCUMENT_MAX_BYTES + 1]).map_err(|r| r.reason), Err(Reason::TooLarge));
}

#[test]
fn a_document_of_too_many_values_is_not_built() {
    let with = |part: &str, count: usize| {
        body().to_string().replacen('{', &format!("{{\"more\":[{}0],", part.repeat(count)), 1)
    };
    let reason = |document: &str| parse(document.as_bytes()).err().map(|refused| refused.reason);
    assert_eq!(reason(&with("{},", 49_000)), None);
    for document in [with("{},", 60_000), with("1,", 500_001)] {
        let killmail = parse(document.as_bytes()).unwrap().killmail.unwrap();
        let kept = killmail
            .unreadable
            .iter()
            .find(|(name, _)| *name == "more")
            .and_then(|(_, raw)| raw.as_str())
            .unwrap();
        assert!(kept.len() < 5_000, "its beginning is kept as a string");
    }
    let attackers = but("/attackers", Some(json!(vec![json!({}); 50_001]))).to_string();
    assert_eq!(reason(&attackers), Some(Reason::TooLarge));
    assert_eq!(reason(&with("\"{[,\\\"\",", 60_000)), None, "characters in strings do not count");
}

#[test]
fn nesting_of_items_is_limited() {
    let nested = |levels: usize| {
        (1..levels)
            .fold(json!([{"item_type_id": 1}]), |inner, _| json!([{"item_type_id": 1, "items": inner}]))
    };
    let inside = |item: Item, _| item.items?.into_iter().next();
    for (levels, kept) in [(body::ITEM_LEVELS_MAX, false), (body::ITEM_LEVELS_MAX + 1, true)] {
        let document = but("/victim/items", Some(nested(levels))).to_string();
        let first = parse(document.as_bytes()).unwrap().killmail.unwrap().victim.items.unwrap().remove(0);
        let last = (1..body::ITEM_LEVELS_MAX).try_fold(first, inside).unwrap();
        assert_eq!(last.unreadable.contains("items"), kept, "{levels} levels");
    }
    let text = "[".repeat(40_000);
    assert_eq!(parse(format!("{{\"a\":{text}").as_bytes()).map_err(|r| r.reason), Err(Reason::MalformedJson));
}

#[test]
fn unknown_fields_keep_their_place() {
    let mut given = body();
    for (path, name) in [("", "a"), ("/victim", "b"), ("/victim/items/0", "c"), ("/attackers/0", "d")] {
        let fields = given.pointer_mut(path).and_then(Value::as_object_mut).unwrap();
        fields.insert(name.to_owned(), json!({"x": [1.5, "t"], "n": null}));
    }
    given["victim"]["position"] = json!({"x": 1.0, "y": 2, "z": -3.5, "w": 4});
    given["zkb"] = json!({"hash": "h", "unheard": true, "labels": {"0": "pvp", "2": "npc"}});
    let killmail = parse(given.to_string().as_bytes()).unwrap().killmail.unwrap();
    given["zkb"]["labels"] = json!(["pvp", "npc"]);
    let found: Value = serde_json::from_slice(&encode(&killmail)).unwrap();
    assert_contained(&given, Some(&found), "");
    let half = but("/victim/position", Some(json!({"x": 1.0, "z": null})));
    let killmail = parse(half.to_string().as_bytes()).unwrap().killmail.unwrap();
    let found: Value = serde_json::from_slice(&encode(&killmail)).unwrap();
    assert_eq!(found["victim"]["position"], json!({"x": 1.0}));
}

#[test]
fn a_redisq_package_without_body_is_a_reference() {
    let given = json!({"package": {"killID": 130_678_514, "zkb": {"hash": "145c", "totalValue": 3.5, "href": "https://esi"}}});
    let package = parse(given.to_string().as_bytes()).unwrap();
    let reference = package.reference.unwrap();
    assert_eq!(
        (package.killmail, reference.killmail_id, reference.hash.as_str()),
        (None, 130_678_514, "145c")
    );
    assert_eq!(reference.zkb.and_then(|z| z.total_value), Some(3.5));
}

#[test]
fn a_byte_order_mark_is_skipped() {
    let marked = |text: &str| format!("\u{feff}{text}").into_bytes();
    assert_eq!(parse(&marked(&body().to_string())), parse(body().to_string().as_bytes()));
    assert_eq!(
        parse(&marked("\u{feff}{}")).map_err(|r| r.reason),
        Err(Reason::MalformedJson),
        "one is enough"
    );
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0..4_u32).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        Just(json!("2021-11-27T00:00:01Z")),
    ];
    let names = vec![
        "package",
        "killmail",
        "esi",
        "zkb",
        "killmail_id",
        "killID",
        "killmail_time",
        "solar_system_id",
        "solarSystemID",
        "victim",
        "attackers",
        "items",
        "item_type_id",
        "position",
        "x",
        "ship_type_id",
        "labels",
        "hash",
        "absent",
        "totalValue",
        "final_blow",
        "sequence_id",
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(names.clone()), inner), 0..6).prop_map(|pairs| pairs
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v))
                .collect::<Map<_, _>>()
                .into()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn any_json_is_answered(document in any_json(), path in prop::sample::select(vec!["/victim", "/attackers", "/zkb", "/killmail_id", "/killmail_time", "/victim/items", "/victim/position"])) {
        let _ = parse(document.to_string().as_bytes());
        if let Ok(Package { killmail: Some(killmail), .. }) = parse(but(path, Some(document)).to_string().as_bytes()) {
            prop_assert!(serde_json::from_slice::<Value>(&encode(&killmail)).is_ok());
        }
    }

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0..400_usize) {
        let _ = parse(&bytes);
        let text = body().to_string().into_bytes();
        let mut spoiled = text.get(..cut).unwrap_or(&text).to_vec();
        spoiled.extend(bytes);
        let _ = parse(&spoiled);
    }
}
