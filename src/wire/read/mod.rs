//! Reads upstream documents as killmails: every known format, and the reasons for refusing a document.
//!
//! JSON is read in four ways, each for its own reason:
//!
//! - `node`: serde parses a document of normal size into a borrowed tree. This is the usual way.
//! - `lenient`: a hand-written parser for documents that serde rejects or that are too large to build whole. It
//!   keeps a value that is not valid JSON as raw bytes, so that one bad number does not cost a killmail.
//! - `split`: a push parser that finds where documents end in a stream of bytes. It builds nothing, and works on
//!   chunks that begin and end anywhere.
//! - `json`: serde walks over the members of an object and skips their values unparsed. It reads requests, of
//!   which only the known members may be built.
//!
//! Must not know: which source sent a document.

pub mod body;
pub mod json;
pub mod lenient;
pub mod member;
pub mod node;
pub mod number;
pub mod package;
pub mod reason;
pub mod reference;
pub mod split;
pub mod zkb;
