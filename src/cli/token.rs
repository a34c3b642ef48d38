//! `killstream token`: prints the admin token of a data folder; creates, lists and revokes tokens with scopes.

use anyhow::Context;
use bytes::Bytes;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::api::{Api, escape};
use crate::cli::block_on;
use crate::cli::target::Target;
use crate::http::request::api_tokens::Scope;
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
    /// List the names and scopes of the tokens created, never the tokens themselves
    List {
        #[command(flatten)]
        target: Target,
    },
    /// Create a token; it is printed once, and only a digest of it is stored
    Create {
        /// A name for the token
        name: String,
        /// What the token permits; can be repeated
        #[arg(long, required = true, value_parser = Scope::ALL.map(Scope::word))]
        scope: Vec<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Revoke a token
    Revoke {
        /// The token's name
        name: String,
        #[command(flatten)]
        target: Target,
    },
}

/// Without a subcommand: prints `API_TOKEN`, else the admin token of the data folder, which is created if
/// missing and may belong to a running server. With `--server`, which does not reveal its token: lists tokens.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let command = match arguments.command {
        Some(command) => command,
        None if arguments.target.server.is_some() => Command::List { target: arguments.target },
        None => {
            // `API_TOKEN` replaces the file, as it does for the server.
            let token = match arguments.target.token.filter(|token| !token.is_empty()) {
                Some(token) => token,
                None => token::read_or_create(arguments.target.folder.require_store()?)?.0,
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
        let result = run_command(&api, command).await;
        api.close().await;
        result
    })
}

async fn run_command(api: &Api, command: Command) -> anyhow::Result<()> {
    match command {
        Command::List { .. } => {
            let answer = api.get("/api/v1/tokens").await?;
            for token in answer["data"]["tokens"].as_array().context("the response has no tokens")? {
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
            api.request("DELETE", &format!("/api/v1/tokens/{}", escape(&name)), JSON, Bytes::new()).await?;
            println!("{name} revoked");
        }
    }
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
