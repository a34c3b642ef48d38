//! Valid requests, and the exact messages for invalid ones.
//!
//! Must not know: HTTP.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

const LIMITS: Limits = Limits { plugin_config_bytes: 8 << 10 };

fn pairs(text: &str) -> Vec<(String, String)> {
    let split = |pair: &str| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    text.split('&').filter_map(split).collect()
}

fn stream(text: &str) -> Result<ParsedQuery, String> {
    read_stream_query(&pairs(text), LIMITS).map_err(|error| error.message)
}

fn posted(value: Value) -> Result<ParsedQuery, String> {
    read_stream_body(value.to_string().as_bytes(), &[], LIMITS).map_err(|error| error.message)
}

/// The filters in the `connected` event.
fn filters(asked: &ParsedQuery) -> Value {
    serde_json::from_slice(&asked.filters).unwrap()
}

fn history(text: &str) -> Result<ParsedQuery, (String, Option<u64>)> {
    read_history_query(&pairs(text), LIMITS).map_err(|error| (error.field, error.limit))
}

fn many(count: usize) -> String {
    (1..=count).map(|id| id.to_string()).collect::<Vec<_>>().join(",")
}

#[test]
fn a_stream_without_parameters_matches_everything() {
    let asked = stream("").unwrap();
    assert_eq!(asked.subscription, Subscription::default());
    assert_eq!(
        filters(&asked),
        json!({"system_ids": [], "character_ids": [], "min_value": null, "preload_days": 0})
    );
    assert_eq!(stream("system_ids=&min_value=&preload_days=&character_ids=,,").unwrap(), asked);
    assert_eq!(posted(json!({"system_ids": [], "min_value": null})).unwrap(), asked);
}

#[test]
fn misspelt_filters_are_refused_and_other_unknown_names_reported() {
    let ignored = ParsedQuery { ignored: vec!["nonsense".to_owned()], ..stream("").unwrap() };
    assert_eq!(stream("nonsense=1&system_ids=").unwrap(), ignored);
    assert_eq!(posted(json!({"nonsense": 1, "order": null})).unwrap(), ignored);
    assert_eq!(
        stream("systems=30000142").unwrap_err(),
        "Unknown parameter: systems; did you mean system_ids?"
    );
    assert_eq!(
        posted(json!({"charater_ids": [5]})).unwrap_err(),
        "Unknown parameter: charater_ids; did you mean character_ids?"
    );
    assert_eq!(
        stream("systems=1&character_ids=x").unwrap_err(),
        "Invalid character_ids: 'x' is not a valid integer",
        "known ones first"
    );
    let joined = |value: Value| {
        let text = value.to_string();
        read_join(&Parameters::from_object(text.as_bytes(), CHANNEL_JOIN.known_names).unwrap(), LIMITS)
            .map(|asked| asked.ignored)
            .map_err(|error| error.message)
    };
    assert_eq!(
        joined(
            json!({"systems": [1], "characters": [], "system_ids": [2], "resume_from": null, "preload": true})
        ),
        Ok(vec![])
    );
    assert_eq!(
        joined(json!({"alliances": [1], "preload_days": 3})),
        Ok(vec!["alliances".to_owned(), "preload_days".to_owned()])
    );
    assert_eq!(
        joined(json!({"alliance_id": [1]})),
        Err("Unknown parameter: alliance_id; did you mean alliance_ids?".to_owned())
    );
    let hinted = read_history_query(&pairs("systems=1"), LIMITS).unwrap_err();
    assert_eq!(
        (hinted.field.as_str(), hinted.message.as_str()),
        ("systems", "Unknown parameter: systems; did you mean system_ids?")
    );
}

