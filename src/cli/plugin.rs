//! `killstream plugin`: lists, uploads, promotes and deletes plugins.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::cli::api::{Api, error_message, escape};
use crate::cli::block_on;
use crate::cli::target::Target;

/// The content type of a component.
const WASM: &str = "application/wasm";
/// How often the state of a slow upload is polled.
const POLL_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List plugins and their versions
    List {
        #[command(flatten)]
        target: Target,
        /// Print the API's response unchanged
        #[arg(long)]
        json: bool,
    },
    /// Upload a component; the first version of a plugin becomes active at once
    Upload {
        /// The plugin's name: lower-case letters, digits and `-`, beginning with a letter
        name: String,
        /// The component (.wasm)
        file: PathBuf,
        #[command(flatten)]
        target: Target,
        /// Make this version active
        #[arg(long)]
        promote: bool,
    },
    /// Make an uploaded version active
    Promote {
        name: String,
        /// The version's digest, `sha256:<hex>`, or at least its first 8 hex digits
        digest: String,
        #[command(flatten)]
        target: Target,
    },
    /// Delete a plugin and all its versions; streams and channels that use it are closed
    Delete {
        name: String,
        #[command(flatten)]
        target: Target,
    },
}

pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    block_on(async {
        let target = match &arguments.command {
            Command::List { target, .. }
            | Command::Upload { target, .. }
            | Command::Promote { target, .. }
            | Command::Delete { target, .. } => target.clone(),
        };
        let api = match arguments.command {
            Command::Upload { .. } => Api::open_or_create(&target).await?,
            _ => Api::open(&target).await?,
        };
        let result = run_command(&api, arguments.command).await;
        api.close().await;
        result
    })
}

async fn run_command(api: &Api, command: Command) -> anyhow::Result<()> {
    match command {
        Command::List { json: true, .. } => println!("{}", api.get("/api/v1/plugins").await?),
        Command::List { .. } => {
            let answer = api.get("/api/v1/plugins").await?;
            for plugin in answer["data"]["plugins"].as_array().context("the response has no plugins")? {
                for version in plugin["versions"].as_array().context("the response has no versions")? {
                    println!("{}", version_line(text(&plugin["name"]), version));
                }
            }
        }
        Command::Upload { name, file, promote, .. } => {
            let bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let plugin = upload(api, &name, bytes, promote).await?;
            println!("{}", version_line(&name, &plugin));
            for warning in plugin["warnings"].as_array().into_iter().flatten() {
                eprintln!("killstream: warning: {}", text(warning));
            }
            if let Some(message) = plugin["message"].as_str() {
                eprintln!("killstream: {message}");
            }
        }
        Command::Promote { name, digest, .. } => {
            let answer = api
                .post(&format!("/api/v1/plugins/{}/promote", escape(&name)), &json!({ "digest": digest }))
                .await?;
            println!("{}", version_line(&name, &answer["data"]));
        }
        Command::Delete { name, .. } => {
            api.request("DELETE", &format!("/api/v1/plugins/{}", escape(&name)), WASM, Bytes::new()).await?;
            println!("{name} deleted");
        }
    }
    Ok(())
}

/// Uploads a component and waits until it is compiled and probed.
async fn upload(api: &Api, name: &str, bytes: Vec<u8>, promote: bool) -> anyhow::Result<Value> {
    let promote = if promote { "?promote=true" } else { "" };
    let answer = api
        .request("PUT", &format!("/api/v1/plugins/{}{promote}", escape(name)), WASM, Bytes::from(bytes))
        .await?;
    let Some(id) = answer["data"]["upload_id"].as_str() else { return Ok(answer["data"].clone()) };
    let path = format!("/api/v1/plugins/uploads/{}", escape(id));
    let mut shown = String::new();
    loop {
        let answer = api.get(&path).await?;
        let upload = &answer["data"];
        match text(&upload["state"]) {
            "accepted" => return Ok(upload["plugin"].clone()),
            "refused" => bail!("{}", error_message(&upload["error"], b"")),
            state => {
                let now = if state == "queued" {
                    format!("queued behind {} others", upload["position"])
                } else {
                    state.to_owned()
                };
                if now != shown {
                    eprintln!("killstream: {name}: {now}");
                    shown = now;
                }
            }
        }
        sleep(POLL_EVERY).await;
    }
}

/// One version: name, digest, state, size, time of upload.
fn version_line(name: &str, version: &Value) -> String {
    let (digest, state, at) =
        (text(&version["digest"]), text(&version["state"]), text(&version["uploaded_at"]));
    format!("{name} {digest} {state} {} bytes {at}", version["size_bytes"])
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
