//! Valid JSON is read as by serde; an invalid value costs only itself.
//!
//! Must not know: what a killmail is.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn shown(document: &[u8]) -> Result<Value, Reason> {
    read(document).map(Node::into_valid_json).map_err(|flaw| flaw.reason)
}

#[test]
fn an_invalid_value_is_kept_as_raw_text() {
    let digits = "7".repeat(400);
    let deep = format!("{}{}", "[".repeat(150), "]".repeat(150));
    for (value, kept) in [
        ("1e999", "1e999"),
        (&digits, &digits),
        ("NaN", "NaN"),
        ("01", "01"),
        (r#""\ud800""#, r#""\ud800""#),
        ("\"a\nb\"", "\"a\nb\""),
        ("1180591620717411303424", "1180591620717411303424"),
        (&deep, &deep),
    ] {
        let document = format!(r#" {{"a":1,"odd": {value} ,"list":["x", {value}],"b":"\u00e9"}} "#);
        let node = read(document.as_bytes()).unwrap_or_else(|flaw| panic!("{value}: {}", flaw.message));
        let Node::Object(mut fields) = node else { panic!("an object") };
        assert_eq!(
            (fields.get("a"), fields.get("b")),
            (Some(&Node::Number(1.into())), Some(&Node::Text("\u{e9}".into()))),
            "{value}"
        );
        let raw = fields.take("odd").unwrap().into_raw();
        let raw = raw.as_str().unwrap_or_default();
        assert!(raw == kept || value == deep && raw.len() == 300, "{raw}");
    }
    assert_eq!(shown(b"{\"a\":\"x\xff\",\"b\":[true]}"), Ok(json!({"a": "\"x\u{fffd}\"", "b": [true]})));
    assert_eq!(shown(b"{\"a\xff\":[1],\"b\":2}"), Ok(json!({"a\u{fffd}": "[1]", "b": 2})));
    let long = format!("{{\"a\":[1e999,\"{}\"]}}", "\u{e9}".repeat(9_000));
    let Ok(Node::Object(mut fields)) = read(long.as_bytes()) else { panic!("an object") };
    assert!(
        fields
            .take("a")
            .unwrap()
            .into_raw()
            .as_str()
            .is_some_and(|raw| raw.len() < 4_200 && raw.ends_with("..."))
    );
}

#[test]
fn a_truncated_or_malformed_document_is_refused() {
    for text in [
        "",
        "{",
        "{\"a\":}",
        "{\"a\":1}x",
        "{\"a\" 1}",
        "nonsense",
        "[1",
        "{\"a\":1,}",
        "{a:1}",
        "{\"a\":1 \"b\":2}",
        "{\"a\":tru e}",
    ] {
        assert_eq!(shown(text.as_bytes()), Err(Reason::MalformedJson), "{text}");
    }
    assert_eq!(shown("[".repeat(8 << 20).as_bytes()), Err(Reason::MalformedJson));
    assert_eq!(shown("[".repeat(40_000).as_bytes()), Err(Reason::MalformedJson));
}

#[test]
fn large_optional_members_are_not_built() {
    let many = |part: &str, count: usize| format!("[{}0]", part.repeat(count));
    let document =
        |name: &str| format!(r#"{{"killmail_id":5,"{name}":{},"victim":{{}}}}"#, many("{},", 60_000));
    let found = shown(document("more").as_bytes()).unwrap_or_default();
    assert_eq!((&found["killmail_id"], &found["victim"]), (&json!(5), &json!({})));
    assert!(found["more"].as_str().is_some_and(|raw| raw.len() < 4_200));
    let attackers = document("attackers");
    let refused = read(attackers.as_bytes()).map_err(|flaw| (flaw.reason, flaw.message));
    assert_eq!(refused, Err((Reason::TooLarge, "more than 50000 lists and objects".to_owned())));
    assert_eq!(shown(many("1,", 600_000).as_bytes()), Err(Reason::TooLarge));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from)
    ];
    leaf.prop_recursive(5, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,4}", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn valid_json_is_read_as_by_serde(document in any_json(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_string_pretty(&document).unwrap() } else { document.to_string() };
        prop_assert_eq!(shown(text.as_bytes()), Ok(document));
    }

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[\\[\\]{}:,\"a1\\\\ ]{0,60}") {
        let _ = read(&bytes);
        let _ = read(text.as_bytes());
        if serde_json::from_str::<Value>(&text).is_ok() {
            prop_assert!(read(text.as_bytes()).is_ok());
        }
    }
}
