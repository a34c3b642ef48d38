//! Compression with a trained dictionary: killmails are small and alike, so most of a record is in the
//! dictionary already.
//!
//! The dictionary is `dictionary.bin`, made by `cargo run --release --example store_dictionary -- FILE..`; a
//! store keeps the ones it was written with (in `meta` and as a file beside it), so that a new one never
//! makes old records unreadable.
//!
//! Must not know: what is compressed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use zstd::bulk::Compressor;
use zstd::dict::{DecoderDictionary, EncoderDictionary, from_samples};
use zstd::zstd_safe::{DCtx, get_error_name};

use crate::domain::killmail::Killmail;
use crate::store::format::record::raw;

/// The number new records name.
pub const CURRENT: u8 = 1;
/// The bytes behind that number.
pub static EMBEDDED: &[u8] = include_bytes!("dictionary.bin");
const LEVEL: i32 = 3;

thread_local! {
    /// What decompression works with, 150 KiB: making it anew for each record would take as long as the rest.
    static CONTEXT: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
}

/// The dictionaries of a store, ready for use.
pub struct Dictionaries {
    encoder: EncoderDictionary<'static>,
    decoders: BTreeMap<u8, DecoderDictionary<'static>>,
}

impl Dictionaries {
    /// Takes dictionaries by their number; new records are compressed with `CURRENT`, the embedded one if it
    /// is not among them.
    pub fn new(mut known: BTreeMap<u8, Vec<u8>>) -> Self {
        let current = known.entry(CURRENT).or_insert_with(|| EMBEDDED.to_vec());
        let encoder = EncoderDictionary::copy(current, LEVEL);
        let decoders =
            known.iter().map(|(number, bytes)| (*number, DecoderDictionary::copy(bytes))).collect();
        Self { encoder, decoders }
    }

    /// A compressor; make one for many values.
    pub fn compressor(&self) -> io::Result<Compressor<'_>> {
        Compressor::with_prepared_dictionary(&self.encoder)
    }

    /// The bytes that were compressed with this dictionary, `raw` of them.
    pub fn decompress(&self, dictionary: u8, bytes: &[u8], raw: usize) -> io::Result<Vec<u8>> {
        let unknown = || io::Error::other(format!("dictionary {dictionary} is not in this store"));
        let decoder = self.decoders.get(&dictionary).ok_or_else(unknown)?;
        let mut out = Vec::with_capacity(raw);
        let done = CONTEXT
            .with_borrow_mut(|context| context.decompress_using_ddict(&mut out, bytes, decoder.as_ddict()));
        done.map(|_| out).map_err(|code| io::Error::other(get_error_name(code)))
    }
}

/// The name of a dictionary's file beside the store; it tells whether the file is whole.
pub fn file_name(number: u8, bytes: &[u8]) -> String {
    format!("dictionary-{number}-{:08x}.bin", crc32fast::hash(bytes))
}

/// The dictionaries beside the store whose files are what their names say.
pub fn files(dir: &Path) -> io::Result<BTreeMap<u8, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let number =
            name.to_str().and_then(|name| name.strip_prefix("dictionary-")?.split('-').next()?.parse().ok());
        let Some(number) = number else { continue };
        let bytes = fs::read(entry.path())?;
        if name.to_str() == Some(&file_name(number, &bytes)) {
            found.insert(number, bytes);
        }
    }
    Ok(found)
}

/// Makes a dictionary of at most `max_bytes` out of sample killmails.
///
/// # Errors
/// Too few samples.
pub fn train(samples: &[Killmail], max_bytes: usize) -> io::Result<Vec<u8>> {
    let raw = samples.iter().map(raw).collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
    from_samples(&raw, max_bytes)
}

/// Mean size of these killmails' records under a dictionary, bytes: before compression and after.
///
/// # Errors
/// One of them cannot be encoded.
pub fn mean_bytes(killmails: &[Killmail], dictionary: &[u8]) -> io::Result<(usize, usize)> {
    let dictionaries = Dictionaries::new(BTreeMap::from([(CURRENT, dictionary.to_vec())]));
    let mut compressor = dictionaries.compressor()?;
    let (mut before, mut after) = (0, 0);
    for killmail in killmails {
        let raw = raw(killmail).map_err(io::Error::other)?;
        before += raw.len();
        after += compressor.compress(&raw)?.len();
    }
    let count = killmails.len().max(1);
    Ok((before / count, after / count))
}
