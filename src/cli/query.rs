//! `killstream query`: searches the history with the parameters of the API.

use anyhow::Context;
use clap::Args;
use serde_json::Value;

use crate::cli::api::{Api, escape};
use crate::cli::target::Target;
use crate::cli::{UsageError, block_on};
use crate::wire::text;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Parameters of `GET /api/v1/killmails`, such as system_ids=30000142 min_value=1e9 limit=3
    #[arg(value_name = "NAME=VALUE")]
    parameters: Vec<String>,
    #[command(flatten)]
    target: Target,
    /// Print only the number of matching killmails
    #[arg(long)]
    count: bool,
    /// Print the API's response unchanged, instead of a line for each killmail
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut pairs = vec![];
    for parameter in &arguments.parameters {
        let Some((name, value)) = parameter.split_once('=') else {
            return Err(UsageError(format!("expected NAME=VALUE, got `{parameter}`")).into());
        };
        pairs.push(format!("{}={}", escape(name), escape(value)));
    }
    let path = if arguments.count { "/api/v1/killmails/count" } else { "/api/v1/killmails" };
    let path = format!("{path}?{}", pairs.join("&"));
    block_on(async {
        let api = Api::open(&arguments.target).await?;
        let answer = api.get(&path).await;
        api.close().await;
        let answer = answer?;
        if arguments.json {
            println!("{}", to_text(&answer));
        } else if arguments.count {
            println!("{}", answer["data"]["count"]);
        } else {
            for killmail in answer["data"]["killmails"].as_array().context("the response has no killmails")? {
                println!("{}", to_text(killmail));
            }
        }
        if let Some(warning) = fault_warning(&answer["data"]) {
            eprintln!("{warning}");
        }
        Ok(())
    })
}

fn to_text(value: &Value) -> String {
    String::from_utf8_lossy(&text::json(value)).into_owned()
}

/// A warning that the plugin failed on some killmails, which the response therefore lacks.
fn fault_warning(data: &Value) -> Option<String> {
    let counts: Vec<(&String, u64)> =
        data["faults"].as_object()?.iter().filter_map(|(word, n)| Some((word, n.as_u64()?))).collect();
    let sum: u64 = counts.iter().map(|(_, n)| n).sum();
    let words: Vec<String> = counts.iter().map(|(word, n)| format!("{n} {word}")).collect();
    let example = data["fault_example"].as_str().unwrap_or_default();
    (sum > 0).then(|| {
        format!(
            "The plugin failed on {sum} killmails ({}), which are missing from the result. The first failure: {example}.",
            words.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_faults_are_warned_about() {
        let data = json!({ "faults": { "memory": 1, "trap": 2 }, "fault_example": "plugin a failed on killmail 7: trap" });
        let text = "The plugin failed on 3 killmails (1 memory, 2 trap), which are missing from the result. The first failure: plugin a failed on killmail 7: trap.";
        assert_eq!(fault_warning(&data).as_deref(), Some(text));
        let none = [json!({ "faults": {} }), json!({ "count": 3 })].map(|data| fault_warning(&data));
        assert_eq!(none, [None, None]);
    }
}
