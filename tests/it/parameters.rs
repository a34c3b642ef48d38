//! Parameters of history, counts, streams and their paths: what is understood, what is told of it, what is refused.
//!
//! Must not know: how a killmail is found.

use serde_json::json;

use crate::support::killmail::SYSTEMS;
use crate::support::server::Setup;

const JITA: u32 = SYSTEMS[0];
const PERIMETER: u32 = SYSTEMS[1];

#[tokio::test]
async fn answers_of_history_echo_the_filter_as_it_was_read() {
    let server = Setup::quiet().start();
    let query =
        format!("system_ids={PERIMETER},{JITA},{JITA}&role=victim&min_value=1e9&since=1637971201&until=2021-11-28T01:00:00%2B01:00");
    let filter = json!({
        "system_ids": [JITA, PERIMETER], "match": "any", "role": "victim", "min_value": 1e9,
        "since": "2021-11-27T00:00:01Z", "until": "2021-11-28T00:00:00Z",
    });
    let body =
        json!({ "system_ids": [PERIMETER, JITA], "role": "victim", "min_value": 1e9, "since": 1_637_971_201, "until": "2021-11-28" });
    for reply in [
        server.get(&format!("/api/v1/killmails?{query}")).await,
        server.get(&format!("/api/v1/killmails/count?{query}")).await,
        server.post("/api/v1/killmails/search", &body).await,
        server.post("/api/v1/killmails/count", &body).await,
    ] {
        assert_eq!(reply.expect(200)["data"]["filter"], filter);
    }
}
