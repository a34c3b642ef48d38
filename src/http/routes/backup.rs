//! A backup of the store, sent as one tar archive: what `killstream backup --server` unpacks. Its last entry
//! says what it holds, so that nobody takes a part for the whole.
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
use crate::http::request::connections::OwnPace;
use crate::http::state::HttpState;
use crate::store::upkeep::backup::TemporaryBackup;
use crate::{feed, tasks};

/// The last entry of the archive.
pub const LAST: &str = "backup.json";
/// Bytes of one piece of the body.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces waiting for a client that takes its time.
const PIECES_MAX: usize = 4;

/// `POST /api/v1/backup`. While the copy is made nothing is appended; while it is sent, everything goes on.
///
/// # Errors
/// 401, 403; 503 while another one is under way, or without room for the copy.
pub async fn backup(_: Admin, State(door): State<Arc<HttpState>>) -> Result<Response, Error> {
    let store = Arc::clone(door.feed.store());
    let aside = tasks::blocking("backup", move || store.temporary_backup()).await.map_err(Error::failed)?;
    let aside = aside.map_err(|error| Error::history(feed::error::FeedError::Store(error)))?;
    let (sender, pieces) = channel(PIECES_MAX);
    tasks::thread("backup-send", move || send(&aside, &sender)).map_err(Error::failed)?;
    // Records are compressed already.
    let headers = [(CONTENT_TYPE, "application/x-tar"), (CONTENT_ENCODING, "identity")];
    Ok((Extension(OwnPace), headers, Body::from_stream(ReceiverStream::new(pieces))).into_response())
}

fn send(aside: &TemporaryBackup, sender: &Sender<io::Result<Bytes>>) {
    if let Err(error) = pack(aside, sender) {
        tracing::warn!("a backup was not sent to its end: {error}");
        // The connection is cut, unless the client cut it.
        let _ = sender.blocking_send(Err(error));
    }
}

fn pack(aside: &TemporaryBackup, sender: &Sender<io::Result<Bytes>>) -> io::Result<()> {
    let mut archive = Builder::new(BufWriter::with_capacity(PIECE_BYTES, Pieces(sender)));
    archive.append_dir_all(".", aside.dir())?;
    let held = serde_json::to_vec(&aside.contents())?;
    let mut header = Header::new_gnu();
    header.set_size(held.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, LAST, &held[..])?;
    archive.into_inner()?.flush()
}

/// What is written becomes pieces of the body.
struct Pieces<'a>(&'a Sender<io::Result<Bytes>>);

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len())
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the client went away"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
