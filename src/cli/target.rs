//! What a command works on: a data folder here, or a running server; and how addresses are written.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Args;
use reqwest::Url;

use crate::store::engine::data_folder;
use crate::store::error::StoreError;

/// A data folder, which must be free.
#[derive(Debug, Clone, Args)]
pub struct Folder {
    /// The data folder.
    #[arg(long, env = "DATA_DIR", default_value = "./data")]
    pub data_dir: PathBuf,
}

impl Folder {
    /// The folder, in which there is a store: a mistyped name must not make a new one.
    ///
    /// # Errors
    /// There is no store in it.
    pub fn existing(&self) -> Result<&Path, StoreError> {
        data_folder::must_hold_store(&self.data_dir)?;
        Ok(&self.data_dir)
    }
}

/// A data folder, or a running server.
#[derive(Debug, Clone, Args)]
pub struct Target {
    #[command(flatten)]
    pub folder: Folder,
    /// Work through a running server instead: http://host:port.
    #[arg(long, value_name = "URL", value_parser = server_url)]
    pub server: Option<String>,
    /// The server's token; needed for what writes.
    #[arg(long, env = "API_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
}

/// The origin of a server, as `--server` takes it.
fn server_url(text: &str) -> Result<String, String> {
    let text = text.trim();
    if !text.contains("://") {
        return Err(format!("a URL begins with http:// or https://; write --server http://{text}"));
    }
    let url =
        Url::parse(text).map_err(|error| format!("not a URL ({error}); write --server http://HOST:PORT"))?;
    match url.scheme() {
        "http" | "https" => Ok(text.trim_end_matches('/').to_owned()),
        other => Err(format!(
            "{other}:// is not spoken here; write --server http://HOST:PORT or https://HOST:PORT"
        )),
    }
}

/// The address and port of `--listen`.
///
/// # Errors
/// What to write instead.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let write = |ip: IpAddr, port: u16| format!("write --listen {}", SocketAddr::new(ip, port));
    let everywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let both = |port: u16| {
        format!(
            "{} for this machine only, {} for every address",
            write(here, port),
            SocketAddr::new(everywhere, port)
        )
    };
    if let Ok(port) = text.strip_prefix(':').unwrap_or(text).parse::<u16>() {
        return Err(format!("the address is missing before the port; {}", both(port)));
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Err(format!("the port is missing; {}", write(ip, 4004)));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err("an address and a port are needed; write --listen 127.0.0.1:4004".to_owned());
    };
    if let Ok(ip) = host.parse::<Ipv6Addr>() {
        let port = port.parse().unwrap_or(4004);
        return Err(format!("an IPv6 address stands in brackets; {}", write(ip.into(), port)));
    }
    match port.parse() {
        Ok(port) if host.eq_ignore_ascii_case("localhost") => {
            Err(format!("localhost is a name, an address is needed; {}", write(here, port)))
        }
        Ok(port) => Err(format!("{host:?} is not an IP address; {}", both(port))),
        Err(_) => {
            Err(format!("{port:?} is not a port (0 to 65535); {}", write(host.parse().unwrap_or(here), 4004)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_none_is_answered_with_what_to_write() {
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
            let told = listen_address(text).unwrap_err();
            assert!(told.contains(instead) && !told.contains("syntax"), "{text}: {told}");
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
            let told = server_url(text).unwrap_err();
            assert!(told.contains(instead), "{text}: {told}");
        }
    }
}
