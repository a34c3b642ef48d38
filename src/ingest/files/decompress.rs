//! Decompresses a stream, detecting the format by its first bytes: gzip, zstd, bzip2, xz. Any number of parts
//! may follow one another, as parallel compressors write them, with zeros at the end, as on tapes and block
//! devices. Uncompressed data is passed through.
//!
//! Must not know: files, archives, what the bytes mean.

use std::cell::Cell;
use std::io::{self, BufRead, Read};

use bzip2::bufread::BzDecoder;
use flate2::bufread::GzDecoder;
use lzma_rust2::XzReader;
use zstd::stream::read::Decoder as ZstdDecoder;

/// Memory an xz stream may require, KiB. `xz -9` needs 64 MiB.
const XZ_MEMORY_KIB: u32 = 256 << 10;
/// Compression shrinks killmails to a tenth or a thirtieth. What expands to more than this many times its
/// size (beyond the first GiB) is a decompression bomb.
const EXPANSION_MAX: u64 = 500;
const EXPANSION_FREE_BYTES: u64 = 1 << 30;
/// The longest magic number, bytes.
const MAGIC_BYTES: usize = 6;

/// A reason that is worded for people; other errors come from the decompressors.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Reason(String);

/// The size of one file on disk and decompressed, bytes so far.
#[derive(Debug, Default)]
pub struct Expansion {
    read: Cell<u64>,
    expanded: Cell<u64>,
}

impl Expansion {
    /// Counts bytes read from the file.
    pub fn add_read(&self, bytes: u64) {
        self.read.set(self.read.get() + bytes);
    }

    /// Counts decompressed bytes.
    ///
    /// # Errors
    /// There are far too many.
    fn add_expanded(&self, bytes: u64) -> io::Result<()> {
        let expanded = self.expanded.get() + bytes;
        self.expanded.set(expanded);
        if expanded > EXPANSION_FREE_BYTES && expanded / EXPANSION_MAX > self.read.get() {
            return Err(invalid(format!(
                "it expands to more than {EXPANSION_MAX} times its size, which files of killmails never do"
            )));
        }
        Ok(())
    }
}

/// A reader whose next bytes can be peeked at, however few the inner reader returns at a time.
#[derive(Debug)]
pub struct Peeked<R> {
    inner: R,
    head: Vec<u8>,
    at: usize,
}

impl<R: BufRead> Peeked<R> {
    pub const fn new(inner: R) -> Self {
        Self { inner, head: Vec::new(), at: 0 }
    }

    /// Up to this many of the next bytes, without consuming them.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn peek(&mut self, bytes: usize) -> io::Result<&[u8]> {
        self.head.drain(..self.at);
        self.at = 0;
        while self.head.len() < bytes {
            let more = self.inner.fill_buf()?;
            let taken = more.len().min(bytes - self.head.len());
            if taken == 0 {
                break;
            }
            self.head.extend_from_slice(&more[..taken]);
            self.inner.consume(taken);
        }
        Ok(&self.head)
    }
}

impl<R: BufRead> BufRead for Peeked<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at < self.head.len() { Ok(&self.head[self.at..]) } else { self.inner.fill_buf() }
    }

    fn consume(&mut self, bytes: usize) {
        if self.at < self.head.len() {
            self.at += bytes;
        } else {
            self.inner.consume(bytes);
        }
    }
}

impl<R: BufRead> Read for Peeked<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let some = self.fill_buf()?;
        let taken = some.len().min(into.len());
        into[..taken].copy_from_slice(&some[..taken]);
        self.consume(taken);
        Ok(taken)
    }
}

enum Part<R: BufRead> {
    Plain(Peeked<R>),
    Gzip(Box<GzDecoder<Peeked<R>>>),
    Bzip2(BzDecoder<Peeked<R>>),
    Zstd(Box<ZstdDecoder<'static, Peeked<R>>>),
    Xz(Box<XzReader<Peeked<R>>>),
}

/// Reads the decompressed bytes.
pub struct Decompressed<'a, R: BufRead> {
    /// `None` at the end, and after an error.
    part: Option<Part<R>>,
    expansion: &'a Expansion,
}

