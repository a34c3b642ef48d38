//! Channels on the wire: what a handshake agrees on is kept, and a connection ends with one close frame.
//!
//! Must not know: what is said on a channel.

use flate2::{Decompress, FlushDecompress};
use serde_json::{Value, json};

use crate::support::channel::LOBBY;
use crate::support::dice::Dice;
use crate::support::killmail::SYSTEMS;
use crate::support::server::{Server, Setup};
use crate::support::socket::{CLOSE, DEFLATED_TEXT, Socket, TEXT};

const JITA: u32 = SYSTEMS[0];
/// Goodbyes are waited for this long only.
const QUICK: &str = "[channels]\ngoodbye_ms = 200\nframe_max_bytes = 100_000";

/// A place nobody has, which comes back in the answer: what is alike in it stands 3,000 bytes apart.
fn place() -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut dice = Dice::new(7);
    let text: String = (0..3_000).map(|_| char::from(LETTERS[dice.below(64) as usize])).collect();
    format!("{text}{}", &text[..300])
}

fn join() -> Vec<u8> {
    json!(["1", "1", LOBBY, "phx_join", { "systems": [JITA], "resume_from": place() }])
        .to_string()
        .into_bytes()
}

/// Inflates a message.
fn inflated(body: &[u8]) -> Value {
    let body = [body, &[0, 0, 0xff, 0xff]].concat();
    let (mut inflate, mut text) = (Decompress::new(false), vec![0; 16 << 10]);
    inflate.decompress(&body, &mut text, FlushDecompress::Sync).unwrap();
    text.truncate(usize::try_from(inflate.total_out()).unwrap());
    serde_json::from_slice(&text).unwrap()
}

/// The first answer to a join over a connection with these offers: what was agreed, the first byte, the
/// payload.
async fn answered(server: &Server, offers: &[&str]) -> (Option<String>, u8, Vec<u8>) {
    let mut socket = Socket::open(server.address(), offers).await;
    let agreed = socket.header("sec-websocket-extensions").map(str::to_owned);
    socket.frame(TEXT, &join()).await;
    let (first, payload) = socket.next().await.unwrap();
    (agreed, first, payload)
}

#[tokio::test]
async fn the_window_agreed_to_is_the_window_used() {
    let server = Setup::quiet().start();
    let small = answered(
        &server,
        &["sec-websocket-extensions: permessage-deflate; server_max_window_bits=9; client_max_window_bits=9"],
    )
    .await;
    let agreed = small.0.unwrap();
    assert!(
        agreed.starts_with("permessage-deflate; server_max_window_bits=9;") && !agreed.contains("client_max"),
        "{agreed}"
    );
    assert_eq!(
        (small.1, &inflated(&small.2)[4]["response"]["gap"]["requested"]),
        (DEFLATED_TEXT, &json!(place()))
    );
    let whole =
        answered(&server, &["sec-websocket-extensions: permessage-deflate; client_max_window_bits"]).await;
    assert!(!whole.0.unwrap().contains("window_bits"));
    assert_eq!(inflated(&whole.2)[4]["response"]["gap"]["requested"], place());
    // What a window of 512 bytes cannot reach has to be written out again.
    assert!(small.2.len() > whole.2.len() + 200, "{} and {} bytes", small.2.len(), whole.2.len());
    // What Python's `websockets` offers, behind something nobody knows; this window reaches far enough.
    let offer =
        "permessage-deflate; foo, permessage-deflate; server_max_window_bits=12; client_max_window_bits=12";
    let second = answered(&server, &[&format!("sec-websocket-extensions: {offer}")]).await;
    assert!(second.0.unwrap().contains("server_max_window_bits=12"));
    assert!(second.2.len() < whole.2.len() + 50, "{} and {} bytes", second.2.len(), whole.2.len());
}

#[tokio::test]
async fn what_cannot_be_kept_is_declined() {
    let server = Setup::quiet().start();
    for offer in [
        "permessage-deflate; foo=1",
        "permessage-deflate; server_max_window_bits=8",
        "permessage-deflate; server_max_window_bits",
    ] {
        let (agreed, first, payload) =
            answered(&server, &[&format!("sec-websocket-extensions: {offer}")]).await;
        assert_eq!((agreed, first), (None, TEXT), "{offer}");
        assert!(serde_json::from_slice::<Value>(&payload).is_ok());
    }
    let server = Setup::quiet().config("[channels]\ncompression = false").start();
    let (agreed, first, _) = answered(&server, &["sec-websocket-extensions: permessage-deflate"]).await;
    assert_eq!((agreed, first), (None, TEXT));
}

