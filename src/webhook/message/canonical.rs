//! Messages in our own format, as subscribers of WandererKills know them.
//!
//! Must not know: other formats, when messages are sent.

use bytes::Bytes;

use crate::feed::event::Delivered;
use crate::webhook::message::Purpose;
use crate::wire::count::write_count;
use crate::wire::killmail::delivered_json;
use crate::wire::text::JsonBuffer;
use crate::wire::time::iso_micros;

/// Bytes of a message beside its killmails.
const FRAME_BYTES: usize = 160;

/// `killmail_update`: killmails of one system. Those that a subscription does not get in the ordinary way are flagged.
#[must_use]
pub fn killmail_update(killmails: &[Delivered], purpose: Purpose, now_ms: i64) -> Bytes {
    let texts: Vec<Bytes> = killmails.iter().map(delivered_json).collect();
    let bytes = texts.iter().map(|text| text.len() + 1).sum::<usize>();
    let system = killmails.first().map_or(0, |kept| kept.entry.facts.system());
    let mut out = JsonBuffer::with_capacity(FRAME_BYTES + bytes);
    out.open(b'{');
    out.field("type", "killmail_update");
    out.field("system_id", &system);
    out.key("kills");
    out.open(b'[');
    texts.iter().for_each(|text| out.raw(text));
    out.close(b']');
    out.field("timestamp", &iso_micros(now_ms));
    match purpose {
        Purpose::Update => {}
        Purpose::Preload => out.field("preload", &true),
        Purpose::Test => out.field("test", &true),
    }
    out.close(b'}');
    out.done()
}

/// `killmail_count_update`: the killmails of a system in the last 24 hours.
#[must_use]
pub fn count_update(system_id: u32, count: u64, now_ms: i64) -> Bytes {
    let mut out = JsonBuffer::with_capacity(FRAME_BYTES);
    out.open(b'{');
    out.field("type", "killmail_count_update");
    write_count(&mut out, system_id, count, now_ms);
    out.close(b'}');
    out.done()
}
