//! Scans the files of a data folder without the engine, for `salvage`: finds every intact frame, whatever is
//! damaged around it, and log entries that mention revisions.
//!
//! A frame occurs several times in these files: where it was first written, in later copies of its page, and in
//! pages that are no longer in use. They also contain frames that were being written when a process ended and
//! were never committed. Therefore the scan notes when each version was last written.
//!
//! Must not know: which versions are recovered.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use hashbrown::HashMap;

use crate::domain::id::Seq;
use crate::store::engine::segments::{SEGMENT_BYTES, blobs_path, db_path, read_up_to, segments};
use crate::store::engine::{copy, journal, spare};
use crate::store::error::StoreError;
use crate::store::format::frame::{self, FRAME_MAX, Frame, Header};
use crate::store::format::log_entry;
use crate::store::progress::{Phase, Progress};

/// Greater than any byte count of the engine.
const JOURNALED: u64 = 1 << 62;
/// Bytes scanned at once.
const CHUNK_BYTES: usize = 8 << 20;

/// One version of one killmail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version {
    pub killmail_id: u64,
    pub rev: u64,
    pub seq: Seq,
    /// Nearly always tells apart two versions of the same revision, of which only one was committed.
    raw_bytes: u32,
}

impl Version {
    const fn new(header: &Header) -> Self {
        Self {
            killmail_id: header.killmail_id,
            rev: header.rev,
            seq: header.seq,
            raw_bytes: header.raw_bytes,
        }
    }
}

/// Where the frames of a version are in the files.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// When the last of them was written: the engine's count of bytes; 0 if unknown.
    pub written: u64,
    parts: Vec<Option<Place>>,
}

impl Places {
    /// Whether every part was found.
    pub fn are_complete(&self) -> bool {
        self.parts.iter().all(Option::is_some)
    }
}

#[derive(Debug, Clone, Copy)]
struct Place {
    file: u32,
    length: u32,
    at: u64,
    written: u64,
}

/// What the files contain.
#[derive(Debug, Default)]
pub struct Raw {
    files: Vec<File>,
    /// Every version of which a part is intact.
    pub versions: HashMap<Version, Places>,
    /// Revisions (from 1) that log entries mention, with their killmails.
    pub revised: HashMap<u64, Vec<u32>>,
    /// The newest version of the record format.
    pub record_version: u8,
    pub bytes: u64,
}

/// The frames of one version, and what they contain.
pub struct RawRecord {
    pub header: Header,
    /// The payloads of all frames.
    pub payload: Vec<u8>,
    pub frames: Vec<Vec<u8>>,
}

impl Raw {
    /// Scans the files of a data folder; does not change them.
    ///
    /// # Errors
    /// The file system.
    pub fn scan(data_dir: &Path, progress: &Progress<'_>) -> Result<Self, StoreError> {
        let mut raw = Self::default();
        let mut sources = Vec::new();
        let spare = Some(spare::path(data_dir)).filter(|path| path.exists());
        let db = Some(db_path(data_dir)).filter(|path| path.exists());
        for path in db.into_iter().chain(spare) {
            let segments =
                File::open(&path).and_then(|file| segments(&file)).map_err(StoreError::io("read", &path))?;
            let written = segments.into_iter().map(|segment| (segment.at, segment.written)).collect();
            sources.push((path, Written::BySegment(written)));
        }
        for entry in copy::list_files(&blobs_path(data_dir))? {
            let written = entry.file_name().to_str().and_then(|name| name.parse().ok()).unwrap_or(0);
            sources.push((entry.path(), Written::From(written)));
        }
        // Everything in the journal was committed, so it counts as later than anything in the engine's files.
        let journal =
            (JOURNALED..).step_by(1 << 40).zip(journal::paths(data_dir)).filter(|(_, path)| path.exists());
        sources.extend(journal.map(|(written, path)| (path, Written::From(written))));
        let total =
            sources.iter().filter_map(|(path, _)| path.metadata().ok()).map(|meta| meta.len() >> 20).sum();
        let mut phase = Phase::new(progress, "scan (MiB)", total);
        for (path, written) in sources {
            raw.scan_file(&path, &written, &mut phase).map_err(StoreError::io("read", &path))?;
        }
        Ok(raw)
    }

    /// Reads the frames of a version. `None` if they are not intact any more.
    pub fn read(&self, places: &Places) -> Option<RawRecord> {
        let frames: Vec<Vec<u8>> =
            places.parts.iter().map(|place| self.read_bytes(place.as_ref()?)).collect::<Option<_>>()?;
        let mut payload = Vec::new();
        let mut header = None;
        for bytes in &frames {
            let frame = frame::open(bytes).ok()?;
            if *header.get_or_insert(frame.header) != frame.header {
                return None;
            }
            payload.extend_from_slice(frame.payload);
        }
        header.map(|header| RawRecord { header, payload, frames })
    }

    fn read_bytes(&self, place: &Place) -> Option<Vec<u8>> {
        let mut bytes = vec![0; place.length as usize];
        self.files.get(place.file as usize)?.read_exact_at(&mut bytes, place.at).ok()?;
        Some(bytes)
    }

    fn scan_file(&mut self, path: &Path, written: &Written, phase: &mut Phase<'_>) -> io::Result<()> {
        let file = File::open(path)?;
        let number = self.files.len() as u32;
        let mut buffer = vec![0; CHUNK_BYTES + FRAME_MAX];
        for start in (0..).step_by(CHUNK_BYTES) {
            let length = read_up_to(&file, &mut buffer, start)?;
            let bytes = &buffer[..length];
            // Frames that begin after the chunk are found in the next one.
            for (at, frame) in frame::find(bytes).take_while(|(at, _)| *at < CHUNK_BYTES) {
                let at = start + at as u64;
                self.add(
                    &frame,
                    Place { file: number, length: frame.bytes() as u32, at, written: written.at(at) },
                );
            }
            for revised in log_entry::find_revised(bytes) {
                let killmails = self.revised.entry(revised.rev).or_default();
                if !killmails.contains(&revised.killmail_id) {
                    killmails.push(revised.killmail_id);
                }
            }
            self.bytes += length as u64;
            phase.advance(length.min(CHUNK_BYTES) as u64 >> 20);
            if length <= CHUNK_BYTES {
                break;
            }
        }
        self.files.push(file);
        Ok(())
    }

    fn add(&mut self, frame: &Frame<'_>, place: Place) {
        self.record_version = self.record_version.max(frame.header.version);
        let places = self.versions.entry(Version::new(&frame.header)).or_default();
        places.written = places.written.max(place.written);
        places.parts.resize(places.parts.len().max(usize::from(frame.parts)), None);
        let part = &mut places.parts[usize::from(frame.part)];
        if part.is_none_or(|known| known.written < place.written) {
            *part = Some(place);
        }
    }
}

/// When the bytes of a file were written, as the engine's count of bytes.
enum Written {
    /// Offset of a segment in the file -> when its first byte was written.
    BySegment(HashMap<u64, u64>),
    /// Consecutively, beginning then.
    From(u64),
}

impl Written {
    fn at(&self, at: u64) -> u64 {
        match self {
            Self::BySegment(segments) => segments
                .get(&(at / SEGMENT_BYTES * SEGMENT_BYTES))
                .map_or(0, |written| written + at % SEGMENT_BYTES),
            Self::From(written) => written + at,
        }
    }
}
