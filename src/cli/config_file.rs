//! The configuration of commands that take `--config`.

use std::path::Path;

use anyhow::Context;
use toml::Value;

use crate::config::{self, Config, File};

/// Merges the file, the environment of the process and settings from flags, and logs which settings were given
/// under an old name.
pub fn load(path: Option<&Path>, flags: Vec<(&'static str, Value)>) -> anyhow::Result<Config> {
    let text = path
        .map(|path| std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display())))
        .transpose()?;
    let name = path.map(|path| path.display().to_string());
    let file = name.as_deref().zip(text.as_deref()).map(|(name, text)| File { name, text });
    let config = config::gather(file, &|name| std::env::var(name).ok(), flags)?;
    for renamed in &config.renamed {
        tracing::warn!("config key {} is now {}", renamed.old, renamed.new);
    }
    Ok(config)
}
