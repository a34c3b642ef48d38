//! How many killmails a system had in the last 24 hours, as channels and webhooks report it.
//!
//! Must not know: who is sent the count, and when.

use crate::wire::text::JsonBuffer;
use crate::wire::time::iso_micros;

/// Writes the members of a count into an open object.
pub fn write_count(out: &mut JsonBuffer, system: u32, count: u64, now_ms: i64) {
    out.field("system_id", &system);
    out.field("count", &count);
    out.field("timestamp", &iso_micros(now_ms));
}