#[test]
fn repeated_lists_are_joined() {
    let asked = stream("system_ids=5&min_value=1&system_ids=7,6&labels=a&system_ids=&min_value=2&labels=b,c")
        .unwrap();
    assert_eq!(asked.subscription.filter.ids(Dimension::System).unwrap().as_slice(), [5, 6, 7]);
    assert_eq!(
        (asked.subscription.filter.labels, asked.subscription.filter.min_value),
        (vec!["a".into(), "b".into(), "c".into()], Some(2.0))
    );
    assert_eq!(
        history("region_ids=1&region_ids=2")
            .unwrap()
            .subscription
            .filter
            .ids(Dimension::Region)
            .unwrap()
            .as_slice(),
        [1, 2]
    );
    assert_eq!(
        stream("system_ids=x&system_ids=y").unwrap_err(),
        "Invalid system_ids: 'x' is not a valid integer"
    );
    let repeated = vec!["system_ids=5"; 101].join("&");
    assert_eq!(stream(&repeated).unwrap_err(), "Too many system_ids specified (max 100)");
    let beside = |body: &str| {
        read_stream_body(body.as_bytes(), &pairs("system_ids=5&system_ids=7"), LIMITS)
            .unwrap()
            .subscription
            .filter
    };
    assert_eq!(beside("").ids(Dimension::System).unwrap().as_slice(), [5, 7]);
    assert_eq!(
        beside("{\"system_ids\":[9]}").ids(Dimension::System).unwrap().as_slice(),
        [9],
        "the body takes precedence"
    );
    assert_eq!(
        beside("{\"system_ids\":\"8\",\"system_ids\":\"9\"}").ids(Dimension::System).unwrap().as_slice(),
        [9],
        "in JSON the last one counts"
    );
}

#[test]
fn unknown_formats_are_refused() {
    let refusal = "Invalid format: 'nonsense' is not one of canonical";
    assert_eq!(stream("format=nonsense").unwrap_err(), refusal);
    assert_eq!(posted(json!({"format": "nonsense"})).unwrap_err(), refusal);
    assert_eq!(read_history_query(&pairs("format=nonsense"), LIMITS).unwrap_err().message, refusal);
    assert_eq!(read_count_query(&pairs("format=nonsense"), LIMITS).unwrap_err().message, refusal);
    let joined = read_join(
        &Parameters::from_object(b"{\"format\":\"nonsense\"}", CHANNEL_JOIN.known_names).unwrap(),
        LIMITS,
    );
    assert_eq!(joined.unwrap_err().message, refusal);
    assert!(
        stream("format=canonical").is_ok() && read_count_query(&pairs("format=canonical"), LIMITS).is_ok()
    );
}

#[test]
fn batches_have_the_requested_size_within_bounds() {
    let asked = stream("batch_key=kills&batch_max_bytes=65536").unwrap();
    assert_eq!((asked.batch_key, asked.batch_max_bytes), (BatchKey::Kills, Some(65_536)));
    assert_eq!(stream("").unwrap().batch_key, BatchKey::Both);
    for text in
        ["batch_max_bytes=16383", "batch_max_bytes=1048577", "batch_max_bytes=0", "batch_max_bytes=-1"]
    {
        assert_eq!(stream(text).unwrap_err(), "batch_max_bytes must be between 16384 and 1048576", "{text}");
    }
    assert_eq!(
        stream("batch_key=both").unwrap_err(),
        "Invalid batch_key: 'both' is not one of kills, killmails"
    );
}

#[test]
fn every_name_of_the_last_id_is_known() {
    for name in ["last_event_id", "lastEventId", "Last-Event-ID", "evs_last_event_id"] {
        let asked = stream(&format!("{name}=x-1")).unwrap();
        assert_eq!((asked.last_event_id.as_deref(), asked.ignored.len()), (Some("x-1"), 0), "{name}");
    }
    assert_eq!(stream("evs_last_event_id=b&last_event_id=a").unwrap().last_event_id.as_deref(), Some("a"));
    assert_eq!(
        posted(json!({"last_event_id": 5})).unwrap().last_event_id.as_deref(),
        Some("5"),
        "never a refusal"
    );
}

#[test]
fn times_may_be_in_milliseconds() {
    let since = |text: &str| history(&format!("since={text}")).map(|asked| asked.subscription.filter.since);
    assert_eq!(
        (since("1637971201000"), since("1637971201")),
        (Ok(Some(1_637_971_201)), Ok(Some(1_637_971_201)))
    );
    assert_eq!(
        posted(json!({"until": 1_637_971_201_000_u64})).unwrap().subscription.filter.until,
        Some(1_637_971_201)
    );
    assert_eq!(since("1637971201000000"), Err(("since".into(), None)), "not an empty answer");
}

