//! Queries the history page by page, and sums up the ISK lost.
//!
//!     cargo run --release --example history_query -- [SERVER] [QUERY]
//!
//! By default it asks http://localhost:4004 for losses of at least 50 million ISK, oldest first, 100 per page. The
//! cursor pins the head of the log at the first page, so no killmail is repeated or missed while new ones arrive.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::Client;
use serde_json::Value;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let server = arguments.next().unwrap_or_else(|| "http://localhost:4004".to_owned());
    let query = arguments.next().unwrap_or_else(|| "min_value=50000000&order=oldest&limit=100".to_owned());
    // Fails if a provider is installed already, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().timeout(Duration::from_secs(60)).build()?;

    let (mut killmails, mut isk, mut cursor) = (0, 0.0, None);
    loop {
        let page = page(&client, &server, &query, cursor.as_deref()).await?;
        for killmail in page["data"]["killmails"].as_array().into_iter().flatten() {
            let value = killmail["zkb"]["totalValue"].as_f64().unwrap_or_default();
            (killmails, isk) = (killmails + 1, isk + value);
            println!(
                "{} {} in {}: {value:.0} ISK",
                killmail["killmail_id"], killmail["kill_time"], killmail["solar_system_id"]
            );
        }
        cursor = page["data"]["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    println!("{killmails} killmails, {isk:.0} ISK");
    Ok(())
}

async fn page(client: &Client, server: &str, query: &str, cursor: Option<&str>) -> anyhow::Result<Value> {
    let cursor = cursor.map_or_else(String::new, |cursor| format!("&cursor={cursor}"));
    let response = client.get(format!("{server}/api/v1/killmails?{query}{cursor}")).send().await?;
    let status = response.status();
    let body: Value = serde_json::from_slice(&response.bytes().await?)
        .with_context(|| format!("{status} with a body that is not JSON"))?;
    if !status.is_success() {
        bail!("{status}: {body}");
    }
    Ok(body)
}
