//! What a command works on: a data folder here, or a running server.

use std::path::PathBuf;

use clap::Args;

/// A data folder, which must be free.
#[derive(Debug, Clone, Args)]
pub struct Folder {
    /// The data folder.
    #[arg(long, env = "DATA_DIR", default_value = "./data")]
    pub data_dir: PathBuf,
}

/// A data folder, or a running server.
#[derive(Debug, Clone, Args)]
pub struct Target {
    #[command(flatten)]
    pub folder: Folder,
    /// Work through a running server instead: http://host:port.
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    /// The server's token; needed for what writes.
    #[arg(long, env = "API_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
}
