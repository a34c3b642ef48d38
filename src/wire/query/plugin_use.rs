//! The plugin that a request names, and its configuration.
//!
//! Must not know: whether the plugin exists, or what its configuration means.

use serde_json::{Map, Value};

use crate::domain::subscription::PluginUse;
use crate::wire::query::limits::Limits;
use crate::wire::query::parameters::{ParameterError, Parameters};
use crate::wire::read::number::describe;

/// The setting that limits a configuration.
const CONFIG_SETTING: &str = "plugin.config_bytes";
/// Plugins of one subscription: chains are not implemented.
const PLUGINS_MAX: usize = 1;

/// Reads the plugin of a request: `plugin` and `plugin_config`, or the only element of `plugins`.
///
/// # Errors
/// A parameter is invalid, or both forms are used at once.
pub fn read_plugin_use(
    parameters: &Parameters<'_>,
    limits: Limits,
) -> Result<Option<PluginUse>, ParameterError> {
    let name = parameters.text("plugin")?;
    let config = parse_json(parameters, "plugin_config", limits)?
        .map(|value| read_config("plugin_config", value, limits))
        .transpose()?;
    let list = read_list(parameters, limits)?;
    match (name, config, list) {
        (Some(_), _, Some(_)) => Err(ParameterError::new("plugins", "plugin and plugins cannot be combined")),
        (None, Some(_), _) => Err(ParameterError::new("plugin_config", "plugin_config requires plugin")),
        (Some(name), config, None) => Ok(Some(PluginUse {
            name: name.to_owned(),
            version: None,
            config: config.unwrap_or_else(|| "{}".to_owned()),
        })),
        (None, None, list) => Ok(list),
    }
}

fn parse_json(
    parameters: &Parameters<'_>,
    field: &str,
    limits: Limits,
) -> Result<Option<Value>, ParameterError> {
    parameters.json(field, limits.formatted_config_bytes()).map_err(|error| match error.limit {
        Some(_) => {
            let setting = limits.plugin_config_bytes;
            ParameterError { message: format!("{} ({CONFIG_SETTING} is {setting})", error.message), ..error }
        }
        None => error,
    })
}

fn read_list(parameters: &Parameters<'_>, limits: Limits) -> Result<Option<PluginUse>, ParameterError> {
    const FIELD: &str = "plugins";
    let mut list = match parse_json(parameters, FIELD, limits)? {
        None => return Ok(None),
        Some(Value::Array(list)) => list,
        Some(other) => {
            return Err(ParameterError::new(
                FIELD,
                format!("plugins must be a list, not {}", describe(&other)),
            ));
        }
    };
    if list.len() > PLUGINS_MAX {
        return Err(ParameterError::too_many(FIELD, PLUGINS_MAX));
    }
    match list.pop() {
        None => Ok(None),
        Some(Value::Object(element)) => read_element(FIELD, element, limits).map(Some),
        Some(other) => Err(ParameterError::new(
            FIELD,
            format!("an element of plugins must be an object, not {}", describe(&other)),
        )),
    }
}

fn read_element(
    field: &str,
    element: Map<String, Value>,
    limits: Limits,
) -> Result<PluginUse, ParameterError> {
    let mut plugin = PluginUse { name: String::new(), version: None, config: "{}".to_owned() };
    for (key, value) in element {
        match (key.as_str(), value) {
            (_, Value::Null) => {}
            ("name", Value::String(name)) => plugin.name = name,
            ("version", Value::String(version)) => plugin.version = Some(version),
            ("config", value) => plugin.config = read_config(field, value, limits)?,
            ("on_fault", Value::String(word)) if word == "skip" => {}
            ("on_fault", value) => {
                return Err(ParameterError::new(
                    field,
                    format!("on_fault must be \"skip\" here, not {}", describe(&value)),
                ));
            }
            ("name" | "version", value) => {
                return Err(ParameterError::new(
                    field,
                    format!("{key} must be a string, not {}", describe(&value)),
                ));
            }
            _ => {
                return Err(ParameterError::new(field, format!("an element of plugins has no member {key}")));
            }
        }
    }
    if plugin.name.is_empty() {
        Err(ParameterError::new(field, "an element of plugins needs a name"))
    } else {
        Ok(plugin)
    }
}

/// The configuration as the guest gets it. A JSON string is taken to contain the configuration as JSON.
fn read_config(field: &str, value: Value, limits: Limits) -> Result<String, ParameterError> {
    let text = match value {
        Value::String(text) => match serde_json::from_str::<Value>(&text) {
            Ok(_) => text,
            Err(error) => {
                let what = "a configuration in a string must be JSON, and this string is not";
                return Err(ParameterError::new(
                    field,
                    format!("Invalid {field}: {what}: {error}; give an object, or its JSON in a string"),
                ));
            }
        },
        other => other.to_string(),
    };
    let most = limits.plugin_config_bytes;
    if text.len() > most {
        let message =
            format!("the plugin's configuration is {} bytes; at most {most} ({CONFIG_SETTING})", text.len());
        return Err(ParameterError::over(field, message, most as u64));
    }
    Ok(text)
}
