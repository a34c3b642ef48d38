//! Reads documents from files: plain or compressed, and from tar and zip archives of such files.
//!
//! The format is detected by the first bytes, not by the name. Everything is streamed: no file is ever in
//! memory as a whole. Each file, and each file in an archive, stands alone: what cannot be read is reported
//! with the reason, and the rest is still read.
//!
//! Must not know: what a document means.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rawzip::{CompressionMethod, RECOMMENDED_BUFFER_SIZE, ZipArchive};

use crate::ingest::files::decompress::{Decompressed, Expansion, Peeked, Reason};
use crate::ingest::files::file_list::{Unreadable, not_a_file};
use crate::wire::read::split::Splitter;

/// The longest document read, bytes. The longest real killmail known has 668 kB.
pub const DOCUMENT_MAX_BYTES: usize = 32 << 20;
const BUFFER_BYTES: usize = 64 << 10;
/// The format of a file shows within this many bytes.
const START_BYTES: usize = 512;
const TAR_MAGIC_AT: usize = 257;

/// Something found in a file.
#[derive(Debug)]
pub enum Found<'a> {
    /// A document as it is in the file.
    Document(&'a [u8]),
    /// The file or a part of it cannot be read, or not to its end.
    Unreadable(Unreadable),
}

type Sink<'a, E> = dyn FnMut(Found<'_>) -> Result<(), E> + 'a;

/// Reads one file. `read` is called with the number of bytes read from disk, `found` with every document and
/// everything that cannot be read.
///
/// # Errors
/// `found` returned an error.
pub fn read_documents<E>(path: &Path, read: &dyn Fn(u64), found: &mut Sink<'_, E>) -> Result<(), E> {
    let expansion = Expansion::default();
    let mut reader = FileReader { path, expansion: &expansion, read, found };
    match reader.read_file() {
        Ok(()) => Ok(()),
        Err(Stop::Sink(error)) => Err(error),
        Err(Stop::Unreadable(why)) => (reader.found)(Found::Unreadable(Unreadable::new(path, why))),
    }
}

/// Why reading ended early.
enum Stop<E> {
    Unreadable(String),
    Sink(E),
}

impl<E> From<io::Error> for Stop<E> {
    fn from(error: io::Error) -> Self {
        let message = error.to_string();
        // Messages of decompressors are written for programmers.
        let is_cut = error.kind() == io::ErrorKind::UnexpectedEof
            || message.to_ascii_lowercase().contains("unexpected eof");
        Self::Unreadable(match error.kind() {
            _ if is_cut => format!("it is cut off ({message})"),
            _ if error.get_ref().is_some_and(|inner| inner.is::<Reason>())
                || error.raw_os_error().is_some() =>
            {
                message
            }
            _ => format!("it is damaged: it cannot be unpacked beyond this point ({message})"),
        })
    }
}

struct FileReader<'a, 'b, E> {
    path: &'a Path,
    expansion: &'a Expansion,
    read: &'a dyn Fn(u64),
    found: &'a mut Sink<'b, E>,
}

impl<E> FileReader<'_, '_, E> {
    fn read_file(&mut self) -> Result<(), Stop<E>> {
        // If a pipe has taken the place of the file, opening it must not block.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(self.path)?;
        let metadata = file.metadata()?;
        if let Some(what) = not_a_file(self.path, &metadata) {
            return Err(Stop::Unreadable(format!("it is {what}")));
        }
        let file = if metadata.is_file() { file } else { File::open(self.path)? };
        let counted = BufReader::with_capacity(
            BUFFER_BYTES,
            Counted { inner: file, read: self.read, expansion: self.expansion },
        );
        let mut start = Peeked::new(counted);
        if metadata.is_file() && is_zip(start.peek(START_BYTES)?) {
            self.expansion.add_read(metadata.len());
            return self.read_zip();
        }
        let mut plain =
            Peeked::new(BufReader::with_capacity(BUFFER_BYTES, Decompressed::new(start, self.expansion)?));
        if is_tar(plain.peek(START_BYTES)?) { self.read_tar(plain) } else { self.read_text(&mut plain) }
    }

    fn read_tar(&mut self, reader: impl Read) -> Result<(), Stop<E>> {
        let mut archive = tar::Archive::new(reader);
        for member in archive.entries()? {
            let member = member?;
            if member.header().entry_type().is_file() {
                let name = String::from_utf8_lossy(&member.path_bytes()).into_owned();
                self.read_member(&name, member)?;
            }
        }
        Ok(())
    }

