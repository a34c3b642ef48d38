//! The server in a separate process: this program, started again to serve.
//!
//! Must not know: who connects.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{self, Command, Stdio};

use anyhow::{Context, ensure};
use killstream::server::{self, Signals};
use killstream::telemetry::source_kind::SourceKind;

use crate::support::{argument, config, rss_bytes};

/// Runs the server until a signal; reads `--feed` and `--listen` from the command line.
pub async fn serve(folder: &Path) -> anyhow::Result<()> {
    let mut config = config(folder);
    if let Some(feed) = argument("--feed") {
        config.ingest.source = SourceKind::R2z2;
        config.ingest.user_agent_contact = Some("load@localhost".to_owned());
        config.ingest.r2z2_base_url = feed;
        (config.ingest.r2z2_idle_ms, config.ingest.r2z2_pace_ms) = (20, 1);
    }
    if let Some(listen) = argument("--listen") {
        config.server.port = listen.parse::<SocketAddr>()?.port();
    }
    let signals = Signals::listen()?;
    let running = server::start(config).await?;
    println!("{}", running.addr());
    running.run_until_signal(signals, || ()).await;
    Ok(())
}

/// A server process; killed when dropped.
#[derive(Debug)]
pub struct Child {
    child: process::Child,
    address: SocketAddr,
}

impl Child {
    /// Starts a server on a folder and waits until it is ready.
    pub fn start(
        folder: &Path,
        feed: Option<SocketAddr>,
        listen: Option<SocketAddr>,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--serve").arg(folder).stdout(Stdio::piped());
        if let Some(feed) = feed {
            command.arg("--feed").arg(format!("http://{feed}"));
        }
        if let Some(listen) = listen {
            command.arg("--listen").arg(listen.to_string());
        }
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().context("the child has no stdout")?;
        // Blocking: there is nothing else to do until the server is ready.
        let line = BufReader::new(stdout).lines().next().context("the server did not start")??;
        Ok(Self { child, address: line.parse()? })
    }

    /// The address it listens on.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its resident memory, bytes.
    pub fn rss_bytes(&self) -> u64 {
        rss_bytes(self.child.id())
    }

    /// Shuts it down with SIGTERM.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        Command::new("kill").arg(self.child.id().to_string()).status()?;
        ensure!(self.child.wait()?.success(), "the server did not shut down cleanly");
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Fails if it has exited already, as it should have.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
