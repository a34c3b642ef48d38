//! Which implementation of TLS clients use.
//!
//! Must not know: which servers are called.

/// Installs the implementation for the whole process. Call it before creating a client; again does no harm.
pub fn install_provider() {
    // Fails only if another provider is installed already, which will do as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
