//! Uploads a plugin, queries the history with it, and prints the killmails it kept.
//!
//!     cargo run --release -- demo                       # prints the token
//!     cargo run --release --example plugin_upload -- TOKEN [SERVER] [NAME] [FILE] [CONFIG]
//!
//! By default it uploads `plugins/prebuilt/high-value.wasm` to http://localhost:4004 as `my-high-value` and queries
//! losses of at least 100 million ISK.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::{Client, Response};
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let token = arguments.next().context("the first argument is the server's token")?;
    let mut next = |default: &str| arguments.next().unwrap_or_else(|| default.to_owned());
    let server = next("http://localhost:4004");
    let name = next("my-high-value");
    let file = next("plugins/prebuilt/high-value.wasm");
    let config = next(r#"{"min_isk":100000000}"#);
    // Fails if a provider is installed already, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().timeout(Duration::from_secs(60)).build()?;

    let component = std::fs::read(&file).with_context(|| format!("cannot read {file}"))?;
    let url = format!("{server}/api/v1/plugins/{name}");
    // Without `promote=true`, a new version of an existing plugin would not become active.
    let request = client.put(format!("{url}?promote=true")).bearer_auth(&token).body(component);
    let uploaded = json_of(request.send().await?).await?;
    println!(
        "{} is {} ({} bytes)",
        uploaded["data"]["name"], uploaded["data"]["state"], uploaded["data"]["size_bytes"]
    );

    let query =
        json!({ "plugin": name, "plugin_config": serde_json::from_str::<Value>(&config)?, "limit": 20 });
    let request =
        client.post(format!("{server}/api/v1/killmails/search")).header("content-type", "application/json");
    let found = json_of(request.body(query.to_string()).send().await?).await?;
    for killmail in found["data"]["killmails"].as_array().into_iter().flatten() {
        println!("{} {} {}", killmail["killmail_id"], killmail["kill_time"], killmail["enriched"][&name]);
    }
    let counted = json_of(client.get(&url).send().await?).await?;
    let counts = &counted["data"];
    println!(
        "{} calls, {} kept, {} dropped, faults {}",
        counts["calls"], counts["keeps"], counts["drops"], counts["faults"]
    );
    Ok(())
}

/// The JSON of a response; an error with the server's message if it is not 2xx.
async fn json_of(response: Response) -> anyhow::Result<Value> {
    let status = response.status();
    let body: Value = serde_json::from_slice(&response.bytes().await?)
        .with_context(|| format!("{status} with a body that is not JSON"))?;
    if !status.is_success() {
        bail!("{status}: {body}");
    }
    Ok(body)
}
