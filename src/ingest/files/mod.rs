//! Killmails in files: finding the files, unpacking them, and importing them.
//!
//! Must not know: live sources.

pub(crate) mod archive;
pub(crate) mod decompress;
pub(crate) mod file_list;
pub(crate) mod import;
