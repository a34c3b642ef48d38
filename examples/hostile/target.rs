//! The server under attack: a child process on a local port, watched from outside.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use killstream::sample::document;
use killstream::sample::generate::Recipe;
use tempfile::TempDir;

use crate::argument;

/// The server's API token.
pub const TOKEN: &str = "hostile";

/// A number of bytes, shown in MiB.
#[derive(Debug, Clone, Copy)]
pub struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0 >> 20)
    }
}

/// A server process; killed on drop.
#[derive(Debug)]
pub struct Target {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Target {
    /// Starts the program with a new data folder, and with a limit of open files if there is one.
    pub async fn start(program: &Path, files: Option<u32>) -> anyhow::Result<Self> {
        Self::configured(program, files, "[ingest]\nsource = \"none\"\n").await
    }

    /// Starts the program so that it follows a feed on this machine as fast as possible.
    pub async fn following(program: &Path, feed: SocketAddr) -> anyhow::Result<Self> {
        let paces = "r2z2_idle_ms = 20\nr2z2_pace_ms = 1\nuser_agent_contact = \"hostile@localhost\"\n";
        Self::configured(
            program,
            None,
            &format!("[ingest]\nsource = \"r2z2\"\nr2z2_base_url = \"http://{feed}\"\n{paces}"),
        )
        .await
    }

    async fn configured(program: &Path, files: Option<u32>, config: &str) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("killstream-hostile-")?;
        let settings = folder.path().join("killstream.toml");
        let further = match argument("--settings") {
            Some(path) => std::fs::read_to_string(&path).with_context(|| path.clone())?,
            None => String::new(),
        };
        std::fs::write(&settings, format!("{config}\n{further}"))?;
        let limit = files.map(|files| format!("ulimit -n {files} && ")).unwrap_or_default();
        let mut child = Command::new("sh")
            .args(["-c", &format!("{limit}exec \"$0\" \"$@\"")])
            .arg(program)
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder.path().join("data"))
            .arg("--config")
            .arg(settings)
            .env("API_TOKEN", TOKEN)
            .env("KILLSTREAM_LOG", "error")
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let stdout = child.stdout.take().context("the child has no stdout")?;
        let line = std::io::BufRead::lines(std::io::BufReader::new(stdout))
            .next()
            .context("the server did not start")??;
        let address = line
            .strip_prefix("listening on http://")
            .with_context(|| format!("no ready line: {line}"))?
            .parse()?;
        Ok(Self { child, address, _folder: folder })
    }

    /// The address it listens on.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds this many killmails to its store.
    pub async fn add_killmails(&self, killmails: u32) -> anyhow::Result<()> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build()?;
        let now = jiff::Timestamp::now().as_second();
        let recipe =
            Recipe { killmails: killmails.into(), revised: 0.0, from: now - 86_400, ..Recipe::default() };
        let made: Vec<_> = recipe.generate().collect();
        for part in made.chunks(500) {
            let lines: Vec<String> =
                part.iter().map(|made| document::r2z2(&made.killmail, made.uploaded_at, 1)).collect();
            let request = client
                .post(format!("http://{}/api/v1/killmails", self.address))
                .bearer_auth(TOKEN)
                .body(lines.join("\n"));
            let response = request.send().await?;
            ensure!(
                response.status().is_success(),
                "the server does not take killmails: {}",
                response.text().await?
            );
        }
        Ok(())
    }

    fn status(&self, name: &str) -> Bytes {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        Bytes(line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or_default() << 10)
    }

    /// Its resident memory.
    pub fn rss(&self) -> Bytes {
        self.status("VmRSS:")
    }

    /// Its peak resident memory.
    pub fn peak_rss(&self) -> Bytes {
        self.status("VmHWM:")
    }

    /// Its exit status, if it has ended.
    pub fn exit_status(&mut self) -> Option<String> {
        self.child.try_wait().ok().flatten().map(|status| status.to_string())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
