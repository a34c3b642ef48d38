//! `killstream plugin`: list, upload, promote, delete.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::cli::api::{Api, escaped, told};
use crate::cli::block_on;
use crate::cli::target::Target;

/// A component, as the API takes it.
const WASM: &str = "application/wasm";
/// How often an upload that takes long is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List plugins with their versions.
    List {
        #[command(flatten)]
        target: Target,
        /// Print the API's answer as it is.
        #[arg(long)]
        json: bool,
    },
    /// Upload a component; the first version of a name is active at once.
    Upload {
        /// Its name: lower-case letters, digits and `-`.
        name: String,
        /// The component (.wasm).
        file: PathBuf,
        #[command(flatten)]
        target: Target,
        /// Make this version the active one.
        #[arg(long)]
        promote: bool,
    },
    /// Make an uploaded version the active one.
    Promote {
        /// The plugin.
        name: String,
        /// `sha256:<hex>` of the version, or at least its first 8 hex digits.
        digest: String,
        #[command(flatten)]
        target: Target,
    },
    /// Delete a plugin with all its versions; open readers that use it end.
    Delete {
        /// The plugin.
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
            Command::Upload { .. } => Api::open_or_make(&target).await?,
            _ => Api::open(&target).await?,
        };
        let answer = ask(&api, arguments.command).await;
        api.close().await;
        answer
    })
}

async fn ask(api: &Api, command: Command) -> anyhow::Result<()> {
    match command {
        Command::List { json: true, .. } => println!("{}", api.get("/api/v1/plugins").await?),
        Command::List { .. } => {
            let answer = api.get("/api/v1/plugins").await?;
            for plugin in answer["data"]["plugins"].as_array().context("the answer holds no plugins")? {
                for version in plugin["versions"].as_array().context("the answer holds no versions")? {
                    println!("{}", line(text(&plugin["name"]), version));
                }
            }
        }
        Command::Upload { name, file, promote, .. } => {
            let bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let plugin = upload(api, &name, bytes, promote).await?;
            println!("{}", line(&name, &plugin));
            for warning in plugin["warnings"].as_array().into_iter().flatten() {
                eprintln!("killstream: warning: {}", text(warning));
            }
            if let Some(message) = plugin["message"].as_str() {
                eprintln!("killstream: {message}");
            }
        }
        Command::Promote { name, digest, .. } => {
            let answer = api
                .post(&format!("/api/v1/plugins/{}/promote", escaped(&name)), &json!({ "digest": digest }))
                .await?;
            println!("{}", line(&name, &answer["data"]));
        }
        Command::Delete { name, .. } => {
            api.ask("DELETE", &format!("/api/v1/plugins/{}", escaped(&name)), WASM, Bytes::new()).await?;
            println!("{name} deleted");
        }
    }
    Ok(())
}

/// Uploads a component under a name, and waits until it is compiled and tried.
async fn upload(api: &Api, name: &str, bytes: Vec<u8>, promote: bool) -> anyhow::Result<Value> {
    let promote = if promote { "?promote=true" } else { "" };
    let answer = api
        .ask("PUT", &format!("/api/v1/plugins/{}{promote}", escaped(name)), WASM, Bytes::from(bytes))
        .await?;
    let Some(id) = answer["data"]["upload_id"].as_str() else { return Ok(answer["data"].clone()) };
    let path = format!("/api/v1/plugins/uploads/{}", escaped(id));
    let mut shown = String::new();
    loop {
        let answer = api.get(&path).await?;
        let upload = &answer["data"];
        match text(&upload["state"]) {
            "accepted" => return Ok(upload["plugin"].clone()),
            "refused" => bail!("{}", told(&upload["error"], b"")),
            state => {
                let now = if state == "queued" {
                    format!("queued, {} before it", upload["position"])
                } else {
                    state.to_owned()
                };
                if now != shown {
                    eprintln!("killstream: {name} is still being taken in: {now}");
                    shown = now;
                }
            }
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// One version: name, digest, state, size, when it was uploaded.
fn line(name: &str, version: &Value) -> String {
    let (digest, state, at) =
        (text(&version["digest"]), text(&version["state"]), text(&version["uploaded_at"]));
    format!("{name} {digest} {state} {} bytes {at}", version["size_bytes"])
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
