//! Sources that may not or cannot run.
//!
//! Must not know: how a source is followed.

use serde_json::json;

use crate::sources::{source, stored};
use crate::support::killmail::killmail;
use crate::support::server::Setup;
use crate::support::until;
use crate::support::upstream::Upstream;

#[tokio::test]
async fn a_source_that_may_not_run_stays_off_visibly() {
    let upstream = Upstream::start();
    let config = source("r2z2", "https://r2z2.zkillboard.com", "name = \"zkillboard\"\nwhen = \"always\"");
    let server = Setup::following(&upstream).env("USER_AGENT_CONTACT", "").config(&config).start();
    upstream.publish(killmail(1));
    stored(&server, 1).await;
    until("the log line", async || server.log().contains("the source zkillboard stays off: ").then_some(()))
        .await;
    let health = server.get("/health").await.expect(200);
    let other = &health["details"]["sources"][0];
    assert_eq!((&other["name"], &other["state"]), (&json!("zkillboard"), &json!("refused")));
    assert!(
        other["reason"].as_str().unwrap().contains("r2z2_idle_ms"),
        "too fast for the real host: {other}"
    );
}

#[tokio::test]
async fn an_invalid_source_is_refused_at_start() {
    let setup = Setup::quiet()
        .config("[[sources]]\nkind = \"websocket\"\nurl = \"http://x\"\n[[sources]]\nkind = \"carrier-pigeon\"\nurl = \"x\"\n");
    let (status, log) = setup.try_start().unwrap_err();
    assert_eq!(status.code(), Some(2), "{log}");
    assert!(log.contains("carrier-pigeon"), "{log}");
    let (_, log) = Setup::quiet()
        .config("[[sources]]\nkind = \"websocket\"\nurl = \"http://x\"\n")
        .try_start()
        .unwrap_err();
    assert!(
        log.contains("`http://x` does not begin with ws:// or wss://")
            && log.contains("no first source it could stand in for"),
        "{log}"
    );
}
