//! What a command works on: a local data folder, or a running server. Also parses the addresses in arguments.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Args;
use reqwest::Url;

use crate::store::engine::data_folder;
use crate::store::error::StoreError;

/// A data folder that no other process may be using.
#[derive(Debug, Clone, Args)]
pub struct Folder {
    /// The data folder
    #[arg(long, value_name = "DIR", env = "DATA_DIR", default_value = "./data")]
    pub data_dir: PathBuf,
}

impl Folder {
    /// The folder, which has to hold a store: a mistyped name must not create a new one.
    ///
    /// # Errors
    /// There is no store in it.
    pub fn require_store(&self) -> Result<&Path, StoreError> {
        data_folder::must_hold_store(&self.data_dir)?;
        Ok(&self.data_dir)
    }
}

/// A local data folder, or a running server.
#[derive(Debug, Clone, Args)]
pub struct Target {
    #[command(flatten)]
    pub folder: Folder,
    /// Use a running server instead of a data folder: http://HOST:PORT
    #[arg(long, value_name = "URL", value_parser = server_url)]
    pub server: Option<String>,
    /// The server's token, which commands that write need
    #[arg(long, value_name = "TOKEN", env = "API_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
}

/// Parses the URL of `--server`.
fn server_url(text: &str) -> Result<String, String> {
    let text = text.trim();
    if !text.contains("://") {
        return Err(format!(
            "expected a URL that begins with http:// or https://; try --server http://{text}"
        ));
    }
    let url =
        Url::parse(text).map_err(|error| format!("not a URL ({error}); try --server http://HOST:PORT"))?;
    match url.scheme() {
        "http" | "https" => Ok(text.trim_end_matches('/').to_owned()),
        other => {
            Err(format!("{other}:// is not supported; try --server http://HOST:PORT or https://HOST:PORT"))
        }
    }
}

/// Parses the address and port of `--listen`.
///
/// # Errors
/// The text is not `IP:PORT`; the message says what to write instead.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let suggestion = |ip: IpAddr, port: u16| format!("try --listen {}", SocketAddr::new(ip, port));
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let both = |port: u16| {
        format!(
            "{} for this machine only, or {} for all addresses",
            suggestion(localhost, port),
            SocketAddr::new(any, port)
        )
    };
    if let Ok(port) = text.strip_prefix(':').unwrap_or(text).parse::<u16>() {
        return Err(format!("the address before the port is missing; {}", both(port)));
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Err(format!("the port is missing; {}", suggestion(ip, 4004)));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err("expected an address and a port; try --listen 127.0.0.1:4004".to_owned());
    };
    if let Ok(ip) = host.parse::<Ipv6Addr>() {
        let port = port.parse().unwrap_or(4004);
        return Err(format!("an IPv6 address needs brackets; {}", suggestion(ip.into(), port)));
    }
    match port.parse() {
        Ok(port) if host.eq_ignore_ascii_case("localhost") => {
            Err(format!("localhost is a name; expected an IP address; {}", suggestion(localhost, port)))
        }
        Ok(port) => Err(format!("{host:?} is not an IP address; {}", both(port))),
        Err(_) => {
            let ip = host.parse().unwrap_or(localhost);
            Err(format!("{port:?} is not a port (0 to 65535); {}", suggestion(ip, 4004)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_address_is_answered_with_what_to_write() {
        assert_eq!(listen_address("0.0.0.0:0").unwrap().port(), 0);
        for (text, instead) in [
            ("24001", "--listen 127.0.0.1:24001"),
            (":24001", "0.0.0.0:24001"),
            ("127.0.0.1", "--listen 127.0.0.1:4004"),
            ("::1", "--listen [::1]:4004"),
            ("[::1]", "--listen [::1]:4004"),
            ("localhost:80", "--listen 127.0.0.1:80"),
            ("my-host:80", "--listen 127.0.0.1:80"),
            ("127.0.0.1:99999", "--listen 127.0.0.1:4004"),
            ("nowhere", "--listen 127.0.0.1:4004"),
        ] {
            let message = listen_address(text).unwrap_err();
            assert!(message.contains(instead) && !message.contains("syntax"), "{text}: {message}");
        }
    }

    #[test]
    fn a_server_is_a_url() {
        assert_eq!(server_url("http://127.0.0.1:4004/").unwrap(), "http://127.0.0.1:4004");
        for (text, instead) in [
            ("127.0.0.1:4004", "--server http://127.0.0.1:4004"),
            ("localhost:4004", "--server http://localhost:4004"),
            ("ws://localhost:4004", "http://HOST:PORT"),
            ("http://", "http://HOST:PORT"),
            ("http://host:port", "http://HOST:PORT"),
        ] {
            let message = server_url(text).unwrap_err();
            assert!(message.contains(instead), "{text}: {message}");
        }
    }
}
