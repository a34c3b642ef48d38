//! Opens what killmails are kept in: plain or compressed files (.gz, .zst, .bz2), tar archives of them, folders.
//!
//! What a file is is read from its first bytes, not from its name. Streams: no file is ever whole in memory.
//!
//! Must not know: what a document means.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::ingest::split::Splitter;

/// The longest document taken, bytes; the longest real killmail known has 668 kB.
pub const DOCUMENT_MAX_BYTES: usize = 32 << 20;
const PIECE_BYTES: usize = 64 << 10;
const TAR_MAGIC_AT: usize = 257;

/// A file could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {source}", path.display())]
pub struct Error {
    path: PathBuf,
    source: io::Error,
}

/// One document and where it stands.
#[derive(Debug, Clone, Copy)]
pub struct Document<'a> {
    /// The file it is in.
    pub path: &'a Path,
    /// Its bytes, as they stand.
    pub bytes: &'a [u8],
}

/// Why reading ended early.
#[derive(Debug)]
pub enum Stop<E> {
    /// A file could not be read.
    Unreadable(Error),
    /// The taker of documents had enough.
    Taker(E),
}

/// All files under these paths, folders walked in the order of names; hidden files are passed over.
///
/// # Errors
/// A path does not exist or a folder cannot be listed.
pub fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let mut files = vec![];
    for path in paths {
        walk(path, &mut files).map_err(|source| Error { path: path.clone(), source })?;
    }
    Ok(files)
}

fn walk(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !fs::metadata(path)?.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let mut inside = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    inside.retain(|p| p.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.')));
    inside.sort();
    inside.iter().try_for_each(|p| walk(p, files))
}

/// Reads one file; `read` hears how many bytes of the file on disk went by, `found` gets every document.
///
/// # Errors
/// The file cannot be read or decompressed (what came before that was handed over), or `found` stopped.
pub fn documents<E>(path: &Path, read: &dyn Fn(u64), found: &mut dyn FnMut(Document<'_>) -> Result<(), E>) -> Result<(), Stop<E>> {
    let unreadable = |source| Stop::Unreadable(Error { path: path.to_owned(), source });
    let file = File::open(path).map_err(unreadable)?;
    let counted = BufReader::with_capacity(PIECE_BYTES, Counted { inner: file, read });
    let mut plain = BufReader::with_capacity(PIECE_BYTES, decompressed(counted).map_err(unreadable)?);
    let mut outcome = Ok(());
    let mut take = |bytes: &[u8]| found(Document { path, bytes }).map_err(Cut::Taker);
    let answer = if is_tar(&mut plain).map_err(unreadable)? { tar(plain, &mut take) } else { split(&mut plain, &mut take) };
    if let Err(cut) = answer {
        outcome = Err(match cut {
            Cut::Taker(error) => Stop::Taker(error),
            Cut::Io(source) => unreadable(source),
        });
    }
    outcome
}

/// The text behind whatever compression the first bytes tell of.
///
/// # Errors
/// The first bytes cannot be read.
fn decompressed<'a, R: BufRead + 'a>(mut reader: R) -> io::Result<Box<dyn Read + 'a>> {
    let start = reader.fill_buf()?;
    Ok(match start {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::stream::read::Decoder::with_buffer(reader)?),
        [b'B', b'Z', b'h', ..] => Box::new(bzip2::bufread::MultiBzDecoder::new(reader)),
        _ => Box::new(reader),
    })
}

enum Cut<E> {
    Io(io::Error),
    Taker(E),
}

