//! The real program as a child process: `killstream serve` on port 0 in a temporary folder, killed on drop.
//!
//! Must not know: anything about the server but its command line, environment and ready line.

use std::env;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use killstream::store::upkeep::digest::Digest;
use reqwest::Method;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::http::{self, Reply};
use crate::support::sse::Sse;
use crate::support::upstream::Upstream;

/// The admin token of every test server.
pub const TOKEN: &str = "test-token";
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_killstream");
/// How long a server may take to be ready; debug builds on a busy machine are slow.
const READY: Duration = Duration::from_secs(180);
/// Environment variables of the developer's shell that must not reach a test.
const CLEARED: &[&str] = &[
    "DATA_DIR",
    "BIND_IP",
    "PORT",
    "SOURCE",
    "R2Z2_BASE_URL",
    "ZKB_BASE_URL",
    "ESI_BASE_URL",
    "USER_AGENT_CONTACT",
    "API_TOKEN",
    "ORIGIN_HOST",
    "R2Z2_IDLE_MS",
    "R2Z2_PACE_MS",
    "RUST_LOG",
];

/// How a server is started.
#[derive(Debug, Clone)]
pub struct Setup {
    folder: Arc<TempDir>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    config: String,
    /// Soft and hard limit of open files.
    files: Option<(u32, u32)>,
}

impl Setup {
    /// A new folder, no source, waits at a tenth of the defaults.
    pub fn quiet() -> Self {
        let folder = Arc::new(TempDir::with_prefix("killstream-it-").unwrap());
        let base = Self {
            folder,
            arguments: Vec::new(),
            environment: Vec::new(),
            config: String::new(),
            files: None,
        };
        // Nothing listens there, so a test cannot reach the real host by mistake.
        let base = base.env("R2Z2_BASE_URL", "http://127.0.0.1:9");
        base.env("SOURCE", "none")
            .env("R2Z2_IDLE_MS", "600")
            .env("R2Z2_PACE_MS", "10")
            .env("USER_AGENT_CONTACT", "tests@localhost")
    }

    /// Follows the fake feed, and sends all other requests to the fake as well.
    pub fn following(upstream: &Upstream) -> Self {
        let base = upstream.base();
        let quiet = Self::quiet().env("SOURCE", "r2z2").env("R2Z2_IDLE_MS", "60");
        quiet.env("R2Z2_BASE_URL", &base).env("ZKB_BASE_URL", &base).env("ESI_BASE_URL", &base)
    }

    /// Sets an environment variable, replacing an earlier value.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.retain(|(n, _)| n != name);
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds arguments after `serve`.
    pub fn args(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|a| (*a).to_owned()));
        self
    }

    /// Adds lines to the configuration file.
    pub fn config(mut self, lines: &str) -> Self {
        self.config.push_str(lines);
        self.config.push('\n');
        self
    }

    /// Starts with these limits of open files, soft and hard.
    pub fn files(mut self, soft: u32, hard: u32) -> Self {
        self.files = Some((soft, hard));
        self
    }

    /// The folder with data, configuration and log.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The server's data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.folder().join("data")
    }

    /// A command of the program with this environment and data folder.
    pub fn command(&self, subcommand: &str) -> Command {
        let mut command = match self.files {
            Some((soft, hard)) => {
                let mut shell = Command::new("sh");
                shell
                    .arg("-c")
                    .arg(format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\" \"$@\""))
                    .arg(PROGRAM);
                shell
            }
            None => Command::new(PROGRAM),
        };
        for name in CLEARED {
            command.env_remove(name);
        }
        command.arg(subcommand).env("DATA_DIR", self.data_dir()).env("API_TOKEN", TOKEN);
        command
            .env("BIND_IP", "127.0.0.1")
            .env("PORT", "0")
            .envs(self.environment.iter().cloned())
            .current_dir(self.folder());
        command
    }

    /// Starts and waits for the ready line.
    pub fn start(self) -> Server {
        self.try_start().unwrap_or_else(|(status, log)| {
            panic!("the server ended with {status} before it was ready:\n{log}")
        })
    }

    /// The configuration, with a compiler that does not yield: next to other tests it would hardly get any CPU time.
    fn with_eager_compiler(&self) -> String {
        const EAGER: &str = "[plugin]\ncompile_nice = 0\n";
        if self.config.contains("compile_nice") {
            return self.config.clone();
        }
        if self.config.contains("[plugin]\n") {
            self.config.replacen("[plugin]\n", EAGER, 1)
        } else {
            format!("{}{EAGER}", self.config)
        }
    }

    /// Starts the server. If it exits before it is ready, returns its status and log.
    pub fn try_start(self) -> Result<Server, (ExitStatus, String)> {
        let mut command = self.command("serve");
        let path = self.folder().join("killstream.toml");
        File::create(&path).unwrap().write_all(self.with_eager_compiler().as_bytes()).unwrap();
        command.arg("--config").arg(path);
        let log = self.folder().join("log");
        let stderr = File::options().create(true).append(true).open(&log).unwrap();
        let mut child = command
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        let end = Instant::now() + READY;
        while let Ok(line) = lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            if let Some(address) = line.strip_prefix("listening on http://") {
                let address = address.trim().parse().unwrap_or_else(|e| panic!("{line}: {e}"));
                return Ok(Server { setup: self, child, address, lines });
            }
        }
        let in_time = Instant::now() < end;
        if !in_time {
            let _ = child.kill();
        }
        let status = child.wait().unwrap();
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        assert!(in_time, "not ready within {READY:?}:\n{text}");
        Err((status, text))
    }
}

