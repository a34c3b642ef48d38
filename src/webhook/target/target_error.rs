//! Why a URL is not called, in the words its owner sees.
//!
//! Must not know: when it was checked.

use crate::webhook::target::address_policy::Forbidden;

/// Why a URL is not called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not `http` or `https`, without a host, or not a URL.
    #[error("callback_url must be a valid HTTP/HTTPS URL")]
    NotHttp,
    /// With a user name or a password.
    #[error("callback_url must not contain a user name or a password")]
    UserInfo,
    /// Longer than the limit.
    #[error("callback_url has {bytes} bytes; webhook.url_bytes_max allows {bytes_max}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// A port outside of the setting.
    #[error("callback_url has port {0}; webhook.ports can allow it")]
    Port(u16),
    /// The address, or every address of the name, is forbidden.
    #[error("callback_url resolves to {0}")]
    Address(#[from] Forbidden),
    /// The name has no address; what the system says.
    #[error("callback_url cannot be resolved: {0}")]
    Unresolved(String),
}