#[test]
fn errors_of_a_stream_have_the_older_services_messages() {
    for (text, message) in [
        ("system_ids=invalid", "Invalid system_ids: 'invalid' is not a valid integer"),
        ("system_ids=1, x ,y", "Invalid system_ids: 'x' is not a valid integer"),
        ("system_ids=1.5", "Invalid system_ids: '1.5' is not a valid integer"),
        ("system_ids[]=1", "system_ids must be a comma-separated list of integers"),
        ("character_ids=12x", "Invalid character_ids: '12x' is not a valid integer"),
        ("alliance_ids=x", "Invalid alliance_ids: 'x' is not a valid integer"),
        ("min_value=-100", "min_value must be non-negative, got -100.0"),
        ("min_value=abc", "Invalid min_value: 'abc' is not a valid number"),
        ("preload_days=-5", "preload_days must be non-negative"),
        ("preload_days=x", "Invalid preload_days: 'x' is not a valid integer"),
        ("character_ids=x&system_ids=y&min_value=-1", "Invalid system_ids: 'y' is not a valid integer"),
        ("character_ids=x&min_value=-1&preload_days=-1", "Invalid character_ids: 'x' is not a valid integer"),
        ("preload_days=-1&min_value=z", "Invalid min_value: 'z' is not a valid number"),
        ("role=none", "Invalid role: 'none' is not one of any, victim, attacker, final_blow"),
        ("npc=yes", "Invalid npc: 'yes' is neither true nor false"),
        ("since=soon", "Invalid since: 'soon' is neither an RFC 3339 time nor unix seconds"),
        ("plugin_config={}", "plugin_config requires plugin"),
        (
            "plugin=a&plugin_config=hello",
            "Invalid plugin_config: not JSON: expected value at line 1 column 1",
        ),
        (
            "plugin=a&plugin_config=\"hello\"",
            "Invalid plugin_config: a configuration in a string must be JSON, and this string is not: expected value at line 1 column \
             1; give an object, or its JSON in a string",
        ),
        ("plugins=[{\"name\":\"a\"},{\"name\":\"b\"}]", "Too many plugins specified (max 1)"),
    ] {
        assert_eq!(stream(text).unwrap_err(), message, "{text}");
    }
}

#[test]
fn counts_are_checked_after_everything_was_read() {
    assert!(stream(&format!("system_ids={}", many(100))).is_ok());
    assert_eq!(
        stream(&format!("system_ids={}", many(101))).unwrap_err(),
        "Too many system_ids specified (max 100)"
    );
    assert_eq!(
        stream(&format!("region_ids={}", many(101))).unwrap_err(),
        "Too many region_ids specified (max 100)"
    );
    assert_eq!(
        stream(&format!("system_ids={}&preload_days=-1", many(101))).unwrap_err(),
        "preload_days must be non-negative"
    );
    assert_eq!(
        stream(&format!("system_ids={}", ["5"; 101].join(","))).unwrap_err(),
        "Too many system_ids specified (max 100)",
        "repeated"
    );
    let ids: Vec<u32> = (1..=50_001).collect();
    assert_eq!(
        posted(json!({"system_ids": &ids[..10_001]})).unwrap_err(),
        "Too many system_ids specified (max 10000)"
    );
    assert_eq!(
        posted(json!({"character_ids": ids})).unwrap_err(),
        "Too many character_ids specified (max 50000)"
    );
    assert!(posted(json!({"character_ids": &ids[..50_000], "system_ids": &ids[..10_000]})).is_ok());
    assert!(history(&format!("system_ids={}", many(5_000))).is_ok(), "only the URL is limited");
    assert_eq!(
        read_history_body(json!({"system_ids": &ids[..10_001]}).to_string().as_bytes(), &[], LIMITS)
            .unwrap_err()
            .limit,
        Some(10_000)
    );
}

#[test]
fn lists_are_trimmed_and_days_are_capped() {
    let asked = stream("system_ids= 30000142 , 30000144 ,&preload_days=120&character_ids=+5").unwrap();
    assert_eq!(asked.preload_days, 90);
    assert_eq!(
        asked.subscription.filter.ids(Dimension::System).unwrap().as_slice(),
        [30_000_142, 30_000_144]
    );
    assert_eq!(filters(&asked)["system_ids"], json!([30_000_142, 30_000_144]));
    assert_eq!(stream(&format!("preload_days={}", "9".repeat(60))).unwrap().preload_days, 90);
}

