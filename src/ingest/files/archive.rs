//! Opens what killmails are kept in: plain or compressed files, tar and zip archives of them.
//!
//! What a file is is read from its first bytes, not from its name. Streams: no file is ever whole in memory.
//! Each file, and each file in an archive, is its own: what cannot be read is told with its reason, and the
//! rest goes on.
//!
//! Must not know: what a document means.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rawzip::{CompressionMethod, RECOMMENDED_BUFFER_SIZE, ZipArchive};

use crate::ingest::files::decompress::{Decompressed, Expansion, Peeked, Said};
use crate::ingest::files::file_list::{Unreadable, not_a_file};
use crate::wire::read::split::Splitter;

/// The longest document taken, bytes; the longest real killmail known has 668 kB.
pub const DOCUMENT_MAX_BYTES: usize = 32 << 20;
const PIECE_BYTES: usize = 64 << 10;
/// What a file is stands within its first bytes.
const START_BYTES: usize = 512;
const TAR_MAGIC_AT: usize = 257;

/// What is found in a file.
#[derive(Debug)]
pub enum Found<'a> {
    /// A document, as it stands.
    Document(&'a [u8]),
    /// The file, or a part of it, cannot be read, or not to its end.
    Unreadable(Unreadable),
}

/// Who is handed what is found.
type Take<'a, E> = dyn FnMut(Found<'_>) -> Result<(), E> + 'a;

/// Reads one file; `read` hears how many bytes of the file on disk went by, `found` gets every document, and
/// what cannot be read.
///
/// # Errors
/// `found` stopped.
pub fn documents<E>(path: &Path, read: &dyn Fn(u64), found: &mut Take<'_, E>) -> Result<(), E> {
    let expansion = Expansion::default();
    let mut reading = Reading { path, expansion: &expansion, read, found };
    match reading.file() {
        Ok(()) => Ok(()),
        Err(Stop::Taker(error)) => Err(error),
        Err(Stop::Unreadable(why)) => (reading.found)(Found::Unreadable(Unreadable::new(path, why))),
    }
}

/// Why reading ended early.
enum Stop<E> {
    Unreadable(String),
    Taker(E),
}

impl<E> From<io::Error> for Stop<E> {
    fn from(error: io::Error) -> Self {
        let words = error.to_string();
        // What unpacks speaks to those who make it.
        let is_cut = error.kind() == io::ErrorKind::UnexpectedEof
            || words.to_ascii_lowercase().contains("unexpected eof");
        Self::Unreadable(match error.kind() {
            _ if is_cut => format!("it is cut off ({words})"),
            _ if error.get_ref().is_some_and(|inner| inner.is::<Said>())
                || error.raw_os_error().is_some() =>
            {
                words
            }
            _ => format!("it is damaged: it cannot be unpacked beyond this place ({words})"),
        })
    }
}

struct Reading<'a, 'b, E> {
    path: &'a Path,
    expansion: &'a Expansion,
    read: &'a dyn Fn(u64),
    found: &'a mut Take<'b, E>,
}

impl<E> Reading<'_, '_, E> {
    fn file(&mut self) -> Result<(), Stop<E>> {
        // A pipe that took the file's place must not hold us up.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(self.path)?;
        let metadata = file.metadata()?;
        if let Some(what) = not_a_file(self.path, &metadata) {
            return Err(Stop::Unreadable(format!("it is {what}")));
        }
        let file = if metadata.is_file() { file } else { File::open(self.path)? };
        let counted = BufReader::with_capacity(
            PIECE_BYTES,
            Counted { inner: file, read: self.read, expansion: self.expansion },
        );
        let mut start = Peeked::new(counted);
        if metadata.is_file() && is_zip(start.peek(START_BYTES)?) {
            self.expansion.add_read(metadata.len());
            return self.zip();
        }
        let mut plain =
            Peeked::new(BufReader::with_capacity(PIECE_BYTES, Decompressed::new(start, self.expansion)?));
        if is_tar(plain.peek(START_BYTES)?) { self.tar(plain) } else { self.text(&mut plain) }
    }

    fn tar(&mut self, reader: impl Read) -> Result<(), Stop<E>> {
        let mut archive = tar::Archive::new(reader);
        for member in archive.entries()? {
            let member = member?;
            if member.header().entry_type().is_file() {
                let name = String::from_utf8_lossy(&member.path_bytes()).into_owned();
                self.member(&name, member)?;
            }
        }
        Ok(())
    }

