//! Documents with unreadable members: the killmail is stored, and these members are shown over every
//! transport and after every copy.
//!
//! Must not know: how documents are parsed.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::killmail::{began, killmail};
use crate::support::server::{Server, Setup};
use crate::support::until;
use crate::support::upstream::Upstream;

async fn shown(server: &Server, id: u32) -> Value {
    until("the killmail", async || {
        let reply = server.get(&format!("/api/v1/killmail/{id}")).await;
        (reply.status == 200).then(|| reply.json()["data"].clone())
    })
    .await
}

fn odd(id: u32) -> Value {
    let mut document = killmail(id).r2z2();
    document["zkb"]["points"] = json!(1.5);
    document["zkb"]["totalValue"] = json!("5.0");
    document["zkb"]["locationID"] = json!("40046921");
    document["zkb"]["labels"] = json!(["pvp", { "id": null }]);
    document["zkb"]["attackerCount"] = json!("1");
    document["esi"]["war_id"] = json!(1_u64 << 40);
    document["esi"]["victim"]["alliance_id"] = json!(0);
    document["esi"]["victim"]["faction_id"] = json!(-1);
    document["esi"]["victim"]["items"] = json!([
        { "item_type_id": 34, "flag": 5, "singleton": 0, "quantity_dropped": "12" },
        { "item_type_id": 1_u64 << 40, "flag": 5, "singleton": 0, "quantity_destroyed": -1 },
    ]);
    document["esi"]["attackers"][0]["damage_done"] = json!("much");
    document
}

fn check(shown: &Value) {
    let zkb = &shown["zkb"];
    assert_eq!(
        (&zkb["points"], &zkb["labels"], &zkb["absent"]),
        (&json!(0), &json!([]), &json!(["points", "labels"])),
        "{shown}"
    );
    assert_eq!(zkb["unreadable"], json!({ "points": 1.5, "labels": ["pvp", { "id": null }] }));
    assert_eq!(
        (&zkb["totalValue"], &zkb["total_value"], &zkb["locationID"]),
        (&json!(5.0), &json!(5.0), &json!(40_046_921))
    );
    assert_eq!((&zkb["attackerCount"], &shown["total_value"]), (&json!(1), &json!(5.0)));
    assert_eq!((&shown["unreadable"], shown.get("war_id")), (&json!({ "war_id": 1_u64 << 40 }), None));
    let victim = &shown["victim"];
    assert_eq!((&victim["unreadable"], victim.get("alliance_id")), (&json!({ "faction_id": -1 }), None));
    assert_eq!(
        victim["items"][0],
        json!({ "item_type_id": 34, "flag": 5, "singleton": 0, "quantity_dropped": 12 })
    );
    let second = json!({ "item_type_id": 1_u64 << 40, "flag": 5, "singleton": 0, "unreadable": { "quantity_destroyed": -1 } });
    assert_eq!(victim["items"][1], second);
    let attacker = &shown["attackers"][0];
    assert_eq!(
        (&attacker["damage_done"], &attacker["unreadable"]),
        (&json!(0), &json!({ "damage_done": "much" }))
    );
}

#[tokio::test]
async fn a_member_of_another_type_does_no_harm_and_is_shown() {
    let upstream = Upstream::start();
    let mut server = Setup::following(&upstream).start();
    let (mut no_block, mut nobody) = (killmail(2).r2z2(), killmail(3).r2z2());
    no_block["zkb"] = json!("x");
    nobody["esi"]["attackers"] = json!([]);
    let mut stream = server.basic("").await;
    upstream.publish_document(odd(1));
    upstream.publish_document(no_block);
    upstream.publish_document(nobody);
    // Neither a time in milliseconds nor a byte order mark makes a killmail late or unreadable.
    let mut hasty = killmail(4).r2z2();
    hasty["uploaded_at"] = json!(began() * 1000);
    let number = upstream.skip_number();
    upstream.publish_raw(number, format!("\u{feff}{hasty}"));
    for id in 1..=4 {
        assert_eq!(stream.event().await.killmail_id(), Some(id));
    }
    check(&shown(&server, 1).await);
    let bare = shown(&server, 2).await;
    assert_eq!((&bare["unreadable"], &bare["zkb"]["totalValue"]), (&json!({ "zkb": "x" }), &json!(0.0)));
    assert_eq!(shown(&server, 3).await["attacker_count"], 0);
    let fields = json!({
        "attackers.damage_done": 1, "items.quantity_destroyed": 1, "victim.faction_id": 1, "war_id": 1, "zkb": 1, "zkb.labels": 1, "zkb.points": 1,
    });
    assert_eq!(
        server.get("/status").await.expect(200)["metrics"]["parser_stats"]["unreadable_fields"],
        fields
    );
    assert_eq!(
        server.get("/metrics").await.expect(200)["components"]["application"]["unreadable_fields"],
        fields
    );
    let text = server.get("/metrics/prometheus").await.text();
    assert!(text.contains("killstream_unreadable_fields_total{field=\"zkb.points\"} 1\n"), "{text}");
    let log = server.log();
    assert!(log.contains("zkb.points of killmail 1 cannot be read and counts as unknown: 1.5"), "{log}");
    server.restart();
    check(&shown(&server, 1).await);
}

