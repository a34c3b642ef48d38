//! `killstream export`.

use std::fs::File;
use std::io::{BufWriter, Write, stdout};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde_json::Value;

use crate::cli::api::{Api, escape};
use crate::cli::target::Target;
use crate::cli::{block_on, progress};
use crate::wire::text;

#[derive(Debug, Args)]
pub struct Arguments {
    /// The file to write; stdout if omitted
    file: Option<PathBuf>,
    #[command(flatten)]
    target: Target,
}

pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    block_on(async {
        let api = Api::open(&arguments.target).await?;
        // Only once there is something to export from: an existing file is overwritten.
        let mut out: Box<dyn Write> = match &arguments.file {
            Some(path) => {
                Box::new(File::create(path).with_context(|| format!("cannot write {}", path.display()))?)
            }
            None => Box::new(stdout()),
        };
        let mut out = BufWriter::new(&mut out);
        let written = write(&api, &mut out).await;
        out.flush()?;
        api.close().await;
        written
    })
}

async fn write(api: &Api, out: &mut impl Write) -> anyhow::Result<()> {
    let count = api.get("/api/v1/killmails/count").await?["data"]["count"].as_u64().unwrap_or(0);
    let bar = progress::count(count, "export");
    let mut cursor: Option<String> = None;
    loop {
        let after = cursor.map(|cursor| format!("&cursor={}", escape(&cursor))).unwrap_or_default();
        let page = api.get(&format!("/api/v1/killmails?order=oldest&limit=1000{after}")).await?;
        let killmails = page["data"]["killmails"].as_array().map(Vec::as_slice).unwrap_or_default();
        for killmail in killmails {
            out.write_all(&text::json(killmail))?;
            out.write_all(b"\n")?;
        }
        bar.inc(killmails.len() as u64);
        cursor = match &page["data"]["next_cursor"] {
            Value::String(cursor) => Some(cursor.clone()),
            _ => break,
        };
    }
    bar.finish_and_clear();
    Ok(())
}
