//! A backup of the store, sent as one tar archive that `killstream backup --server` unpacks. Its last entry
//! describes the backup, so that a truncated archive is not mistaken for a complete one.
//!
//! Must not know: what is in a backup, or how it is made.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tar::{Builder, Header};
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;

use crate::http::answer::error::Error;
use crate::http::request::auth::Admin;
use crate::http::request::connections::ClientPaced;
use crate::http::state::HttpState;
use crate::store::upkeep::backup::TemporaryBackup;
use crate::{feed, tasks};

/// The name of the last entry of the archive.
pub const SUMMARY_ENTRY: &str = "backup.json";
/// Bytes of a chunk of the body.
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks queued for a slow client.
const CHUNKS_MAX: usize = 4;

/// `POST /api/v1/backup`. Nothing is appended to the store while the copy is made; while it is sent,
/// everything continues.
///
/// # Errors
/// 401, 403; 503 while another backup is running, or without disk space for the copy.
pub async fn backup(_: Admin, State(state): State<Arc<HttpState>>) -> Result<Response, Error> {
    let store = Arc::clone(&state.store);
    let aside = tasks::blocking("backup", move || store.temporary_backup()).await.map_err(Error::failed)?;
    let aside = aside.map_err(|error| Error::history(feed::error::FeedError::Store(error)))?;
    let (sender, chunks) = channel(CHUNKS_MAX);
    tasks::thread("backup-send", move || send(&aside, &sender)).map_err(Error::failed)?;
    // Identity, since records are compressed already.
    let headers = [(CONTENT_TYPE, "application/x-tar"), (CONTENT_ENCODING, "identity")];
    Ok((Extension(ClientPaced), headers, Body::from_stream(ReceiverStream::new(chunks))).into_response())
}

fn send(aside: &TemporaryBackup, sender: &Sender<io::Result<Bytes>>) {
    if let Err(error) = pack(aside, sender) {
        tracing::warn!("a backup was not sent completely: {error}");
        // Closes the connection, unless the client did.
        let _ = sender.blocking_send(Err(error));
    }
}

fn pack(aside: &TemporaryBackup, sender: &Sender<io::Result<Bytes>>) -> io::Result<()> {
    let mut archive = Builder::new(BufWriter::with_capacity(CHUNK_BYTES, ChunkWriter(sender)));
    archive.append_dir_all(".", aside.dir())?;
    let summary = serde_json::to_vec(&aside.contents())?;
    let mut header = Header::new_gnu();
    header.set_size(summary.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, SUMMARY_ENTRY, &summary[..])?;
    archive.into_inner()?.flush()
}

/// Turns what is written into chunks of the body.
struct ChunkWriter<'a>(&'a Sender<io::Result<Bytes>>);

impl Write for ChunkWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len())
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the client disconnected"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
