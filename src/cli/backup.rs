//! `killstream backup`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};
use tar::Archive;
use tokio::sync::mpsc::{Receiver, channel};

use crate::cli::api::{Api, told};
use crate::cli::target::Target;
use crate::cli::{block_on, progress};
use crate::http::routes::backup::LAST;
use crate::ingest::client;
use crate::store::engine::data_folder;
use crate::{store, tasks, wire};

/// A backup may be large and the line slow.
const TIMEOUT: Duration = Duration::from_secs(86_400);
/// Pieces of the archive waiting for the disk.
const PIECES_MAX: usize = 16;
const REFUSAL_MAX_BYTES: usize = 1 << 20;

#[derive(Debug, Args)]
pub struct Arguments {
    /// The folder to be made; empty, or not there yet.
    dest: PathBuf,
    #[command(flatten)]
    target: Target,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// What a backup holds.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Held {
    killmails: u64,
    head: u64,
    bytes: u64,
}

/// Copies the store of a data folder or of a running server into another folder, from which a server can be
/// started.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Held { killmails, head, bytes } = match &arguments.target.server {
        Some(server) => {
            let server = server.clone();
            block_on(from_server(&server, &arguments))?
        }
        None => from_folder(&arguments)?,
    };
    if arguments.json {
        println!("{}", json!({ "killmails": killmails, "head": head, "bytes": bytes }));
    } else {
        println!("{killmails} killmails, {bytes} bytes");
    }
    Ok(())
}

fn from_folder(arguments: &Arguments) -> anyhow::Result<Held> {
    let dir = arguments.target.folder.existing()?.to_owned();
    let bars = progress::Bars::default();
    let config = store::config::Config { dir, ..store::config::Config::default() };
    let store = store::Store::open(config, wire::killmail::encode)?;
    let backup = store.backup(&arguments.dest, &|step| bars.show(step))?;
    bars.clear();
    Ok(Held { killmails: backup.killmails, head: backup.head, bytes: backup.bytes })
}

/// Takes the archive a server sends and unpacks it as it comes. What came of one that broke off is removed.
async fn from_server(server: &str, arguments: &Arguments) -> anyhow::Result<Held> {
    let dest = arguments.dest.clone();
    store::upkeep::backup::require_empty(&dest)?;
    let unpacked = take(server, arguments).await;
    if unpacked.is_err() {
        fs::remove_dir_all(&dest)
            .with_context(|| format!("cannot remove what came of the backup in {}", dest.display()))?;
    }
    unpacked
}

async fn take(server: &str, arguments: &Arguments) -> anyhow::Result<Held> {
    let Api::Remote { client, base, token } = Api::open(&arguments.target).await? else {
        bail!("no server was named")
    };
    let mut request = client.post(format!("{base}/api/v1/backup")).timeout(TIMEOUT);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let mut response = request.send().await.with_context(|| format!("{server} does not answer"))?;
    let status = response.status();
    if !status.is_success() {
        let body = client::body(response, REFUSAL_MAX_BYTES).await?;
        let answer: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        bail!("POST /api/v1/backup: {} {}", status.as_u16(), told(&answer, &body));
    }
    let (sender, pieces) = channel(PIECES_MAX);
    let dest = arguments.dest.clone();
    let unpacking =
        tasks::blocking("unpack", move || unpack(Pieces { coming: pieces, now: Bytes::new() }, &dest));
    let bar = progress::bytes(0, "backup");
    let receiving = async {
        while let Some(piece) = response.chunk().await.context("the backup broke off")? {
            bar.inc(piece.len() as u64);
            if sender.send(piece).await.is_err() {
                // Whoever unpacks says why.
                break;
            }
        }
        drop(sender);
        anyhow::Ok(())
    };
    let (received, unpacked) = tokio::join!(receiving, unpacking);
    bar.finish_and_clear();
    received?;
    unpacked?
}

/// Pieces of the body, read as one.
struct Pieces {
    coming: Receiver<Bytes>,
    now: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.now.is_empty() {
            let Some(next) = self.coming.blocking_recv() else { return Ok(0) };
            self.now = next;
        }
        let length = into.len().min(self.now.len());
        into[..length].copy_from_slice(&self.now.split_to(length));
        Ok(length)
    }
}

/// Writes an archive into a folder; on disk when it returns.
fn unpack(from: impl Read, dest: &Path) -> anyhow::Result<Held> {
    let mut held = None;
    for entry in Archive::new(from).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        if path == Path::new(LAST) {
            held = Some(serde_json::from_reader(&mut entry)?);
            continue;
        }
        if !path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            bail!("the archive names {}, which is outside of the backup", path.display());
        }
        let path = dest.join(path);
        if entry.header().entry_type().is_dir() {
            data_folder::make(&path).with_context(|| format!("cannot make {}", path.display()))?;
            continue;
        }
        let mut file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        io::copy(&mut entry, &mut file)?;
        file.sync_all()?;
    }
    store::upkeep::backup::sync(dest)?;
    held.context("the backup broke off")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn archive(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, text) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            // Names that the library itself would not write.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            archive.append(&header, text.as_bytes()).unwrap();
        }
        archive.into_inner().unwrap()
    }

    #[test]
    fn a_part_is_not_taken_for_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        let whole = archive(&[("db", "x"), (LAST, r#"{"killmails":1,"head":2,"bytes":3}"#)]);
        assert_eq!(unpack(&whole[..], folder.path()).unwrap().head, 2);
        assert_eq!(fs::read_to_string(folder.path().join("db")).unwrap(), "x");
        let part = archive(&[("db", "x")]);
        assert!(unpack(&part[..], folder.path()).unwrap_err().to_string().contains("broke off"));
        assert!(unpack(&whole[..700], folder.path()).is_err());
    }

    #[test]
    fn a_folder_in_a_backup_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_dir("plugins", folder.path()).unwrap();
        // No last entry, so it ends as one that broke off.
        unpack(&archive.into_inner().unwrap()[..], folder.path()).unwrap_err();
        assert_eq!(fs::metadata(folder.path().join("plugins")).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn nothing_is_written_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        for name in ["../outside", "/outside-of-it", "a/../../outside"] {
            let error = unpack(&archive(&[(name, "x")])[..], &inner).unwrap_err();
            assert!(error.to_string().contains("outside of the backup"), "{name}: {error}");
        }
        assert!(!folder.path().join("outside").exists());
    }
}
