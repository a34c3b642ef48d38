//! `killstream backup`: copies the store of a data folder, or of a running server, into another folder.

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

use crate::cli::api::{Api, error_message};
use crate::cli::target::Target;
use crate::cli::{block_on, progress};
use crate::http::routes::backup::SUMMARY_ENTRY;
use crate::ingest::client;
use crate::store::engine::data_folder;
use crate::{store, tasks, wire};

/// How long a backup may take: it may be large and the connection slow.
const TIMEOUT: Duration = Duration::from_secs(86_400);
/// Chunks of the archive that may wait to be written to disk.
const CHUNKS_MAX: usize = 16;
const ERROR_MAX_BYTES: usize = 1 << 20;

const INCOMPLETE: &str = "the backup is incomplete: the connection was closed early";

#[derive(Debug, Args)]
pub struct Arguments {
    /// The folder to create; it must be empty or not exist
    dest: PathBuf,
    #[command(flatten)]
    target: Target,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// What a backup contains: the last entry of the archive a server sends.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Summary {
    killmails: u64,
    head: u64,
    bytes: u64,
}

pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Summary { killmails, head, bytes } = match &arguments.target.server {
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

fn from_folder(arguments: &Arguments) -> anyhow::Result<Summary> {
    let dir = arguments.target.folder.require_store()?.to_owned();
    let bars = progress::Bars::default();
    let config = store::config::Config { dir, ..store::config::Config::default() };
    let store = store::Store::open(config, wire::killmail::encode)?;
    let backup = store.backup(&arguments.dest, &|step| bars.show(step))?;
    bars.clear();
    Ok(Summary { killmails: backup.killmails, head: backup.head, bytes: backup.bytes })
}

/// Unpacks the archive a server sends, as it arrives. The folder is removed if the transfer fails.
async fn from_server(server: &str, arguments: &Arguments) -> anyhow::Result<Summary> {
    let dest = arguments.dest.clone();
    store::upkeep::backup::require_empty(&dest)?;
    let unpacked = download(server, arguments).await;
    if unpacked.is_err() {
        fs::remove_dir_all(&dest)
            .with_context(|| format!("cannot remove the incomplete backup in {}", dest.display()))?;
    }
    unpacked
}

async fn download(server: &str, arguments: &Arguments) -> anyhow::Result<Summary> {
    let Api::Remote { client, base, token } = Api::open(&arguments.target).await? else {
        bail!("no server was given")
    };
    let mut request = client.post(format!("{base}/api/v1/backup")).timeout(TIMEOUT);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let mut response = request.send().await.with_context(|| format!("{server} does not respond"))?;
    let status = response.status();
    if !status.is_success() {
        let body = client::body(response, ERROR_MAX_BYTES).await?;
        let json: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        bail!("POST /api/v1/backup: {} {}", status.as_u16(), error_message(&json, &body));
    }
    let (sender, chunks) = channel(CHUNKS_MAX);
    let dest = arguments.dest.clone();
    let unpacking =
        tasks::blocking("unpack", move || unpack(ChunkReader { chunks, current: Bytes::new() }, &dest));
    let bar = progress::bytes(0, "backup");
    let receiving = async {
        while let Some(chunk) = response.chunk().await.context(INCOMPLETE)? {
            bar.inc(chunk.len() as u64);
            if sender.send(chunk).await.is_err() {
                // Unpacking failed; its own result says why.
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

/// The chunks of the body as one blocking reader.
struct ChunkReader {
    chunks: Receiver<Bytes>,
    current: Bytes,
}

impl Read for ChunkReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            let Some(next) = self.chunks.blocking_recv() else { return Ok(0) };
            self.current = next;
        }
        let length = into.len().min(self.current.len());
        into[..length].copy_from_slice(&self.current.split_to(length));
        Ok(length)
    }
}

/// Unpacks an archive into a folder and syncs it to disk.
fn unpack(from: impl Read, dest: &Path) -> anyhow::Result<Summary> {
    let mut summary = None;
    for entry in Archive::new(from).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        if path == Path::new(SUMMARY_ENTRY) {
            summary = Some(serde_json::from_reader(&mut entry)?);
            continue;
        }
        if !path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            bail!("the archive contains {}, which is outside the backup folder", path.display());
        }
        let path = dest.join(path);
        if entry.header().entry_type().is_dir() {
            data_folder::make(&path).with_context(|| format!("cannot create {}", path.display()))?;
            continue;
        }
        let mut file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        io::copy(&mut entry, &mut file)?;
        file.sync_all()?;
    }
    store::upkeep::backup::sync(dest)?;
    summary.context(INCOMPLETE)
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
            // The library itself refuses to write some of these names.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            archive.append(&header, text.as_bytes()).unwrap();
        }
        archive.into_inner().unwrap()
    }

    #[test]
    fn an_incomplete_archive_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let whole = archive(&[("db", "x"), (SUMMARY_ENTRY, r#"{"killmails":1,"head":2,"bytes":3}"#)]);
        assert_eq!(unpack(&whole[..], folder.path()).unwrap().head, 2);
        assert_eq!(fs::read_to_string(folder.path().join("db")).unwrap(), "x");
        let part = archive(&[("db", "x")]);
        assert!(unpack(&part[..], folder.path()).unwrap_err().to_string().contains(INCOMPLETE));
        assert!(unpack(&whole[..700], folder.path()).is_err());
    }

    #[test]
    fn a_folder_in_a_backup_is_readable_by_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_dir("plugins", folder.path()).unwrap();
        // Without the last entry the archive is incomplete, but the folder has been created.
        unpack(&archive.into_inner().unwrap()[..], folder.path()).unwrap_err();
        assert_eq!(fs::metadata(folder.path().join("plugins")).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn nothing_is_written_outside_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        for name in ["../outside", "/outside-of-it", "a/../../outside"] {
            let error = unpack(&archive(&[(name, "x")])[..], &inner).unwrap_err();
            assert!(error.to_string().contains("outside the backup folder"), "{name}: {error}");
        }
        assert!(!folder.path().join("outside").exists());
    }
}
