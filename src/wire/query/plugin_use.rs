//! The plugin a request asks for, and its configuration.
//!
//! Must not know: whether there is such a plugin, or what a configuration means.

use serde_json::{Map, Value};

use crate::domain::subscription::PluginUse;
use crate::wire::query::parameters::{Error, Parameters};
use crate::wire::read::number::shown;

/// JSON that is built before it is read, bytes: a plugin's configuration may be printed with many blanks.
const BUILT_MAX_BYTES: usize = 64 << 10;
/// A plugin's configuration, bytes.
const PLUGIN_CONFIG_MAX_BYTES: usize = 8 << 10;
/// Plugins of one subscription.
const PLUGINS_MAX: usize = 1;

/// The plugin a request names, in `plugin` and `plugin_config` or as the one element of `plugins`.
///
/// # Errors
/// The parameter that is wrong, or both forms at once.
pub fn plugin_use(given: &Parameters<'_>) -> Result<Option<PluginUse>, Error> {
    let name = given.text("plugin")?;
    let config = given
        .json("plugin_config", BUILT_MAX_BYTES)?
        .map(|value| config("plugin_config", value))
        .transpose()?;
    let list = plugins(given)?;
    match (name, config, list) {
        (Some(_), _, Some(_)) => Err(Error::new("plugins", "give either plugin or plugins")),
        (None, Some(_), _) => Err(Error::new("plugin_config", "plugin_config is given without plugin")),
        (Some(name), config, None) => Ok(Some(PluginUse {
            name: name.to_owned(),
            version: None,
            config: config.unwrap_or_else(|| "{}".to_owned()),
        })),
        (None, None, list) => Ok(list),
    }
}

fn plugins(given: &Parameters<'_>) -> Result<Option<PluginUse>, Error> {
    const FIELD: &str = "plugins";
    let mut list = match given.json(FIELD, BUILT_MAX_BYTES)? {
        None => return Ok(None),
        Some(Value::Array(list)) => list,
        Some(other) => {
            return Err(Error::new(FIELD, format!("plugins must be a list, not {}", shown(&other))));
        }
    };
    if list.len() > PLUGINS_MAX {
        return Err(Error::too_many(FIELD, PLUGINS_MAX));
    }
    match list.pop() {
        None => Ok(None),
        Some(Value::Object(element)) => one_plugin(FIELD, element).map(Some),
        Some(other) => {
            Err(Error::new(FIELD, format!("an element of plugins must be an object, not {}", shown(&other))))
        }
    }
}

fn one_plugin(field: &str, element: Map<String, Value>) -> Result<PluginUse, Error> {
    let mut named = PluginUse { name: String::new(), version: None, config: "{}".to_owned() };
    for (key, value) in element {
        match (key.as_str(), value) {
            (_, Value::Null) => {}
            ("name", Value::String(name)) => named.name = name,
            ("version", Value::String(version)) => named.version = Some(version),
            ("config", value) => named.config = config(field, value)?,
            ("on_fault", Value::String(word)) if word == "skip" => {}
            ("on_fault", value) => {
                return Err(Error::new(
                    field,
                    format!("on_fault is {}; here only \"skip\" can be", shown(&value)),
                ));
            }
            ("name" | "version", value) => {
                return Err(Error::new(field, format!("{key} must be a text, not {}", shown(&value))));
            }
            _ => return Err(Error::new(field, format!("an element of plugins has no member {key}"))),
        }
    }
    if named.name.is_empty() {
        Err(Error::new(field, "an element of plugins needs a name"))
    } else {
        Ok(named)
    }
}

/// A configuration as the text a guest gets: what is written as a text of JSON is that JSON.
fn config(field: &str, value: Value) -> Result<String, Error> {
    let text = match value {
        Value::String(text) => match serde_json::from_str::<Value>(&text) {
            Ok(_) => text,
            Err(error) => {
                let what = "a configuration in a text must be JSON itself, and this text is not";
                return Err(Error::new(
                    field,
                    format!("Invalid {field}: {what}: {error}; give an object, or its JSON as a text"),
                ));
            }
        },
        other => other.to_string(),
    };
    if text.len() > PLUGIN_CONFIG_MAX_BYTES {
        let message = format!(
            "a plugin's configuration may have {PLUGIN_CONFIG_MAX_BYTES} bytes, this one has {}",
            text.len()
        );
        return Err(Error::over(field, message, PLUGIN_CONFIG_MAX_BYTES as u64));
    }
    Ok(text)
}
