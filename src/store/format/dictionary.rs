//! Compression with a trained dictionary: killmails are small and similar, so the dictionary already contains
//! most of a record.
//!
//! The current dictionary is `dictionary.bin`, created by `cargo run --release --example store_dictionary --
//! FILE..`. A store keeps the dictionaries it was written with (in `meta`, and as files in the data folder), so
//! old records stay readable when a new one replaces it.
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
use crate::store::format::record::encode;

/// The number of the dictionary that new records are compressed with.
pub const CURRENT: u8 = 1;
/// The content of dictionary `CURRENT`.
pub static EMBEDDED: &[u8] = include_bytes!("dictionary.bin");
const LEVEL: i32 = 3;

thread_local! {
    /// 150 KiB; creating one for each record would double the time of decompression.
    static CONTEXT: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
}

/// The dictionaries of a store, prepared for compression and decompression.
pub struct Dictionaries {
    encoder: EncoderDictionary<'static>,
    decoders: BTreeMap<u8, DecoderDictionary<'static>>,
}

impl Dictionaries {
    /// `known` maps numbers to dictionaries. The embedded one is added if `CURRENT` is not among them.
    pub fn new(mut known: BTreeMap<u8, Vec<u8>>) -> Self {
        let current = known.entry(CURRENT).or_insert_with(|| EMBEDDED.to_vec());
        let encoder = EncoderDictionary::copy(current, LEVEL);
        let decoders =
            known.iter().map(|(number, bytes)| (*number, DecoderDictionary::copy(bytes))).collect();
        Self { encoder, decoders }
    }

    /// Creating a compressor is expensive: use it for many values.
    pub fn compressor(&self) -> io::Result<Compressor<'_>> {
        Compressor::with_prepared_dictionary(&self.encoder)
    }

    /// Decompresses a value that was compressed with this dictionary and is `raw_bytes` long.
    pub fn decompress(&self, dictionary: u8, bytes: &[u8], raw_bytes: usize) -> io::Result<Vec<u8>> {
        let unknown = || io::Error::other(format!("dictionary {dictionary} is not in this store"));
        let decoder = self.decoders.get(&dictionary).ok_or_else(unknown)?;
        let mut out = Vec::with_capacity(raw_bytes);
        let result = CONTEXT
            .with_borrow_mut(|context| context.decompress_using_ddict(&mut out, bytes, decoder.as_ddict()));
        result.map(|_| out).map_err(|code| io::Error::other(get_error_name(code)))
    }
}

/// The name of a dictionary's file in the data folder. It contains a checksum of the content.
pub fn file_name(number: u8, bytes: &[u8]) -> String {
    format!("dictionary-{number}-{:08x}.bin", crc32fast::hash(bytes))
}

/// Reads the dictionary files of a data folder, except those whose content does not match the checksum in the
/// name.
pub fn read_files(dir: &Path) -> io::Result<BTreeMap<u8, Vec<u8>>> {
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

/// Trains a dictionary of at most `max_bytes` on sample killmails.
///
/// # Errors
/// There are too few samples.
pub fn train(samples: &[Killmail], max_bytes: usize) -> io::Result<Vec<u8>> {
    let records = samples.iter().map(encode).collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
    from_samples(&records, max_bytes)
}

/// Mean size of the records of these killmails in bytes, before compression with a dictionary and after.
///
/// # Errors
/// A killmail cannot be encoded.
pub fn mean_bytes(killmails: &[Killmail], dictionary: &[u8]) -> io::Result<(usize, usize)> {
    let dictionaries = Dictionaries::new(BTreeMap::from([(CURRENT, dictionary.to_vec())]));
    let mut compressor = dictionaries.compressor()?;
    let (mut before, mut after) = (0, 0);
    for killmail in killmails {
        let record = encode(killmail).map_err(io::Error::other)?;
        before += record.len();
        after += compressor.compress(&record)?.len();
    }
    let count = killmails.len().max(1);
    Ok((before / count, after / count))
}