impl<'a, R: BufRead> Decompressed<'a, R> {
    /// Detects the compression.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn new(reader: R, expansion: &'a Expansion) -> io::Result<Self> {
        let mut reader = Peeked::new(reader);
        let part = match detect(reader.peek(MAGIC_BYTES)?) {
            Some(compression) => open(compression, reader)?,
            None => Part::Plain(reader),
        };
        Ok(Self { part: Some(part), expansion })
    }

    /// What follows a part: another one, zeros, or nothing.
    fn next_part(part: Part<R>) -> io::Result<Option<Part<R>>> {
        let mut reader = match part {
            Part::Plain(_) => return Ok(None),
            Part::Gzip(part) => part.into_inner(),
            Part::Bzip2(part) => part.into_inner(),
            Part::Zstd(part) => part.finish(),
            Part::Xz(part) => part.into_inner(),
        };
        loop {
            let some = reader.fill_buf()?;
            if some.is_empty() {
                return Ok(None);
            }
            let zeros = some.iter().take_while(|byte| **byte == 0).count();
            let is_all = zeros == some.len();
            reader.consume(zeros);
            if !is_all {
                break;
            }
        }
        match detect(reader.peek(MAGIC_BYTES)?) {
            Some(compression) => open(compression, reader).map(Some),
            None => Err(invalid("something that is not compressed follows the compressed data")),
        }
    }
}

impl<R: BufRead> Read for Decompressed<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while let Some(mut part) = self.part.take() {
            let read = match &mut part {
                Part::Plain(part) => part.read(into),
                Part::Gzip(part) => part.read(into),
                Part::Bzip2(part) => part.read(into),
                Part::Zstd(part) => part.read(into),
                Part::Xz(part) => part.read(into),
            }?;
            if read > 0 || into.is_empty() {
                self.expansion.add_expanded(read as u64)?;
                self.part = Some(part);
                return Ok(read);
            }
            self.part = Self::next_part(part)?;
        }
        Ok(0)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    Gzip,
    Bzip2,
    Zstd,
    Xz,
}

fn detect(start: &[u8]) -> Option<Compression> {
    match start {
        [0x1F, 0x8B, ..] => Some(Compression::Gzip),
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some(Compression::Bzip2),
        // A frame, or a skippable one, with which parallel compressors start.
        [0x28, 0xB5, 0x2F, 0xFD, ..] | [0x50..=0x5F, 0x2A, 0x4D, 0x18, ..] => Some(Compression::Zstd),
        [0xFD, b'7', b'z', b'X', b'Z', 0, ..] => Some(Compression::Xz),
        _ => None,
    }
}

fn open<R: BufRead>(compression: Compression, reader: Peeked<R>) -> io::Result<Part<R>> {
    Ok(match compression {
        Compression::Gzip => Part::Gzip(Box::new(GzDecoder::new(reader))),
        Compression::Bzip2 => Part::Bzip2(BzDecoder::new(reader)),
        Compression::Zstd => Part::Zstd(Box::new(ZstdDecoder::with_buffer(reader)?.single_frame())),
        Compression::Xz => Part::Xz(Box::new(XzReader::new_mem_limit(reader, false, XZ_MEMORY_KIB))),
    })
}

fn invalid(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Reason(why.into()))
}

#[cfg(test)]
pub mod tests {
    //! Every compression, in parts and damaged.

    use std::io::{BufReader, Write};

    use super::*;

    const TEXT: &[u8] = b"{\"a\":1}\n{\"a\":2}\n";

    type Compress = fn(&[u8]) -> Vec<u8>;

