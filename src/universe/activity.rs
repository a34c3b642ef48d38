//! How active EVE is through the day.
//!
//! Must not know: what a killmail is; clocks.

/// Killmails by hour of the day (UTC) in one real week, 2021-11-27 to 12-03: 83,228 in total (EVE Ref). The
/// game is down from 11:00.
pub const KILLMAILS_BY_HOUR: [u32; 24] = [
    3515, 3587, 3301, 3328, 3598, 2721, 2348, 2052, 2190, 2285, 2426, 1744, 3293, 3889, 3735, 3755, 3870,
    4187, 4490, 5732, 5589, 4980, 3632, 2981,
];