#[tokio::test]
async fn the_token_of_phoenix_is_a_protocol() {
    let server = Setup::quiet().start();
    let offered = "sec-websocket-protocol: phoenix, base64url.bearer.phx.c2VjcmV0";
    let socket = Socket::open(server.address(), &[offered]).await;
    assert_eq!(socket.header("sec-websocket-protocol"), Some("phoenix"), "a browser goes away without");
    let socket = Socket::open(server.address(), &["sec-websocket-protocol: other"]).await;
    assert_eq!(socket.header("sec-websocket-protocol"), None);
    let socket = Socket::ask(
        server.address(),
        "/socket/websocket",
        &["sec-websocket-protocol: phoenix, base64url.bearer.phx.c"],
    )
    .await;
    assert!(socket.answer.starts_with("http/1.1 400 "), "{}", socket.answer);
    let body: Value = serde_json::from_str(&socket.body().await).unwrap();
    assert_eq!(
        body["error"],
        "sec-websocket-protocol: what follows base64url.bearer.phx. must be the token in base64"
    );
}

/// What ended a connection: the code and reason of its one close frame, behind which nothing comes.
fn the_close_of(frames: &[(u8, Vec<u8>)], why: &str) -> (u16, String) {
    let closes = frames.iter().filter(|(first, _)| *first == CLOSE).count();
    let Some((CLOSE, last)) = frames.last() else { panic!("{why}: no close frame at the end of {frames:?}") };
    assert_eq!(closes, 1, "{why}: {frames:?}");
    (u16::from_be_bytes([last[0], last[1]]), String::from_utf8(last[2..].to_vec()).unwrap())
}

#[tokio::test]
async fn there_is_one_close_frame_and_nothing_behind_it() {
    let server = Setup::quiet().config(QUICK).start();
    let long = [&[TEXT, 0xff][..], &100_001_u64.to_be_bytes(), &[0; 4]].concat();
    let cases: [(&str, Vec<u8>, u16, &str); 8] = [
        ("a goodbye", vec![CLOSE, 0x82, 0, 0, 0, 0, 0x03, 0xe9], 1001, ""),
        ("a goodbye of one byte", vec![CLOSE, 0x81, 0, 0, 0, 0, 3], 1002, ""),
        ("a frame too long", long, 1009, "over 100000 bytes"),
        ("no such opcode", vec![0x83, 0x80, 0, 0, 0, 0], 1002, ""),
        ("bits nobody agreed on", vec![0xb1, 0x80, 0, 0, 0, 0], 1002, ""),
        ("a fragment of nothing", vec![0x80, 0x80, 0, 0, 0, 0], 1002, ""),
        ("a text that is none", vec![TEXT, 0x81, 0, 0, 0, 0, 0xff], 1007, ""),
        ("a fragmented ping", vec![0x09, 0x80, 0, 0, 0, 0], 1002, ""),
    ];
    for (why, bytes, code, reason) in cases {
        let mut socket = Socket::open(server.address(), &[]).await;
        // Answers that are still owed do not follow a goodbye either.
        socket.frame(TEXT, &join()).await;
        assert_eq!(socket.next().await.unwrap().0, TEXT);
        socket.bytes(&bytes).await;
        let frames = socket.rest().await;
        assert_eq!(the_close_of(&frames, why), (code, reason.to_owned()), "{why}");
    }
}

#[tokio::test]
async fn a_server_that_says_goodbye_does_so_once() {
    let server =
        Setup::quiet().config("[channels]\nidle_ms = 300\nping_ms = 60_000\ngoodbye_ms = 20_000").start();
    let mut socket = Socket::open(server.address(), &[]).await;
    let (first, payload) = socket.next().await.unwrap();
    assert_eq!((first, &payload[..2]), (CLOSE, &1000_u16.to_be_bytes()[..]));
    socket.frame(CLOSE, &payload).await;
    assert_eq!(socket.rest().await, [], "the answer to a goodbye is not answered");
}

#[tokio::test]
async fn needless_slashes_are_overlooked() {
    let server = Setup::quiet().start();
    for path in
        ["//socket/websocket", "/socket//websocket/?vsn=2.0.0", "/socket/", "/websocket/", "//websocket"]
    {
        let socket = Socket::ask(server.address(), path, &[]).await;
        assert!(socket.answer.starts_with("http/1.1 101 "), "{path}: {}", socket.answer);
    }
}