impl<E> From<io::Error> for Cut<E> {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

type Take<'a, E> = dyn FnMut(&[u8]) -> Result<(), Cut<E>> + 'a;

fn is_tar(reader: &mut impl BufRead) -> io::Result<bool> {
    // Decompressors fill their buffer in one go as far as the first block reaches, which is far behind the magic.
    let start = reader.fill_buf()?;
    Ok(start.get(TAR_MAGIC_AT..TAR_MAGIC_AT + 5) == Some(b"ustar"))
}

fn tar<E>(reader: impl Read, take: &mut Take<'_, E>) -> Result<(), Cut<E>> {
    let mut archive = tar::Archive::new(reader);
    for member in archive.entries()? {
        let member = member?;
        if member.header().entry_type().is_file() {
            let plain = decompressed(BufReader::new(member))?;
            split(&mut BufReader::with_capacity(PIECE_BYTES, plain), take)?;
        }
    }
    Ok(())
}

fn split<E>(reader: &mut impl BufRead, take: &mut Take<'_, E>) -> Result<(), Cut<E>> {
    let mut splitter = Splitter::new(DOCUMENT_MAX_BYTES);
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return splitter.finish(take);
        }
        splitter.push(bytes, take)?;
        let taken = bytes.len();
        reader.consume(taken);
    }
}

struct Counted<'a, R> {
    inner: R,
    read: &'a dyn Fn(u64),
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let taken = self.inner.read(buffer)?;
        (self.read)(taken as u64);
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;
    use std::io::Write;

    use super::*;

    const LINES: &str = "{\"a\":1}\n{\"a\":2}\n";

    fn read(path: &Path) -> Result<Vec<String>, Stop<Infallible>> {
        let mut found = vec![];
        documents(path, &|_| {}, &mut |document| {
            found.push(String::from_utf8_lossy(document.bytes).into_owned());
            Ok(())
        })?;
        Ok(found)
    }

    fn bz2(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = bzip2::write::BzEncoder::new(vec![], bzip2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn tar_of(members: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(vec![]);
        for (name, text) in members {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn every_compression_is_read_by_its_first_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let mut gz = flate2::write::GzEncoder::new(vec![], flate2::Compression::default());
        gz.write_all(LINES.as_bytes()).unwrap();
        let tar = tar_of(&[("killmails/1.json", "{\"a\":1}"), ("killmails/2.json", "{\"a\":2}")]);
        let forms = [
            LINES.as_bytes().to_vec(),
            gz.finish().unwrap(),
            zstd::encode_all(LINES.as_bytes(), 3).unwrap(),
            bz2(LINES.as_bytes()),
            [bz2(b"{\"a\":1}\n"), bz2(b"{\"a\":2}\n")].concat(),
            tar.clone(),
            bz2(&tar),
        ];
        for (at, bytes) in forms.iter().enumerate() {
            let path = folder.path().join(format!("{at}.bin"));
            fs::write(&path, bytes).unwrap();
            assert_eq!(read(&path).unwrap(), ["{\"a\":1}", "{\"a\":2}"], "form {at}");
        }
    }

    #[test]
    fn folders_are_walked_in_order_and_hidden_files_left_out() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("b")).unwrap();
        for name in ["b/z.json", "a.json", ".hidden"] {
            fs::write(folder.path().join(name), "{}").unwrap();
        }
        let found = files(&[folder.path().to_owned()]).unwrap();
        let names: Vec<_> = found.iter().map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect();
        assert_eq!(names, ["a.json", "z.json"]);
        assert!(files(&[folder.path().join("nowhere")]).unwrap_err().to_string().contains("nowhere"));
    }

    #[test]
    fn a_cut_archive_is_an_error_after_what_could_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut.zst");
        let whole = zstd::encode_all(LINES.repeat(100_000).as_bytes(), 3).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(matches!(read(&path), Err(Stop::Unreadable(_))));
    }

    #[test]
    fn progress_adds_up_to_the_size_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        fs::write(&path, LINES.repeat(10_000)).unwrap();
        let seen = Cell::new(0);
        documents::<Infallible>(&path, &|n| seen.set(seen.get() + n), &mut |_| Ok(())).unwrap();
        assert_eq!(seen.get(), LINES.len() as u64 * 10_000);
    }
}
