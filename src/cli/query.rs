//! `killstream query`: history on the command line, with the names of the API.

use anyhow::Context;
use clap::Args;
use serde_json::Value;

use crate::cli::api::{Api, escaped};
use crate::cli::target::Target;
use crate::cli::{UsageError, block_on};
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
            return Err(UsageError(format!("expected NAME=VALUE, got `{parameter}`")).into());
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
        if let Some(text) = hidden(&answer["data"]) {
            eprintln!("{text}");
        }
        Ok(())
    })
}

fn shown(value: &Value) -> String {
    String::from_utf8_lossy(&text::json(value)).into_owned()
}

/// That a plugin failed on killmails, which then are missing.
fn hidden(data: &Value) -> Option<String> {
    let counts: Vec<(&String, u64)> =
        data["faults"].as_object()?.iter().filter_map(|(word, n)| Some((word, n.as_u64()?))).collect();
    let sum: u64 = counts.iter().map(|(_, n)| n).sum();
    let words: Vec<String> = counts.iter().map(|(word, n)| format!("{n} {word}")).collect();
    let example = data["fault_example"].as_str().unwrap_or_default();
    (sum > 0).then(|| {
        format!(
            "The plugin failed on {sum} killmails ({}), which are missing here. The first: {example}.",
            words.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn faults_are_told_and_no_faults_are_not() {
        let data = json!({ "faults": { "memory": 1, "trap": 2 }, "fault_example": "plugin a failed on killmail 7: trap" });
        let text = "The plugin failed on 3 killmails (1 memory, 2 trap), which are missing here. The first: plugin a failed on killmail 7: trap.";
        assert_eq!(hidden(&data).as_deref(), Some(text));
        assert_eq!((hidden(&json!({ "faults": {} })), hidden(&json!({ "count": 3 }))), (None, None));
    }
}
