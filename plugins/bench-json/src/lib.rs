//! The filter of `bench-filter` as in most plugin systems: the killmail is passed as JSON bytes in linear memory.
//!
//! A core module, not a component. The host calls `room` for where to write, writes, then calls `configure` once and `evaluate` for
//! each killmail. Only the needed fields are read; serde skips the rest. With `whole` the entire killmail is deserialized
//! before it is evaluated, as in systems whose SDK does that for the plugin.

mod whole;

use std::cell::RefCell;
use std::hint::black_box;

use serde::Deserialize;

use crate::whole::Whole;

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Filter {
    min_isk: f64,
    characters: Vec<u32>,
    whole: bool,
}

#[derive(Deserialize)]
struct Killmail {
    #[serde(default)]
    total_value: f64,
    attackers: Vec<Attacker>,
}

/// For a filter without attackers.
#[derive(Deserialize)]
struct Value {
    #[serde(default)]
    total_value: f64,
}

#[derive(Deserialize)]
struct Attacker {
    character_id: Option<u32>,
}

thread_local! {
    static INPUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static FILTER: RefCell<Filter> = RefCell::default();
}

/// Where the host may write this many bytes.
#[unsafe(no_mangle)]
pub extern "C" fn room(bytes: usize) -> *mut u8 {
    INPUT.with_borrow_mut(|input| {
        input.resize(bytes, 0);
        input.as_mut_ptr()
    })
}

/// Reads the configuration from the bytes written; 1 if it is accepted.
#[unsafe(no_mangle)]
pub extern "C" fn configure() -> i32 {
    let read = INPUT.with_borrow(|input| serde_json::from_slice(input));
    read.map(|filter| FILTER.set(filter)).is_ok().into()
}

/// Evaluates the killmail written: 1 keep, 0 drop, -1 unreadable.
#[unsafe(no_mangle)]
pub extern "C" fn evaluate() -> i32 {
    INPUT.with_borrow(|input| FILTER.with_borrow(|filter| filter.judge(input))).map_or(-1, i32::from)
}

impl Filter {
    fn judge(&self, json: &[u8]) -> serde_json::Result<bool> {
        if self.whole {
            // Without this use, the compiler would remove the reading.
            let killmail: Whole = black_box(serde_json::from_slice(json)?);
            return Ok(killmail.total_value >= self.min_isk && (self.characters.is_empty() || killmail.attacked(&self.characters)));
        }
        if self.characters.is_empty() {
            return serde_json::from_slice::<Value>(json).map(|killmail| killmail.total_value >= self.min_isk);
        }
        let killmail: Killmail = serde_json::from_slice(json)?;
        let ids = killmail.attackers.iter().filter_map(|attacker| attacker.character_id);
        Ok(killmail.total_value >= self.min_isk && ids.into_iter().any(|id| self.characters.binary_search(&id).is_ok()))
    }
}
