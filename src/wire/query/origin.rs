//! The `Origin` header of browsers, and the settings that allow origins.
//!
//! Must not know: transports.

/// Whether an origin is allowed. Entries are whole origins (`https://example.org`), hosts (`example.org`), or
/// hosts with all their subdomains (`*.example.org`); `*` allows every origin. A request without an origin
/// does not come from a web page and is always allowed.
#[must_use]
pub fn is_allowed(origin: Option<&str>, origins: &[String]) -> bool {
    let Some(origin) = origin else { return true };
    let host = origin.split_once("://").map_or(origin, |(_, host)| host);
    let hostname = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
        .map_or(host, |(name, _)| name);
    let is_subdomain = |domain: &str| {
        hostname.len() > domain.len()
            && hostname.ends_with(domain)
            && hostname[..hostname.len() - domain.len()].ends_with('.')
    };
    origins.iter().any(|allowed| {
        let has_scheme = allowed.contains("://");
        match allowed.strip_prefix("*.") {
            _ if allowed == "*" => true,
            Some(domain) => hostname.eq_ignore_ascii_case(domain) || is_subdomain(domain),
            None if has_scheme => origin.eq_ignore_ascii_case(allowed.trim_end_matches('/')),
            None => host.eq_ignore_ascii_case(allowed) || hostname.eq_ignore_ascii_case(allowed),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_match_as_a_whole_by_host_or_by_domain() {
        let allowed = |origin: &str, allowed: &str| is_allowed(Some(origin), &[allowed.to_owned()]);
        assert!(is_allowed(None, &[]));
        assert!(allowed("http://localhost", "*") && !is_allowed(Some("http://localhost"), &[]));
        assert!(
            allowed("https://example.org", "https://example.org/")
                && !allowed("http://example.org", "https://example.org")
        );
        assert!(
            allowed("https://example.org:8443", "example.org")
                && allowed("https://example.org:8443", "example.org:8443")
        );
        assert!(
            !allowed("https://example.org:8443", "example.org:1")
                && !allowed("https://evil-example.org", "example.org")
        );
        assert!(
            allowed("https://a.example.org", "*.example.org")
                && allowed("https://example.org", "*.example.org")
        );
        assert!(!allowed("https://evilexample.org", "*.example.org") && !allowed("null", "*.example.org"));
    }
}
