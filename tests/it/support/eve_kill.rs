//! A fake of EVE-KILL's websocket: welcomes, takes topics, sends what it is told to; misbehaves on demand.
//!
//! It runs on a thread of its own and records what clients say.
//!
//! Must not know: what the server makes of what it hears.

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

/// What every open connection is to do.
#[derive(Debug, Clone)]
enum Order {
    Say(String),
    Close,
}

#[derive(Debug, Default)]
struct Shelf {
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
    shelf: Arc<Mutex<Shelf>>,
    orders: broadcast::Sender<Order>,
    stop: Option<oneshot::Sender<()>>,
}

impl EveKill {
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let shelf = Arc::new(Mutex::new(Shelf::default()));
        let (orders, _) = broadcast::channel(1000);
        let (stop, stopped) = oneshot::channel();
        let (to_shelf, to_orders) = (Arc::clone(&shelf), orders.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                let accept = async {
                    while let Ok((socket, _)) = listener.accept().await {
                        tokio::spawn(serve(socket, Arc::clone(&to_shelf), to_orders.subscribe()));
                    }
                };
                tokio::select! { () = accept => {}, _ = stopped => {} }
            });
        });
        Self { address, shelf, orders, stop: Some(stop) }
    }

    pub fn url(&self) -> String {
        format!("ws://{}/killmails", self.address)
    }

    fn shelf<T>(&self, work: impl FnOnce(&mut Shelf) -> T) -> T {
        work(&mut self.shelf.lock().unwrap())
    }

    /// Topics are taken as JSON only.
    pub fn json_only(self) -> Self {
        self.shelf(|shelf| shelf.json_only = true);
        self
    }

    /// Connections are answered with this status, or taken again.
    pub fn refuse(&self, status: Option<u16>) {
        self.shelf(|shelf| shelf.refuse = status);
    }

    /// Waits for the n-th subscription.
    pub async fn subscribed(&self, times: usize) {
        until("a subscription", async || (self.shelf(|shelf| shelf.subscribed) >= times).then_some(())).await;
    }

    /// Sends a killmail to everyone subscribed.
    pub fn killmail(&self, data: &Value) {
        self.say(&json!({ "type": "killmail", "data": data }).to_string());
    }

    /// Sends any text.
    pub fn say(&self, text: &str) {
        let _ = self.orders.send(Order::Say(text.to_owned()));
    }

    /// Closes every connection.
    pub fn close(&self) {
        let _ = self.orders.send(Order::Close);
    }

    /// What clients said.
    pub fn heard(&self) -> Vec<String> {
        self.shelf(|shelf| shelf.heard.clone())
    }

    /// How clients introduced themselves.
    pub fn agents(&self) -> Vec<String> {
        self.shelf(|shelf| shelf.agents.clone())
    }

    /// Connections tried so far.
    pub fn connections(&self) -> usize {
        self.shelf(|shelf| shelf.connections)
    }
}

impl Drop for EveKill {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}

async fn serve(socket: TcpStream, shelf: Arc<Mutex<Shelf>>, mut orders: broadcast::Receiver<Order>) {
    #[expect(clippy::result_large_err, reason = "the library's own type")]
    let greet = |request: &Request, response: Response| {
        let mut shelf = shelf.lock().unwrap();
        shelf.connections += 1;
        shelf.agents.extend(
            request.headers().get("user-agent").and_then(|agent| agent.to_str().ok()).map(str::to_owned),
        );
        match shelf.refuse {
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
                    // Gone without a word, as when a proxy restarts.
                    return;
                }
            },
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => heard(&shelf, text.as_str()),
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

fn heard(shelf: &Mutex<Shelf>, text: &str) -> Option<String> {
    let mut shelf = shelf.lock().unwrap();
    shelf.heard.push(text.to_owned());
    let said: Option<Value> = serde_json::from_str(text).ok();
    match said {
        Some(said) if said["type"] == "subscribe" => {
            shelf.subscribed += 1;
            Some(json!({ "type": "subscribed", "topics": said["topics"] }).to_string())
        }
        Some(_) => None,
        None if shelf.json_only => Some(json!({ "type": "error", "message": "Invalid topics." }).to_string()),
        None => {
            shelf.subscribed += 1;
            Some(json!({ "type": "subscribed", "topics": text.split(',').collect::<Vec<_>>() }).to_string())
        }
    }
}
