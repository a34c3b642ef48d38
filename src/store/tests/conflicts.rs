//! A killmail that contradicts the stored one is logged once, however often sources send it.
//!
//! Must not know: what the log looks like beside the message.

use std::io::{self, Write};
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::subscriber::with_default;

use crate::domain::killmail::Killmail;
use crate::store::tests::{folder, incoming, killmail, open};

/// What was logged.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn contradicting(id: u32, damage_taken: i64) -> Killmail {
    let mut killmail = killmail(id);
    killmail.victim.damage_taken = damage_taken;
    killmail
}

#[test]
fn a_conflict_is_logged_once_and_counted_each_time() {
    let dir = folder();
    let store = open(&dir);
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    with_default(subscriber, || {
        store.append(vec![incoming(killmail(7)), incoming(killmail(8))], None).expect("appended");
        let batch = vec![incoming(contradicting(7, 5)), incoming(contradicting(7, 6))];
        store.append(batch, None).expect("appended");
        store.append(vec![incoming(contradicting(7, 5))], None).expect("appended");
        store.append(vec![incoming(contradicting(8, 5))], None).expect("appended");
    });
    let logged = String::from_utf8(captured.0.lock().clone()).expect("text");
    let count =
        |id: u32| logged.lines().filter(|line| line.contains(&format!("killmail {id} arrived"))).count();
    assert_eq!((count(7), count(8)), (1, 1), "{logged}");
    assert_eq!(store.stats().conflicts, 4);
}
