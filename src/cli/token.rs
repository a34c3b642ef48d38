//! `killstream token`: show the one of a data folder; give out, list and revoke others, each with its scopes.

use anyhow::Context;
use bytes::Bytes;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::api::{Api, escaped};
use crate::cli::block_on;
use crate::cli::target::Target;
use crate::server::token;

const JSON: &str = "application/json";

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the tokens given out, never the tokens themselves.
    List {
        #[command(flatten)]
        target: Target,
    },
    /// Give out a token; it is printed once and kept nowhere.
    Create {
        /// What it is called.
        name: String,
        /// What it lets do; may be given several times.
        #[arg(long, required = true, value_parser = ["admin", "plugins", "killmails", "subscriptions", "events"])]
        scope: Vec<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Take a token back.
    Revoke {
        /// What it is called.
        name: String,
        #[command(flatten)]
        target: Target,
    },
}

/// Without a subcommand: prints `API_TOKEN`, else the token of a data folder, making it if its store has none
/// yet (the folder may be in use); of a server, which keeps its secret, the list.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let command = match arguments.command {
        Some(command) => command,
        None if arguments.target.server.is_some() => Command::List { target: arguments.target },
        None => {
            // `API_TOKEN` takes the place of the file, here as for the server.
            let token = match arguments.target.token.filter(|token| !token.is_empty()) {
                Some(token) => token,
                None => token::of(arguments.target.folder.existing()?)?.0,
            };
            println!("{token}");
            return Ok(());
        }
    };
    let (Command::List { target } | Command::Create { target, .. } | Command::Revoke { target, .. }) =
        &command;
    let target = target.clone();
    block_on(async {
        let api = Api::open(&target).await?;
        let answer = ask(&api, command).await;
        api.close().await;
        answer
    })
}

async fn ask(api: &Api, command: Command) -> anyhow::Result<()> {
    match command {
        Command::List { .. } => {
            let answer = api.get("/api/v1/tokens").await?;
            for token in answer["data"]["tokens"].as_array().context("the answer holds no tokens")? {
                let scopes: Vec<&str> =
                    token["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                println!("{} {} {}", text(&token["name"]), text(&token["created_at"]), scopes.join(","));
            }
        }
        Command::Create { name, scope, .. } => {
            let answer = api.post("/api/v1/tokens", &json!({ "name": name, "scopes": scope })).await?;
            println!("{}", text(&answer["data"]["token"]));
        }
        Command::Revoke { name, .. } => {
            api.ask("DELETE", &format!("/api/v1/tokens/{}", escaped(&name)), JSON, Bytes::new()).await?;
            println!("{name} revoked");
        }
    }
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
