//! A disk that fills up: nothing more is written, reads go on, and once there is room writing goes on by itself.
//!
//! Must not know: what else is on the disk; the file that fills it is large enough for the rest not to matter.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

use bytes::Bytes;
use killstream::domain::entry::Origin;
use killstream::domain::id::Seq;
use killstream::domain::killmail::Killmail;
use killstream::store::{AgeRule, Config, Error, Incoming, Store, ZkbRule};
use tempfile::TempDir;

use crate::support::dice::Dice;
use crate::support::killmail::random;

/// Others may write or remove half of it meanwhile, bytes.
const FILLER: u64 = 1 << 30;

fn free(dir: &Path) -> u64 {
    let path = std::ffi::CString::new(dir.to_str().unwrap()).unwrap();
    let mut answer = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    #[expect(unsafe_code, reason = "statvfs has no safe form in the standard library")]
    // SAFETY: the path ends with a zero byte, and every bit pattern is a statvfs.
    let answer = unsafe {
        assert_eq!(libc::statvfs(path.as_ptr(), answer.as_mut_ptr()), 0);
        answer.assume_init()
    };
    answer.f_bavail * answer.f_frsize
}

fn fill(path: &Path) {
    let file = File::create(path).unwrap();
    #[expect(unsafe_code, reason = "posix_fallocate has no safe form in the standard library")]
    // SAFETY: the descriptor is open for as long as `file` lives.
    let answer = unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, i64::try_from(FILLER).unwrap()) };
    assert_eq!(answer, 0, "{}", std::io::Error::from_raw_os_error(answer));
}

fn incoming(id: u32) -> Incoming {
    let killmail: Killmail = random(&mut Dice::new(u64::from(id)), id, 1_760_000_000 + i64::from(id));
    Incoming { killmail, origin: Origin::Live, received_at_ms: 0, uploaded_at: None, age: AgeRule::ByUpload, zkb: ZkbRule::IfNewer }
}

#[test]
fn a_full_disk_stops_writing_and_nothing_else() {
    let folder = TempDir::with_prefix("killstream-space-").unwrap();
    let filler = folder.path().join("filler");
    let min_free_bytes = free(folder.path()) - FILLER / 2;
    let dir = folder.path().join("data");
    let config = Config { dir, min_free_bytes, encode: |_| Bytes::new(), ..Config::default() };
    let store = Store::open(config.clone()).unwrap();
    store.append((1..=20).map(incoming).collect(), None).unwrap();
    for round in 1..=2u32 {
        fill(&filler);
        assert!(!store.has_space());
        for _ in 0..3 {
            let refused = store.append(vec![incoming(20 + round)], None);
            assert!(matches!(refused, Err(Error::NoSpace { free, min }) if free < min && min == min_free_bytes));
        }
        assert_eq!((store.head(), store.killmail(20 + round).unwrap().is_none()), (Seq(u64::from(19 + round)), true));
        assert_eq!(store.killmail(7).unwrap().unwrap().killmail, incoming(7).killmail);
        std::fs::remove_file(&filler).unwrap();
        assert!(store.has_space());
        store.append(vec![incoming(20 + round)], None).unwrap();
    }
    drop(store);
    // It starts without room, too.
    fill(&filler);
    let store = Store::open(config).unwrap();
    assert_eq!((store.head(), store.has_space()), (Seq(22), false));
    assert_eq!(store.killmail(22).unwrap().unwrap().killmail, incoming(22).killmail);
}