    fn zip(&mut self) -> Result<(), Stop<E>> {
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
                self.unreadable(&name, "it is encrypted")?;
                continue;
            }
            let found = match archive.get_entry(way) {
                Ok(found) => found,
                Err(error) => {
                    self.unreadable(&name, error.to_string())?;
                    continue;
                }
            };
            let raw = BufReader::with_capacity(PIECE_BYTES, found.reader());
            match method {
                CompressionMethod::STORE => self.member(&name, found.verifying_reader(raw))?,
                CompressionMethod::DEFLATE => {
                    self.member(&name, found.verifying_reader(flate2::bufread::DeflateDecoder::new(raw)))?;
                }
                // These streams tell themselves what they are.
                CompressionMethod::BZIP2 | CompressionMethod::ZSTD | CompressionMethod::XZ => {
                    match Decompressed::new(raw, self.expansion) {
                        Ok(plain) => self.member(&name, found.verifying_reader(plain))?,
                        Err(error) => self.unreadable(&name, error.to_string())?,
                    }
                }
                other => self.unreadable(
                    &name,
                    format!("it is compressed as {other}, which is not read; unpack it first"),
                )?,
            }
        }
        Ok(())
    }

    /// A file in an archive: what is wrong with it ends only it.
    fn member(&mut self, name: &str, reader: impl Read) -> Result<(), Stop<E>> {
        match self.plain_or_compressed(reader) {
            Err(Stop::Unreadable(why)) => self.unreadable(name, why),
            other => other,
        }
    }

    fn plain_or_compressed(&mut self, reader: impl Read) -> Result<(), Stop<E>> {
        let plain = Decompressed::new(BufReader::with_capacity(PIECE_BYTES, reader), self.expansion)?;
        self.text(&mut Peeked::new(BufReader::with_capacity(PIECE_BYTES, plain)))
    }

    fn unreadable(&mut self, member: &str, why: impl Into<String>) -> Result<(), Stop<E>> {
        (self.found)(Found::Unreadable(Unreadable::member(self.path, member, why))).map_err(Stop::Taker)
    }

    fn text(&mut self, reader: &mut Peeked<impl BufRead>) -> Result<(), Stop<E>> {
        if let Some(what) = not_text(reader.peek(START_BYTES)?) {
            return Err(Stop::Unreadable(what.to_owned()));
        }
        let mut splitter = Splitter::new(DOCUMENT_MAX_BYTES);
        let mut take = |document: &[u8]| (self.found)(Found::Document(document)).map_err(Stop::Taker);
        loop {
            // Of what breaks off the whole documents are taken, the half one is not told of twice.
            let bytes = reader.fill_buf()?;
            if bytes.is_empty() {
                let breaks_off = splitter.is_inside();
                splitter.finish(&mut take)?;
                let why = || {
                    Stop::Unreadable("it breaks off inside of a list or an object of killmails".to_owned())
                };
                return if breaks_off { Err(why()) } else { Ok(()) };
            }
            splitter.push(bytes, &mut take)?;
            let taken = bytes.len();
            reader.consume(taken);
        }
    }
}

fn zip_error<E>(error: rawzip::Error) -> Stop<E> {
    Stop::Unreadable(format!("it is not a whole zip archive ({error})"))
}

fn is_zip(start: &[u8]) -> bool {
    matches!(start, [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] | [b'P', b'K', 7, 8, ..])
}

fn is_tar(start: &[u8]) -> bool {
    start.get(TAR_MAGIC_AT..TAR_MAGIC_AT + 5) == Some(b"ustar")
}

/// What a file begins like that is neither text nor anything that is unpacked here.
fn not_text(start: &[u8]) -> Option<&'static str> {
    match start {
        [b'7', b'z', 0xBC, 0xAF, 0x27, 0x1C, ..] => {
            Some("it is a 7z archive, which is not read; unpack it first")
        }
        [b'R', b'a', b'r', b'!', 0x1A, 7, ..] => {
            Some("it is a rar archive, which is not read; unpack it first")
        }
        [0x04, 0x22, 0x4D, 0x18, ..] => Some("it is compressed by lz4, which is not read; unpack it first"),
        [b'L', b'Z', b'I', b'P', 1, ..] => {
            Some("it is compressed by lzip, which is not read; unpack it first")
        }
        [0x1F, 0x9D | 0xA0, ..] => Some("it is compressed by compress, which is not read; unpack it first"),
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => Some("it is text in UTF-16; convert it to UTF-8 first"),
        _ if is_zip(start) => {
            Some("it is a zip archive inside of another one, which is not read; unpack it first")
        }
        _ => {
            // Zeros may stand behind a text, not in it.
            let text = start.iter().position(|byte| *byte == 0).unwrap_or(start.len());
            start[text..]
                .iter()
                .any(|byte| *byte != 0)
                .then_some("it is neither text nor an archive of a kind known here")
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
