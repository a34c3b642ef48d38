//! Killmails kept in files: which files there are, what they are packed in, and filling the log from them.
//!
//! Must not know: live sources.

pub mod archive;
pub mod decompress;
pub mod file_list;
pub mod import;
