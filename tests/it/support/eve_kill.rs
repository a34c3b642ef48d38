//! A fake of EVE-KILL's websocket: sends a welcome, accepts topics, sends what a test wants, misbehaves on demand.
//!
//! It runs on its own thread and records what clients send.
//!
//! Must not know: what the server does with what it receives.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, oneshot};
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

use crate::support::until;

/// What every open connection should do.
#[derive(Debug, Clone)]
enum Order {
    Say(String),
    Close,
}

#[derive(Debug, Default)]
struct State {
    heard: Vec<String>,
    agents: Vec<String>,
    connections: usize,
    subscribed: usize,
    json_only: bool,
    refuse: Option<u16>,
}

/// The fake; stops on drop.
#[derive(Debug)]
pub struct EveKill {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    orders: broadcast::Sender<Order>,
    stop: Option<oneshot::Sender<()>>,
}

impl EveKill {
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let (orders, _) = broadcast::channel(1000);
        let (stop, stopped) = oneshot::channel();
        let (shared, to_orders) = (Arc::clone(&state), orders.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                let accept = async {
                    while let Ok((socket, _)) = listener.accept().await {
                        tokio::spawn(serve(socket, Arc::clone(&shared), to_orders.subscribe()));
                    }
                };
                tokio::select! { () = accept => {}, _ = stopped => {} }
            });
        });
        Self { address, state, orders, stop: Some(stop) }
    }

    pub fn url(&self) -> String {
        format!("ws://{}/killmails", self.address)
    }

    fn state<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap())
    }

    /// Accepts topics only as JSON.
    pub fn json_only(self) -> Self {
        self.state(|state| state.json_only = true);
        self
    }

    /// Refuses connections with this status, or accepts them again.
    pub fn refuse(&self, status: Option<u16>) {
        self.state(|state| state.refuse = status);
    }

    /// Waits for the n-th subscription.
    pub async fn subscribed(&self, times: usize) {
        until("a subscription", async || (self.state(|state| state.subscribed) >= times).then_some(())).await;
    }

    /// Sends a killmail to all connections.
    pub fn killmail(&self, data: &Value) {
        self.say(&json!({ "type": "killmail", "data": data }).to_string());
    }

    /// Sends a text to all connections.
    pub fn say(&self, text: &str) {
        let _ = self.orders.send(Order::Say(text.to_owned()));
    }

    /// Closes every connection.
    pub fn close(&self) {
        let _ = self.orders.send(Order::Close);
    }

    /// The messages clients have sent.
    pub fn heard(&self) -> Vec<String> {
        self.state(|state| state.heard.clone())
    }

    /// The user agents of clients.
    pub fn agents(&self) -> Vec<String> {
        self.state(|state| state.agents.clone())
    }

    /// Connection attempts so far.
    pub fn connections(&self) -> usize {
        self.state(|state| state.connections)
    }
}

impl Drop for EveKill {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}

async fn serve(socket: TcpStream, state: Arc<Mutex<State>>, mut orders: broadcast::Receiver<Order>) {
    #[expect(clippy::result_large_err, reason = "the library's own type")]
    let greet = |request: &Request, response: Response| {
        let mut state = state.lock().unwrap();
        state.connections += 1;
        state.agents.extend(
            request.headers().get("user-agent").and_then(|agent| agent.to_str().ok()).map(str::to_owned),
        );
        match state.refuse {
            None => Ok(response),
            Some(status) => {
                let mut refused = ErrorResponse::new(None);
                *refused.status_mut() = status.try_into().unwrap();
                Err(refused)
            }
        }
    };
    let Ok(mut socket) = accept_hdr_async(socket, greet).await else { return };
    let welcome = json!({ "type": "info", "message": "Welcome to killmail events!", "data": { "validTopics": ["all"] } });
    if socket.send(Message::text(welcome.to_string())).await.is_err() {
        return;
    }
    loop {
        let answer = tokio::select! {
            order = orders.recv() => match order {
                Ok(Order::Say(text)) => Some(text),
                _ => {
                    // Closed without a close frame, as when a proxy restarts.
                    return;
                }
            },
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => heard(&state, text.as_str()),
                Some(Ok(_)) => None,
                _ => return,
            },
            () = tokio::time::sleep(Duration::from_secs(60)) => return,
        };
        if let Some(answer) = answer
            && socket.send(Message::text(answer)).await.is_err()
        {
            return;
        }
    }
}

fn heard(state: &Mutex<State>, text: &str) -> Option<String> {
    let mut state = state.lock().unwrap();
    state.heard.push(text.to_owned());
    let said: Option<Value> = serde_json::from_str(text).ok();
    match said {
        Some(said) if said["type"] == "subscribe" => {
            state.subscribed += 1;
            Some(json!({ "type": "subscribed", "topics": said["topics"] }).to_string())
        }
        Some(_) => None,
        None if state.json_only => Some(json!({ "type": "error", "message": "Invalid topics." }).to_string()),
        None => {
            state.subscribed += 1;
            Some(json!({ "type": "subscribed", "topics": text.split(',').collect::<Vec<_>>() }).to_string())
        }
    }
}