#[tokio::test]
async fn a_member_no_parser_accepts_does_no_harm() {
    let upstream = Upstream::start();
    let server = Setup::following(&upstream).start();
    let mut stream = server.basic("").await;
    let values = [&b"1e999"[..], br#""\ud800""#, b"NaN", b"[\"x\xff\"]"];
    for (id, value) in (1..).zip(values) {
        let mut document = killmail(id).r2z2();
        document["zkb"]["points"] = json!("HERE");
        let text = document.to_string();
        let (before, behind) = text.split_once("\"HERE\"").unwrap();
        let number = upstream.skip_number();
        upstream.publish_raw(number, [before.as_bytes(), value, behind.as_bytes()].concat());
        assert_eq!(stream.event().await.killmail_id(), Some(id.into()));
        let zkb = shown(&server, id).await["zkb"].clone();
        assert_eq!(
            (&zkb["points"], &zkb["unreadable"]),
            (&json!(0), &json!({ "points": String::from_utf8_lossy(value) }))
        );
        // The same for a hand-in.
        let again = server
            .send(Method::POST, "/api/v1/killmails", [before.as_bytes(), value, behind.as_bytes()].concat())
            .await
            .expect(200);
        assert_eq!((&again["data"]["known"], &again["data"]["refused"]), (&json!(1), &json!({})), "{again}");
    }
}

#[tokio::test]
async fn copies_keep_unreadable_members_until_they_can_be_read() {
    let first = Setup::quiet().start();
    let second = Setup::quiet()
        .env("SOURCE", "r2z2")
        .env("R2Z2_BASE_URL", &first.url(""))
        .env("R2Z2_IDLE_MS", "20")
        .start();
    let add = async |server: &Server, body: &str| {
        server.send(Method::POST, "/api/v1/killmails", body).await.expect(200)["data"].clone()
    };
    let report = add(&first, &odd(1).to_string()).await;
    assert_eq!((&report["new"], &report["refused"]), (&json!(1), &json!({})), "{report}");
    // A follower of the mirror shows the same.
    check(&shown(&second, 1).await);
    // So does a store that imports the export.
    let third = Setup::quiet().start();
    let exported = first.send(Method::GET, "/api/v1/export", Vec::new()).await.text();
    assert_eq!(add(&third, &exported).await["new"], 1);
    check(&shown(&third, 1).await);
    assert_eq!((second.digest().await, third.digest().await), (first.digest().await, first.digest().await));
    // Unreadable members change nothing; readable ones fill in.
    assert_eq!(add(&third, &odd(1).to_string()).await["known"], 1);
    let mut plain = odd(1);
    plain["esi"]["attackers"][0]["damage_done"] = json!(1_200);
    plain["esi"]["war_id"] = json!(7);
    plain["zkb"]["points"] = json!(9);
    assert_eq!(add(&third, &plain.to_string()).await["revised"], 1);
    let filled = shown(&third, 1).await;
    assert_eq!(
        (&filled["attackers"][0]["damage_done"], filled["attackers"][0].get("unreadable")),
        (&json!(1_200), None)
    );
    assert_eq!((&filled["war_id"], filled.get("unreadable")), (&json!(7), None));
    assert_eq!((&filled["zkb"]["points"], &filled["zkb"]["absent"]), (&json!(9), &json!(["labels"])));
    assert_eq!(filled["zkb"]["unreadable"], json!({ "labels": ["pvp", { "id": null }] }));
    assert_eq!(add(&third, &odd(1).to_string()).await["known"], 1);
}

#[tokio::test]
async fn only_faults_in_required_members_refuse_a_killmail() {
    let server = Setup::quiet().start();
    let mut refused = Vec::new();
    for (at, member, reason) in [
        ("/killmail_id", json!(1_u64 << 32), "id_out_of_range"),
        ("/solar_system_id", json!(1_u64 << 32), "id_out_of_range"),
        ("/solar_system_id", json!(0), "invalid_system_id"),
        ("/victim", json!("x"), "invalid_victim"),
        ("/attackers", json!({}), "invalid_attackers"),
        ("/killmail_time", json!("soon"), "invalid_time_format"),
    ] {
        let mut body = killmail(1).esi();
        *body.pointer_mut(at).unwrap() = member;
        let report = server.send(Method::POST, "/api/v1/killmails", body.to_string()).await.expect(200);
        refused.push((report["data"]["refused"].clone(), json!({ reason: 1 })));
    }
    for (found, expected) in refused {
        assert_eq!(found, expected);
    }
}
