//! Limits of requests that follow settings.
//!
//! Must not know: the configuration. Each transport fills them in from it.

/// A plugin configuration may be sent with this many times its own size in whitespace and escapes.
const FORMATTING_FACTOR: usize = 8;
/// Always accepted as sent, bytes: a small setting must not forbid readable formatting.
const FORMATTED_MIN_BYTES: usize = 64 << 10;

/// Limits of requests that follow settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest plugin configuration, bytes (`plugin.config_bytes`).
    pub plugin_config_bytes: usize,
}

impl Limits {
    /// Largest JSON that may be parsed in search of a plugin configuration, bytes. Parsing can take a hundred
    /// times the size of the text, so this has to be checked before it.
    #[must_use]
    pub(crate) fn formatted_config_bytes(self) -> usize {
        self.plugin_config_bytes.saturating_mul(FORMATTING_FACTOR).max(FORMATTED_MIN_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formatted_json_may_be_larger_than_what_it_holds() {
        let formatted = |plugin_config_bytes| Limits { plugin_config_bytes }.formatted_config_bytes();
        assert_eq!((formatted(100), formatted(8 << 10), formatted(1 << 20)), (64 << 10, 64 << 10, 8 << 20));
        assert_eq!(formatted(usize::MAX), usize::MAX);
    }
}