#[test]
fn impossible_ids_match_nothing_rather_than_everything() {
    for text in ["system_ids=-5", "system_ids=0", "system_ids=99999999999999999999999999999999999999999999"] {
        assert!(stream(text).unwrap().subscription.filter.has_ids(), "{text}");
        assert_eq!(history(text).unwrap_err().0, "system_ids", "{text}");
    }
    // They are echoed as they came.
    let asked = stream("system_ids=-5,30000142,99999999999&character_ids=0").unwrap();
    assert_eq!(
        (&filters(&asked)["system_ids"], &filters(&asked)["character_ids"]),
        (&json!([-5, 30_000_142, 99_999_999_999_u64]), &json!([0]))
    );
    assert!(filters(&stream("system_ids=99999999999999999999999").unwrap())["system_ids"][0].is_number());
}

#[test]
fn query_string_and_json_mean_the_same() {
    let text = "system_ids=1,2&ship_group_ids=7&match=all&role=final_blow&labels=pvp,isk:1b &npc=false&min_value=1.5&max_value=1e9\
                &since=2021-11-27T00:00:01Z&until=1637971300&preload_days=3&max_age_secs=0&plugin=gatecamp&plugin_config={\"minutes\":5}&last_event_id=x-1";
    let object = json!({"system_ids": [1, "2"], "ship_group_ids": "7", "match": "all", "role": "final_blow", "labels": ["pvp", "isk:1b", "isk:1b+"],
        "npc": false, "min_value": 1.5, "max_value": 1e9, "since": 1_637_971_201, "until": "1637971300", "preload_days": 3.0, "max_age_secs": 0,
        "plugins": [{"name": "gatecamp", "config": {"minutes": 5}, "on_fault": "skip"}], "last_event_id": "x-1"});
    let (one, other) = (stream(text).unwrap(), posted(object).unwrap());
    assert_eq!(one, other);
    let filter = &one.subscription.filter;
    assert_eq!(
        (filter.matching, filter.role, filter.npc, filter.solo),
        (Match::All, Role::FinalBlow, Some(false), None)
    );
    assert_eq!((filter.min_value, filter.max_value), (Some(1.5), Some(1e9)));
    assert_eq!((filter.since, filter.until), (Some(1_637_971_201), Some(1_637_971_300)));
    assert_eq!(one.subscription.plugin.as_ref().map(|p| p.config.as_str()), Some("{\"minutes\":5}"));
    assert_eq!((one.subscription.max_age_secs, one.last_event_id.as_deref()), (0, Some("x-1")));
}

#[test]
fn history_names_the_field_and_the_limit() {
    assert_eq!(history("limit=0").unwrap_err(), ("limit".into(), Some(1000)));
    assert_eq!(history("limit=1001").unwrap_err(), ("limit".into(), Some(1000)));
    assert_eq!(history("limit=-1").unwrap_err(), ("limit".into(), Some(1000)));
    assert_eq!(history("limit=x").unwrap_err(), ("limit".into(), None));
    assert_eq!(history("order=up").unwrap_err(), ("order".into(), None));
    assert_eq!(history("nonsense=1").unwrap_err(), ("nonsense".into(), None));
    assert_eq!(history("preload_days=1").unwrap_err(), ("preload_days".into(), None));
    assert_eq!(
        history(&format!("plugin=a&plugin_config=\"{}\"", "x".repeat(9_000))).unwrap_err().0,
        "plugin_config"
    );
    let long = format!("plugin=a&plugin_config={{\"a\":\"{}\"}}", "x".repeat(9_000));
    assert_eq!(history(&long).unwrap_err(), ("plugin_config".into(), Some(8192)));
    assert_eq!(read_count_query(&pairs("plugin=a"), LIMITS).unwrap_err().field, "plugin");
    assert_eq!(read_count_query(&pairs("limit=5"), LIMITS).unwrap_err().field, "limit");
    let asked = history("order=oldest&limit=1000&cursor=abc&format=canonical").unwrap();
    assert_eq!((asked.order, asked.limit, asked.cursor.as_deref()), (Order::Oldest, 1000, Some("abc")));
    let asked = history("").unwrap();
    assert_eq!((asked.order, asked.limit), (Order::Newest, 50));
}

