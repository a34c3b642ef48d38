//! Parameters of history, counts and streams: which are accepted, which are reported as ignored, and which
//! are refused.
//!
//! Must not know: how a killmail is found.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::channel::{Channel, LOBBY};
use crate::support::killmail::{Build, SYSTEMS, began, killmail};
use crate::support::server::{Server, Setup};
use crate::support::sse::Sse;
use crate::support::upstream::Upstream;

const JITA: u32 = SYSTEMS[0];
const PERIMETER: u32 = SYSTEMS[1];

#[tokio::test]
async fn history_responses_echo_the_filter() {
    let server = Setup::quiet().start();
    let query = format!(
        "system_ids={PERIMETER},{JITA},{JITA}&role=victim&min_value=1e9&since=1637971201&until=2021-11-28T01:00:00%2B01:00"
    );
    let filter = json!({
        "system_ids": [JITA, PERIMETER], "match": "any", "role": "victim", "min_value": 1e9,
        "since": "2021-11-27T00:00:01Z", "until": "2021-11-28T00:00:00Z",
    });
    let body = json!({ "system_ids": [PERIMETER, JITA], "role": "victim", "min_value": 1e9, "since": 1_637_971_201, "until": "2021-11-28" });
    for reply in [
        server.get(&format!("/api/v1/killmails?{query}")).await,
        server.get(&format!("/api/v1/killmails/count?{query}")).await,
        server.post("/api/v1/killmails/search", &body).await,
        server.post("/api/v1/killmails/count", &body).await,
    ] {
        assert_eq!(reply.expect(200)["data"]["filter"], filter);
    }
}

#[tokio::test]
async fn an_unknown_format_is_refused_by_the_kills_api_too() {
    let server = Setup::quiet().start();
    let message = "Invalid format: 'nonsense' is not one of canonical";
    let body = json!({ "system_ids": [JITA] });
    let mut in_body = body.clone();
    in_body["format"] = json!("nonsense");
    for (reply, code) in [
        (server.get(&format!("/api/v1/kills/system/{JITA}?format=nonsense")).await, "INVALID_SYSTEM_ID"),
        (server.get(&format!("/api/v1/kills/cached/{JITA}?format=nonsense")).await, "INVALID_SYSTEM_ID"),
        (server.get(&format!("/api/v1/kills/count/{JITA}?format=nonsense")).await, "INVALID_SYSTEM_ID"),
        (server.get("/api/v1/killmail/5?format=nonsense").await, "INVALID_PARAMETERS"),
        (server.post("/api/v1/kills/systems?format=nonsense", &body).await, "INVALID_PARAMETERS"),
        (server.post("/api/v1/kills/systems", &in_body).await, "INVALID_PARAMETERS"),
    ] {
        let refused = reply.expect(400);
        assert_eq!(
            (&refused["code"], &refused["details"]),
            (&json!(code), &json!({ "field": "format", "message": message })),
            "{refused}"
        );
    }
    server.get(&format!("/api/v1/kills/system/{JITA}?format=canonical")).await.expect(200);
}

const STREAMS: [&str; 2] = ["/api/v1/kills/stream", "/api/v1/kills/stream/enhanced"];

async fn add(server: &Server, killmails: impl Iterator<Item = Build>) {
    let documents: Vec<Value> = killmails.map(Build::r2z2).collect();
    let report =
        server.send(Method::POST, "/api/v1/killmails", json!(documents).to_string()).await.expect(200);
    assert_eq!(report["data"]["new"], documents.len(), "{report}");
}

#[tokio::test]
async fn misspelt_parameters_are_refused_on_every_route() {
    let server = Setup::quiet().start();
    let format = "Invalid format: 'nonsense' is not one of canonical";
    for path in ["/api/v1/killmails", "/api/v1/killmails/count"] {
        let refused = server.get(&format!("{path}?format=nonsense")).await.expect(400);
        assert_eq!((&refused["error"], &refused["details"]["field"]), (&json!(format), &json!("format")));
    }
    for path in STREAMS {
        for (query, message) in [
            ("format=nonsense", format),
            ("systems=30000142", "Unknown parameter: systems; did you mean system_ids?"),
            ("system_id=30000142", "Unknown parameter: system_id; did you mean system_ids?"),
            ("corp_ids=5", "Unknown parameter: corp_ids; did you mean corporation_ids?"),
            ("minvalue=5", "Unknown parameter: minvalue; did you mean min_value?"),
            ("npcs=true", "Unknown parameter: npcs; did you mean npc?"),
            ("charater_ids=5", "Unknown parameter: charater_ids; did you mean character_ids?"),
        ] {
            let refused = server.get(&format!("{path}?{query}")).await.expect(400);
            let error = json!({ "domain": "validation", "type": "invalid_format", "message": message, "details": null, "retryable": false });
            assert_eq!(refused, json!({ "error": error }), "{query}");
        }
        let refused = server.post(path, &json!({ "charater_ids": [5] })).await.expect(400);
        assert_eq!(
            refused["error"]["message"],
            "Unknown parameter: charater_ids; did you mean character_ids?"
        );
    }
}

