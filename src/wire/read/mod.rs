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

pub(crate) mod body;
pub(crate) mod json;
pub(crate) mod lenient;
pub(crate) mod member;
pub(crate) mod node;
pub(crate) mod number;
pub mod package;
pub(crate) mod reason;
pub(crate) mod reference;
pub(crate) mod split;
pub(crate) mod zkb;