    fn read_zip(&mut self) -> Result<(), Stop<E>> {
        let mut buffer = vec![0; RECOMMENDED_BUFFER_SIZE];
        let archive = ZipArchive::from_file(File::open(self.path)?, &mut buffer).map_err(zip_error)?;
        let mut entries = archive.entries(&mut buffer);
        while let Some(entry) = entries.next_entry().map_err(zip_error)? {
            if entry.is_dir() {
                continue;
            }
            let name = String::from_utf8_lossy(entry.file_path().as_bytes()).into_owned();
            let (way, method, is_encrypted) =
                (entry.wayfinder(), entry.compression_method(), entry.flags().is_encrypted());
            if is_encrypted {
                self.report_unreadable(&name, "it is encrypted")?;
                continue;
            }
            let found = match archive.get_entry(way) {
                Ok(found) => found,
                Err(error) => {
                    self.report_unreadable(&name, error.to_string())?;
                    continue;
                }
            };
            let raw = BufReader::with_capacity(BUFFER_BYTES, found.reader());
            match method {
                CompressionMethod::STORE => self.read_member(&name, found.verifying_reader(raw))?,
                CompressionMethod::DEFLATE => {
                    self.read_member(
                        &name,
                        found.verifying_reader(flate2::bufread::DeflateDecoder::new(raw)),
                    )?;
                }
                // The format of these shows in their first bytes.
                CompressionMethod::BZIP2 | CompressionMethod::ZSTD | CompressionMethod::XZ => {
                    match Decompressed::new(raw, self.expansion) {
                        Ok(plain) => self.read_member(&name, found.verifying_reader(plain))?,
                        Err(error) => self.report_unreadable(&name, error.to_string())?,
                    }
                }
                other => self.report_unreadable(
                    &name,
                    format!("it is compressed as {other}, which is not supported; unpack it first"),
                )?,
            }
        }
        Ok(())
    }

    /// Reads a file in an archive. A fault in it does not end the archive.
    fn read_member(&mut self, name: &str, reader: impl Read) -> Result<(), Stop<E>> {
        match self.read_plain_or_compressed(reader) {
            Err(Stop::Unreadable(why)) => self.report_unreadable(name, why),
            other => other,
        }
    }

    fn read_plain_or_compressed(&mut self, reader: impl Read) -> Result<(), Stop<E>> {
        let plain = Decompressed::new(BufReader::with_capacity(BUFFER_BYTES, reader), self.expansion)?;
        self.read_text(&mut Peeked::new(BufReader::with_capacity(BUFFER_BYTES, plain)))
    }

    fn report_unreadable(&mut self, member: &str, why: impl Into<String>) -> Result<(), Stop<E>> {
        (self.found)(Found::Unreadable(Unreadable::member(self.path, member, why))).map_err(Stop::Sink)
    }

    fn read_text(&mut self, reader: &mut Peeked<impl BufRead>) -> Result<(), Stop<E>> {
        if let Some(what) = not_text(reader.peek(START_BYTES)?) {
            return Err(Stop::Unreadable(what.to_owned()));
        }
        let mut splitter = Splitter::new(DOCUMENT_MAX_BYTES);
        let mut pass_on = |document: &[u8]| (self.found)(Found::Document(document)).map_err(Stop::Sink);
        loop {
            // If the file breaks off, its complete documents are still used; that is reported once.
            let bytes = reader.fill_buf()?;
            if bytes.is_empty() {
                let breaks_off = splitter.is_inside();
                splitter.finish(&mut pass_on)?;
                let why =
                    || Stop::Unreadable("it breaks off inside an array or object of killmails".to_owned());
                return if breaks_off { Err(why()) } else { Ok(()) };
            }
            splitter.push(bytes, &mut pass_on)?;
            let taken = bytes.len();
            reader.consume(taken);
        }
    }
}

fn zip_error<E>(error: rawzip::Error) -> Stop<E> {
    Stop::Unreadable(format!("it is not a complete zip archive ({error})"))
}

fn is_zip(start: &[u8]) -> bool {
    matches!(start, [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] | [b'P', b'K', 7, 8, ..])
}

fn is_tar(start: &[u8]) -> bool {
    start.get(TAR_MAGIC_AT..TAR_MAGIC_AT + 5) == Some(b"ustar")
}

/// Why a file with this start cannot be read; `None` if it may be text.
fn not_text(start: &[u8]) -> Option<&'static str> {
    match start {
        [b'7', b'z', 0xBC, 0xAF, 0x27, 0x1C, ..] => {
            Some("it is a 7z archive, which is not supported; unpack it first")
        }
        [b'R', b'a', b'r', b'!', 0x1A, 7, ..] => {
            Some("it is a rar archive, which is not supported; unpack it first")
        }
        [0x04, 0x22, 0x4D, 0x18, ..] => {
            Some("it is compressed by lz4, which is not supported; unpack it first")
        }
        [b'L', b'Z', b'I', b'P', 1, ..] => {
            Some("it is compressed by lzip, which is not supported; unpack it first")
        }
        [0x1F, 0x9D | 0xA0, ..] => {
            Some("it is compressed by compress, which is not supported; unpack it first")
        }
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => Some("it is text in UTF-16; convert it to UTF-8 first"),
        _ if is_zip(start) => {
            Some("it is a zip archive inside another one, which is not supported; unpack it first")
        }
        _ => {
            // Zeros are allowed after a text, not within it.
            let text = start.iter().position(|byte| *byte == 0).unwrap_or(start.len());
            start[text..]
                .iter()
                .any(|byte| *byte != 0)
                .then_some("it is neither text nor an archive of a known format")
        }
    }
}

struct Counted<'a, R> {
    inner: R,
    read: &'a dyn Fn(u64),
    expansion: &'a Expansion,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let taken = self.inner.read(buffer)?;
        (self.read)(taken as u64);
        self.expansion.add_read(taken as u64);
        Ok(taken)
    }
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
