//! Killmails in files: finding the files, unpacking them, and importing them.
//!
//! Must not know: live sources.

pub mod archive;
pub mod decompress;
pub mod file_list;
pub mod import;
