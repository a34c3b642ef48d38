//! Real killmails: from `$KILLSTREAM_DATA`, else from `../shared/data` next to the repository, else the bundled
//! sample.
//!
//! Must not know: how a killmail is parsed.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Once;

use killstream::sample;

/// Real documents from one file, as one JSON text each.
#[derive(Debug)]
pub struct Documents {
    /// The file's name, or `sample`.
    pub source: String,
    pub lines: Vec<String>,
}

/// The folder with real data, if there is one.
pub fn folder() -> Option<PathBuf> {
    let named = std::env::var_os("KILLSTREAM_DATA").map(PathBuf::from);
    if let Some(folder) = &named {
        assert!(
            folder.join("killmails").is_dir(),
            "KILLSTREAM_DATA={} has no folder `killmails`",
            folder.display()
        );
    }
    named.or_else(|| {
        Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"))
            .filter(|f| f.join("killmails").is_dir())
    })
}

/// Files with current forms, which must all be accepted, and the number of documents in each.
pub const CURRENT: &[(&str, usize)] = &[
    ("killmails-esi.ndjson.zst", 41_766),
    ("edge.ndjson", 214),
    ("redisq-packages.ndjson", 10),
    ("redisq-packages-reserialised.ndjson", 413),
    ("redisq-packages-normalised.derived.ndjson", 412),
    ("zkb-websocket-killstream.ndjson", 5),
];

/// Files with obsolete forms, which must be refused with a reason.
pub const LEGACY: &[(&str, usize)] = &[
    ("legacy-redisq-crest.ndjson", 55),
    ("legacy-zkb-api-2013.ndjson", 91),
    ("legacy-crest-killmails.ndjson", 1),
];

/// Number of killmails in the bundled sample.
pub const SAMPLE: usize = 3927;

/// All real documents in current forms. Prints once what was found.
pub fn current() -> Vec<Documents> {
    let documents = match folder() {
        Some(folder) => CURRENT.iter().map(|(name, count)| read(&folder, name, *count)).collect(),
        None => vec![bundled()],
    };
    static REPORTED: Once = Once::new();
    REPORTED.call_once(|| report(&documents));
    documents
}

/// All documents in obsolete forms; none if there is only the sample.
pub fn legacy() -> Vec<Documents> {
    let Some(folder) = folder() else {
        eprintln!("*** NO LEGACY DOCUMENTS HERE: set KILLSTREAM_DATA ***");
        return Vec::new();
    };
    LEGACY.iter().map(|(name, count)| read(&folder, name, *count)).collect()
}

/// The bundled sample: some thousand real killmails.
pub fn bundled() -> Documents {
    let lines: Vec<String> = sample::lines().collect();
    assert_eq!(lines.len(), SAMPLE, "the bundled sample");
    Documents { source: "sample".to_owned(), lines }
}

fn report(documents: &[Documents]) {
    let whole = documents.iter().map(|d| d.lines.len()).sum::<usize>();
    match folder() {
        Some(folder) => eprintln!("*** {whole} REAL DOCUMENTS from {} ***", folder.display()),
        None => {
            eprintln!("*** ONLY THE BUNDLED SAMPLE ({whole} killmails); set KILLSTREAM_DATA for the rest ***")
        }
    }
    for Documents { source, lines } in documents {
        eprintln!("    {:>6} {source}", lines.len());
    }
}

fn read(folder: &Path, name: &str, count: usize) -> Documents {
    let path = folder.join("killmails").join(name);
    let file = File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let reader: Box<dyn Read> =
        if name.ends_with(".zst") { Box::new(zstd::Decoder::new(file).unwrap()) } else { Box::new(file) };
    let lines: Vec<String> =
        BufReader::new(reader).lines().map(Result::unwrap).filter(|l| !l.trim().is_empty()).collect();
    assert_eq!(lines.len(), count, "{}", path.display());
    Documents { source: name.to_owned(), lines }
}

/// A single file of the data folder, if there is one.
pub fn file(path: &str) -> Option<String> {
    fs::read_to_string(folder()?.join(path)).ok()
}
