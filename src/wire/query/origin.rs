//! Origins of pages, as browsers name them and as settings allow them.
//!
//! Must not know: which door asks.

/// Whether pages of an origin are among those allowed: whole (`https://example.org`), by host
/// (`example.org`), or a host and all below it (`*.example.org`); `*` is everyone. Who sends none is no page.
#[must_use]
pub fn is_welcome(origin: Option<&str>, origins: &[String]) -> bool {
    let Some(origin) = origin else { return true };
    let host = origin.split_once("://").map_or(origin, |(_, host)| host);
    let bare = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
        .map_or(host, |(bare, _)| bare);
    let below = |domain: &str| {
        bare.len() > domain.len()
            && bare.ends_with(domain)
            && bare[..bare.len() - domain.len()].ends_with('.')
    };
    origins.iter().any(|allowed| {
        let whole = allowed.contains("://");
        match allowed.strip_prefix("*.") {
            _ if allowed == "*" => true,
            Some(domain) => bare.eq_ignore_ascii_case(domain) || below(domain),
            None if whole => origin.eq_ignore_ascii_case(allowed.trim_end_matches('/')),
            None => host.eq_ignore_ascii_case(allowed) || bare.eq_ignore_ascii_case(allowed),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_matched_whole_by_host_or_below() {
        let allowed = |origin: &str, allowed: &str| is_welcome(Some(origin), &[allowed.to_owned()]);
        assert!(is_welcome(None, &[]));
        assert!(allowed("http://localhost", "*") && !is_welcome(Some("http://localhost"), &[]));
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