#[tokio::test]
async fn parameters_without_effect_are_reported() {
    let server = Setup::quiet().start();
    let connected = async |query: &str| server.enhanced(query).await.event_named("connected").await.json();
    let event = connected("nonsense=1&preload_days=9999&_=%0A").await;
    assert_eq!(
        (&event["ignored"], &event["preload"]),
        (&json!(["nonsense", "_"]), &json!({ "skipped": "needs an id list" }))
    );
    assert_eq!(event["filters"]["preload_days"], 90, "the value that is used is reported");
    let plain = connected(&format!("system_ids={JITA}&preload_days=1")).await;
    assert!(plain.get("ignored").is_none() && plain.get("preload").is_none(), "{plain}");
    let mut basic = server.basic("nonsense=1&b%0Adata:%20x=2&preload_days=3").await;
    basic.next_block().await;
    let opening = basic.next_block().await.unwrap();
    let comments =
        ["connected", "preload skipped: needs an id list", r#"ignored: ["nonsense","b\ndata: x"]"#];
    assert!(opening.comments == comments && opening.data.is_none() && opening.id.is_some(), "{opening:?}");
}

#[tokio::test]
async fn a_join_reports_misspelt_and_ignored_parameters() {
    let server = Setup::quiet().start();
    let mut channel = Channel::v2(server.address()).await;
    for (payload, message) in [
        (
            json!({ "charater_ids": [5] }),
            "[validation:invalid_charater_ids] Unknown parameter: charater_ids; did you mean character_ids?",
        ),
        (
            json!({ "format": "nonsense" }),
            "[validation:invalid_format] Invalid format: 'nonsense' is not one of canonical",
        ),
    ] {
        let refused = channel.ask(json!(["1", "2", LOBBY, "phx_join", payload])).await;
        assert_eq!(refused[4], json!({ "status": "error", "response": { "reason": message } }));
    }
    let joined = channel.join(json!({ "systems": [JITA], "nonsense": 1, "preload_days": 3 })).await;
    assert_eq!(
        (&joined["status"], &joined["ignored"]),
        (&json!("connected"), &json!(["nonsense", "preload_days"])),
        "{joined}"
    );
}

#[tokio::test]
async fn times_restrict_a_stream_in_preload_and_live() {
    let upstream = Upstream::start();
    let server = Setup::following(&upstream).start();
    add(&server, [(1, 7200), (2, 5400), (3, 600)].into_iter().map(|(id, ago)| killmail(id).ago(ago))).await;
    let query =
        format!("system_ids={JITA}&preload_days=1&since={}&until={}000", began() - 6000, began() - 60);
    let mut enhanced = server.enhanced(&query).await;
    let mut basic = server.basic(&query).await;
    assert_eq!(basic.killmails(2).await, [2, 3]);
    assert_eq!(enhanced.event_named("batch").await.json()["count"], 2);
    enhanced.event_named("transition").await;
    upstream.publish(killmail(10).ago(5));
    upstream.publish(killmail(11).ago(120));
    assert_eq!((basic.killmails(1).await, enhanced.killmails(1).await), (vec![11], vec![11]));
}

#[tokio::test]
async fn batches_are_as_long_as_a_client_can_read() {
    let server = Setup::quiet().start();
    add(&server, (1..=60).map(|id| killmail(id).ago(600))).await;
    for (key, max_bytes) in [(None, 16_384), (Some("kills"), 16_384), (Some("killmails"), 65_536)] {
        let named = key.map(|key| format!("&batch_key={key}")).unwrap_or_default();
        let mut stream = server
            .enhanced(&format!("system_ids={JITA}&preload_days=1&batch_max_bytes={max_bytes}{named}"))
            .await;
        let (mut killmails, mut numbers) = (0, Vec::new());
        loop {
            let block = stream.event_named("batch").await;
            assert!(block.raw.lines().all(|line| line.len() < max_bytes), "{key:?}: {}", block.raw.len());
            let batch = block.json();
            assert_eq!(
                (batch.get("kills").is_some(), batch.get("killmails").is_some()),
                (key != Some("killmails"), key != Some("kills"))
            );
            killmails += batch[key.unwrap_or("kills")].as_array().unwrap().len();
            numbers.push((batch["batch_number"].as_u64().unwrap(), batch["total_batches"].as_u64().unwrap()));
            if batch["last"] == true {
                break;
            }
        }
        let total = numbers.len() as u64;
        assert_eq!(
            (killmails, numbers),
            (60, (1..=total).map(|number| (number, total)).collect()),
            "{key:?}"
        );
        assert!(total > 1, "{key:?}");
    }
}

#[tokio::test]
async fn a_stream_resumes_by_every_name_of_the_last_id() {
    let upstream = Upstream::start();
    let server = Setup::following(&upstream).start();
    let mut first = server.basic("").await;
    upstream.publish(killmail(1));
    let place = first.event().await.id.unwrap();
    upstream.publish(killmail(2));
    first.event().await;
    for name in ["last_event_id", "lastEventId", "Last-Event-ID", "evs_last_event_id"] {
        assert_eq!(server.basic(&format!("{name}={place}")).await.killmails(1).await, [2], "{name}");
        let path = format!("/api/v1/kills/stream?{name}=nonsense");
        assert_eq!(
            Sse::get(server.address(), &path, &[("last-event-id", &place)]).await.killmails(1).await,
            [2],
            "the header wins"
        );
    }
}

#[tokio::test]
async fn repeated_keys_are_one_list_and_milliseconds_are_times() {
    let server = Setup::quiet().start();
    add(
        &server,
        [(1, JITA), (2, PERIMETER), (3, SYSTEMS[2])]
            .into_iter()
            .map(|(id, system)| killmail(id).ago(600).system(system)),
    )
    .await;
    let query = format!("system_ids={JITA}&system_ids={PERIMETER}");
    let found =
        server.get(&format!("/api/v1/killmails?{query}&since={}000", began() - 3600)).await.expect(200);
    assert_eq!(
        (&found["data"]["count"], &found["data"]["filter"]["system_ids"]),
        (&json!(2), &json!([JITA, PERIMETER]))
    );
    assert_eq!(
        server.get(&format!("/api/v1/killmails?since={}000000", began())).await.expect(400)["details"]["field"],
        "since"
    );
    assert_eq!(server.basic(&format!("{query}&preload_days=1")).await.killmails(2).await, [1, 2]);
}
