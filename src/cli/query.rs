//! `killstream query`: history on the command line, with the names of the API.

use anyhow::Context;
use clap::Args;
use serde_json::Value;

use crate::cli::api::{Api, escaped};
use crate::cli::block_on;
use crate::cli::target::Target;
use crate::config::Mistakes;
use crate::wire::text;

#[derive(Debug, Args)]
pub struct Arguments {
    /// What to ask, with the names of `GET /api/v1/killmails`: system_ids=30000142 min_value=1e9 limit=3.
    #[arg(value_name = "NAME=VALUE")]
    parameters: Vec<String>,
    #[command(flatten)]
    target: Target,
    /// Only how many there are.
    #[arg(long)]
    count: bool,
    /// Print the API's answer as it is, not a line for each killmail.
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut pairs = vec![];
    for parameter in &arguments.parameters {
        let Some((name, value)) = parameter.split_once('=') else {
            return Err(Mistakes(vec![format!("`{parameter}` is no NAME=VALUE")]).into());
        };
        pairs.push(format!("{}={}", escaped(name), escaped(value)));
    }
    let path = if arguments.count { "/api/v1/killmails/count" } else { "/api/v1/killmails" };
    let path = format!("{path}?{}", pairs.join("&"));
    block_on(async {
        let api = Api::open(&arguments.target).await?;
        let answer = api.get(&path).await;
        api.close().await;
        let answer = answer?;
        if arguments.json {
            println!("{}", shown(&answer));
        } else if arguments.count {
            println!("{}", answer["data"]["count"]);
        } else {
            for killmail in answer["data"]["killmails"].as_array().context("the answer holds no killmails")? {
                println!("{}", shown(killmail));
            }
        }
        Ok(())
    })
}

fn shown(value: &Value) -> String {
    String::from_utf8_lossy(&text::json(value)).into_owned()
}
