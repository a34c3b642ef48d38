//! The server as a process of its own: this program again, told to serve.
//!
//! Must not know: who connects.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{self, Command, Stdio};

use anyhow::{Context, ensure};
use killstream::ingest::config::Kind;
use killstream::server::{self, Signals};

use crate::support::{argument, config, rss_bytes};

/// Runs the server until it is told to stop; `--feed` and `--listen` are read from the command line.
pub async fn serve(folder: &Path) -> anyhow::Result<()> {
    let mut config = config(folder);
    if let Some(feed) = argument("--feed") {
        config.ingest.source = Kind::R2z2;
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

/// A server; killed when dropped.
#[derive(Debug)]
pub struct Child {
    child: process::Child,
    address: SocketAddr,
}

impl Child {
    /// Starts it on a folder and waits until it is ready.
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
        let stdout = child.stdout.take().context("the child has an output")?;
        // Until the server answers there is nothing else to do.
        let line = BufReader::new(stdout).lines().next().context("the server did not start")??;
        Ok(Self { child, address: line.parse()? })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its memory in RAM, bytes.
    pub fn rss_bytes(&self) -> u64 {
        rss_bytes(self.child.id())
    }

    /// Stops it in order.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        Command::new("kill").arg(self.child.id().to_string()).status()?;
        ensure!(self.child.wait()?.success(), "the server did not stop in order");
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It has ended already where all went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