/// The lines of a stream, read on a thread so that the child never blocks on a full pipe.
fn lines_of(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = sync_channel(1000);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            // Lines beyond the bound are dropped.
            let _ = sender.try_send(line);
        }
    });
    receiver
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    setup: Setup,
    child: Child,
    address: SocketAddr,
    lines: Receiver<String>,
}

impl Server {
    /// A server that follows the fake feed.
    pub fn following(upstream: &Upstream) -> Self {
        Setup::following(upstream).start()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The log so far, including that of earlier starts on the same folder.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.setup.folder().join("log")).unwrap_or_default()
    }

    /// The lines on stdout since the ready line.
    pub fn said(&self) -> Vec<String> {
        self.lines.try_iter().collect()
    }

    pub async fn get(&self, path: &str) -> Reply {
        http::request(Method::GET, &self.url(path), &[], Vec::new()).await
    }

    /// The digest of all killmails, as `killstream verify --digest` prints it: equal stores have equal digests.
    pub async fn digest(&self) -> String {
        let reply = self.send(Method::GET, "/api/v1/export", Vec::new()).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let mut digest = Digest::default();
        reply
            .body
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .for_each(|line| digest.add(line));
        digest.finish().0
    }

    /// Sends a request with the admin token.
    pub async fn send(&self, method: Method, path: &str, body: impl Into<Vec<u8>>) -> Reply {
        let token = format!("Bearer {TOKEN}");
        http::request(method, &self.url(path), &[("authorization", &token)], body.into()).await
    }

    /// Sends a POST request with a JSON body and without a token.
    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        http::request(
            Method::POST,
            &self.url(path),
            &[("content-type", "application/json")],
            serde_json::to_vec(body).unwrap(),
        )
        .await
    }

    /// Uploads a component, which must be accepted.
    pub async fn upload(&self, name: &str, component: &[u8]) -> Value {
        let reply = self.send(Method::PUT, &format!("/api/v1/plugins/{name}"), component).await;
        assert!(reply.status.is_success(), "{}: {}", reply.status, reply.text());
        reply.json()
    }

    /// Opens a stream, by path and query.
    pub async fn stream(&self, path: &str) -> Sse {
        Sse::get(self.address, path, &[]).await
    }

    /// Opens a basic stream with this query.
    pub async fn basic(&self, query: &str) -> Sse {
        self.stream(&format!("/api/v1/kills/stream?{query}")).await
    }

    /// Opens an enhanced stream with this query.
    pub async fn enhanced(&self, query: &str) -> Sse {
        self.stream(&format!("/api/v1/kills/stream/enhanced?{query}")).await
    }

    /// Kills the process with SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends SIGTERM and waits. Returns the exit status.
    pub fn stop(&mut self) -> ExitStatus {
        let id = libc::pid_t::try_from(self.child.id()).unwrap();
        #[expect(unsafe_code, reason = "std cannot send SIGTERM")]
        // SAFETY: `kill` takes no pointers. The child has not been waited for, so its id is still its own.
        let sent = unsafe { libc::kill(id, libc::SIGTERM) };
        assert_eq!(sent, 0);
        let end = Instant::now() + READY;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "did not stop within {READY:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills the server if it is still running, and starts it again on the same folder.
    pub fn restart(&mut self) {
        self.kill();
        *self = self.setup.clone().start();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A killed process writes no coverage profile.
        let is_counted = env::var_os("LLVM_PROFILE_FILE").is_some() && !std::thread::panicking();
        if is_counted && matches!(self.child.try_wait(), Ok(None)) {
            self.stop();
        }
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let from = log.char_indices().rev().nth(6000).map_or(0, |(at, _)| at);
            eprintln!("--- the end of the server's log ---\n{}", &log[from..]);
        }
    }
}
