//! The two functions the server calls, for any plugin type.

use std::cell::RefCell;

use crate::{Interest, Killmail, Plugin, Summary, Verdict};

/// Reads, validates and keeps a configuration.
pub fn configure<P: Plugin>(slot: &RefCell<Option<P>>, config: &str) -> Result<Option<Interest>, String> {
    #[cfg(target_family = "wasm")]
    say_panics();
    let plugin = read::<P>(config)?;
    let interest = plugin.interest();
    *slot.borrow_mut() = Some(plugin);
    Ok(Some(interest))
}

/// Evaluates a killmail with the configuration kept.
pub fn evaluate<P: Plugin>(slot: &RefCell<Option<P>>, summary: Summary) -> Result<Verdict, String> {
    match &*slot.borrow() {
        Some(plugin) => plugin.evaluate(&Killmail::new(summary)),
        None => Err("evaluate came before configure".to_owned()),
    }
}

/// Deserializes and validates the configuration; errors name the field.
pub(crate) fn read<P: Plugin>(config: &str) -> Result<P, String> {
    let mut json = serde_json::Deserializer::from_str(config);
    let plugin: P = serde_path_to_error::deserialize(&mut json).map_err(|error| match error.path().to_string() {
        path if path == "." => error.inner().to_string(),
        path => format!("{path}: {}", error.inner()),
    })?;
    json.end().map_err(|error| error.to_string())?;
    plugin.check()?;
    Ok(plugin)
}

/// A panic is a trap without a message. Its text goes to the server's log as an error, and from there into the fault's message.
#[cfg(target_family = "wasm")]
fn say_panics() {
    std::panic::set_hook(Box::new(|panic| crate::log::error(&panic.to_string())));
}
