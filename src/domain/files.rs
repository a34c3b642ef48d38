//! Interpretation of I/O errors.
//!
//! Must not know: which file is concerned.

use std::io::{Error, ErrorKind};

/// Whether a write failed for lack of space: the disk, a quota or the file size limit of the process.
#[must_use]
pub fn is_disk_full(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_of_a_full_disk_is_known() {
        // ENOSPC, EDQUOT, EFBIG; EACCES, EIO.
        for (number, expected) in [(28, true), (122, true), (27, true), (13, false), (5, false)] {
            assert_eq!(is_disk_full(&Error::from_raw_os_error(number)), expected, "{number}");
        }
    }
}
