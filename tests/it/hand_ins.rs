//! Killmails handed in by POST: named only, malformed, or both; each gets its own result.
//!
//! Must not know: how bodies are fetched or refused documents stored.

use std::fs;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::killmail::killmail;
use crate::support::server::{Server, Setup, TOKEN};
use crate::support::until;
use crate::support::upstream::{Canned, Upstream};

fn hash(id: u32) -> String {
    format!("{id:040x}")
}

/// Makes the fake ESI return the body of a killmail.
fn body(upstream: &Upstream, id: u32) {
    upstream.answer(&format!("/killmails/{id}/{}", hash(id)), Canned::json(&killmail(id).esi()));
}

async fn add(server: &Server, body: &str) -> Value {
    server.send(Method::POST, "/api/v1/killmails", body).await.expect(200)["data"].clone()
}

async fn stored(server: &Server, id: u32) {
    until("a killmail to be fetched", async || {
        let reply = server.get(&format!("/api/v1/killmail/{id}")).await;
        (reply.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn killmails_are_handed_in_by_name_in_every_format() {
    let upstream = Upstream::start();
    (1..=5).for_each(|id| body(&upstream, id));
    let server = Setup::following(&upstream).start();
    let documents = json!([
        { "killmail_id": 1, "hash": hash(1) },
        { "killmail_id": 2, "zkb": { "hash": hash(2), "totalValue": 5e6 } },
        { "url": format!("https://esi.evetech.net/latest/killmails/3/{}/", hash(3)) },
        { "url": format!("https://zkillboard.com/api/killmail/add/4/{}/", hash(4)) },
        killmail(6).esi(),
        { "killmail_id": 1, "hash": hash(1) },
    ]);
    let report = add(&server, &documents.to_string()).await;
    let expected = json!({ "new": 1, "revised": 0, "known": 0, "conflict": 0, "refused": {}, "fetching": 4, "refused_documents": [] });
    assert_eq!(report, expected, "a killmail that is named repeatedly is fetched once");
    for id in 1..=4 {
        stored(&server, id).await;
    }
    // A stored killmail is not fetched.
    let again =
        add(&server, &format!("{}\n{}", documents[0], json!({ "killmail_id": 5, "hash": hash(5) }))).await;
    assert_eq!((&again["known"], &again["fetching"]), (&json!(1), &json!(1)), "{again}");
    // Imports of files behave the same.
    let file = server.setup().folder().join("names.ndjson");
    fs::write(&file, format!("{}\n", documents[2])).unwrap();
    let url = server.url("");
    let arguments = ["--json", file.to_str().unwrap(), "--server", &url, "--token", TOKEN];
    let output = server.setup().command("import").args(arguments).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["known"]), (Some(0), &json!(1)), "{report}");
}

#[tokio::test]
async fn without_a_contact_names_are_refused() {
    let setup = Setup::quiet().env("ESI_BASE_URL", "https://esi.evetech.net").env("USER_AGENT_CONTACT", "");
    let server = setup.start();
    let report = add(&server, &json!({ "killmail_id": 1, "hash": hash(1) }).to_string()).await;
    assert_eq!(
        (&report["refused"], &report["fetching"]),
        (&json!({ "no_contact": 1 }), &json!(0)),
        "{report}"
    );
    let told = &report["refused_documents"][0];
    assert_eq!(
        (&told["index"], &told["killmail_id"], &told["reason"]),
        (&json!(0), &json!(1), &json!("no_contact"))
    );
    assert!(told["message"].as_str().unwrap().contains("USER_AGENT_CONTACT"), "{told}");
}

#[tokio::test]
async fn refused_documents_are_listed_one_by_one() {
    let server = Setup::quiet().start();
    let mut without_victim = killmail(2).esi();
    without_victim.as_object_mut().unwrap().remove("victim");
    let lines = [
        killmail(1).esi().to_string(),
        without_victim.to_string(),
        "{\"cut".to_owned(),
        killmail(3).esi().to_string(),
    ];
    let report = add(&server, &format!("\u{feff}{}", lines.join("\n"))).await;
    assert_eq!(
        (&report["new"], &report["refused"]),
        (&json!(2), &json!({ "missing_fields": 1, "malformed_json": 1 })),
        "{report}"
    );
    let documents = report["refused_documents"].as_array().unwrap();
    let keys = |at: usize| documents[at].as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(keys(0), ["field", "index", "killmail_id", "message", "reason"]);
    assert_eq!(
        (&documents[0]["index"], &documents[0]["killmail_id"], &documents[0]["field"]),
        (&json!(1), &json!(2), &json!("victim"))
    );
    assert_eq!(keys(1), ["index", "message", "reason"]);
    assert_eq!((&documents[1]["index"], &documents[1]["reason"]), (&json!(2), &json!("malformed_json")));
    // At most a hundred are listed, but all are counted.
    let many = "{\"killmail_id\":7}\n".repeat(130);
    let report = add(&server, &many).await;
    assert_eq!(report["refused"]["missing_fields"], 130);
    assert_eq!(report["refused_documents"].as_array().unwrap().len(), 100);
    assert_eq!(report["refused_documents"][99]["index"], 99);
}