#[test]
fn a_plugin_configuration_has_the_length_of_its_setting() {
    let read = |bytes: usize, plugin_config_bytes| {
        let config = json!({ "a": "x".repeat(bytes - r#"{"a":""}"#.len()) });
        let body = json!({ "plugin": "mine", "plugin_config": config }).to_string();
        let asked = read_history_body(body.as_bytes(), &[], Limits { plugin_config_bytes });
        asked.map(|asked| asked.subscription.plugin.unwrap().config.len())
    };
    for limit in [100, 8 << 10, 1 << 20] {
        assert_eq!(read(limit, limit), Ok(limit));
        let refused = read(limit + 1, limit).unwrap_err();
        let message = format!(
            "the plugin's configuration is {} bytes; at most {limit} (plugin.config_bytes)",
            limit + 1
        );
        assert_eq!((refused.message, refused.limit), (message, Some(limit as u64)));
    }
    let refused = read(65_537, 100).unwrap_err();
    assert_eq!(
        (refused.message.as_str(), refused.limit),
        ("plugin_config is 65537 bytes as sent; at most 65536 (plugin.config_bytes is 100)", Some(65_536))
    );
}

#[test]
fn a_body_is_an_object_or_empty_and_the_query_string_fills_it_in() {
    let read = |body: &str, text: &str| {
        read_history_body(body.as_bytes(), &pairs(text), LIMITS).map_err(|error| (error.field, error.message))
    };
    assert_eq!(read(" ", "limit=7").unwrap().limit, 7);
    assert_eq!(
        read("{\"limit\":5,\"limit\":6}", "limit=7&order=oldest").map(|asked| (asked.limit, asked.order)),
        Ok((6, Order::Oldest))
    );
    for wrong in ["[30000142]", "5", "null", "\"x\"", "limit=10", "{\"a\":"] {
        let (field, message) = read(wrong, "").unwrap_err();
        assert!(field == "body" && message.contains("JSON object"), "{message}");
    }
    let deep = format!("{{\"labels\":{}1{}}}", "[".repeat(64), "]".repeat(64));
    assert_eq!(read(&deep, "").unwrap_err().0, "body");
}

#[test]
fn unknown_members_are_skipped_and_reported_by_name() {
    let names: Vec<String> = (0..100).map(|n| format!("\"n{n}\":[{{\"a\":{{}}}}]")).collect();
    let body = format!(
        "{{{},\"{}\":1,\"null\":null,\"empty\":\"\",\"system_ids\":[5]}}",
        names.join(","),
        "x".repeat(100)
    );
    let given = Parameters::from_object(body.as_bytes(), EVENT_STREAM.known_names).unwrap();
    assert_eq!((given.unknown().len(), given.unknown()[0].as_str()), (32, "n0"));
    assert_eq!(given.ids("system_ids", 1).unwrap().len(), 1);
    let long = format!("{{\"{}\":1}}", "x".repeat(100));
    let given = Parameters::from_object(long.as_bytes(), EVENT_STREAM.known_names).unwrap();
    assert_eq!(given.unknown(), [format!("{}...", "x".repeat(60))]);
}

#[test]
fn excess_ids_are_dropped_but_checked() {
    let body = format!("{{\"character_ids\":[{}0]}}", "1,".repeat(200_000));
    let given = Parameters::from_object(body.as_bytes(), EVENT_STREAM.known_names).unwrap();
    assert_eq!(given.ids("character_ids", 50_000).unwrap().len(), 50_001);
    let body = body.replace("0]", "{}]");
    assert_eq!(
        read_stream_body(body.as_bytes(), &[], LIMITS).unwrap_err().message,
        "Invalid character_ids: 'an object' is not a valid integer"
    );
}

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        ".{0,9}".prop_map(Value::from)
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            (".{0,6}", inner).prop_map(|(k, v)| json!({k: v}))
        ]
    })
}

fn names() -> impl Strategy<Value = String> {
    let all: Vec<String> = DIMENSIONS
        .iter()
        .chain(FILTERS)
        .chain(PLUGIN)
        .chain(PAGING)
        .map(|n| (*n).to_owned())
        .chain(["preload_days".into(), "max_age_secs".into()])
        .collect();
    prop::sample::select(all)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]
    #[test]
    fn any_request_is_answered(given in prop::collection::vec((names(), anything()), 0..5), text in prop::collection::vec((names(), ".{0,12}"), 0..5)) {
        let object: Map<String, Value> = given.into_iter().collect();
        let body = Value::from(object).to_string();
        let body = body.as_bytes();
        let _ = (read_stream_body(body, &text, LIMITS), read_history_body(body, &text, LIMITS), read_count_body(body, &text, LIMITS));
        let _ = (read_stream_query(&text, LIMITS), read_history_query(&text, LIMITS), read_count_query(&text, LIMITS));
    }
}