    pub const COMPRESS: [(&str, Compress); 4] =
        [("gzip", gzip), ("bzip2", bzip2), ("zstd", zstd), ("xz", xz)];

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn bzip2(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = bzip2::write::BzEncoder::new(vec![], bzip2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 3).unwrap()
    }

    fn xz(bytes: &[u8]) -> Vec<u8> {
        let mut writer = lzma_rust2::XzWriter::new(vec![], lzma_rust2::XzOptions::with_preset(1)).unwrap();
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    }

    fn read(bytes: &[u8], capacity: usize) -> io::Result<Vec<u8>> {
        let expansion = Expansion::default();
        expansion.add_read(bytes.len() as u64);
        let mut text = vec![];
        Decompressed::new(BufReader::with_capacity(capacity, bytes), &expansion)?.read_to_end(&mut text)?;
        Ok(text)
    }

    #[test]
    fn every_compression_is_read_in_parts_and_with_zeros_at_the_end() {
        for (name, compress) in COMPRESS {
            let (one, two) = (compress(&TEXT[..8]), compress(&TEXT[8..]));
            let forms = [
                compress(TEXT),
                [&one[..], &two[..]].concat(),
                [&one[..], &compress(b"")[..], &two[..]].concat(),
                [&compress(TEXT)[..], &[0; 1024][..]].concat(),
                [&one[..], &[0; 8][..], &two[..], &[0; 4][..]].concat(),
            ];
            for (at, form) in forms.iter().enumerate() {
                // Buffers that end within a magic number.
                for capacity in [1, 5, 64 << 10] {
                    assert_eq!(
                        read(form, capacity).unwrap(),
                        TEXT,
                        "{name}, form {at}, {capacity} bytes at a time"
                    );
                }
            }
            let cut = &forms[0][..forms[0].len() - 3];
            assert!(read(cut, 64).is_err(), "{name}, cut off");
            let error = read(&[&forms[0][..], b"and more"].concat(), 64).unwrap_err().to_string();
            assert!(error.contains("not compressed follows"), "{name}: {error}");
        }
    }

    #[test]
    fn skippable_frames_are_skipped() {
        let skipped = [&[0x50, 0x2A, 0x4D, 0x18, 4, 0, 0, 0][..], b"size"].concat();
        for form in [[&skipped[..], &zstd(TEXT)[..]].concat(), [&zstd(TEXT)[..], &skipped[..]].concat(), {
            let parts = [&skipped[..], &zstd(&TEXT[..8])[..], &skipped[..], &zstd(&TEXT[8..])[..]];
            parts.concat()
        }] {
            assert_eq!(read(&form, 64 << 10).unwrap(), TEXT);
        }
    }

    #[test]
    fn uncompressed_data_is_passed_through() {
        for text in [TEXT, b"", b"B", b"BZh", b"\0\0\0"] {
            assert_eq!(read(text, 2).unwrap(), text);
        }
    }

    #[test]
    fn decompression_bombs_are_refused() {
        let expansion = Expansion::default();
        expansion.add_read(1 << 20);
        assert!(expansion.add_expanded(1 << 30).is_ok());
        assert!(expansion.add_expanded(1).unwrap_err().to_string().contains("500 times"));
        expansion.add_read(10 << 20);
        assert!(expansion.add_expanded(1).is_ok());
        // An xz header that requires a dictionary of 1.5 GiB.
        let mut huge = xz(TEXT);
        let header = huge.iter().skip(12).position(|byte| *byte == 0x21).unwrap() + 12;
        huge[header + 2] = 39;
        let crc_at = 12 + (usize::from(huge[12]) + 1) * 4 - 4;
        let crc = crc32fast::hash(&huge[12..crc_at]).to_le_bytes();
        huge[crc_at..crc_at + 4].copy_from_slice(&crc);
        assert!(read(&huge, 64 << 10).unwrap_err().to_string().contains("memory"));
    }
}
