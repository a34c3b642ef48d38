//! Plugins on their way in: compiled in a process of their own, waited for or asked about later, kept as code
//! that the next start maps.
//!
//! Must not know: how that process is made.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::guests::{self, Text};
use crate::support::channel::Channel;
use crate::support::http::Reply;
use crate::support::killmail::killmail;
use crate::support::server::{PROGRAM, Server, Setup, TOKEN};
use crate::support::upstream::Upstream;

/// So many loops within one another: the compiler takes the square of the time.
fn slow_to_compile() -> Vec<u8> {
    // Bodies of a size that is not refused at sight, one after the other.
    let body = "(loop (drop (i32.const 1)))".repeat(4_000);
    let functions: String = (0..40).map(|_| format!("(func {body})")).collect();
    guests::guest(&Text { head: &functions, ..Text::default() })
}

/// Starts compilers only after so many seconds.
fn late(setup: &Setup, secs: f32) -> String {
    let path: PathBuf = setup.folder().join("late-compiler");
    fs::write(&path, format!("#!/bin/sh\nsleep {secs}\nexec '{PROGRAM}' \"$@\"\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    format!("[plugin]\ncompile_program = {:?}", path.display().to_string())
}

pub async fn put(server: &Server, path: &str, component: &[u8]) -> Reply {
    server.send(Method::PUT, &format!("/api/v1/plugins/{path}"), component).await
}

/// Asks about an upload until it came to its end.
async fn settled(server: &Server, id: &str) -> Value {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let upload = server.get(&format!("/api/v1/plugins/uploads/{id}")).await.expect(200)["data"].clone();
        if !matches!(upload["state"].as_str().unwrap(), "queued" | "compiling" | "probing") {
            return upload;
        }
        assert!(Instant::now() < end, "{upload}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn who_does_not_wait_is_told_where_to_ask() {
    let setup = Setup::quiet();
    let config = late(&setup, 0.5);
    let server = setup.config(&config).start();
    let first = put(&server, "one?wait=0", &guests::evaluating(guests::KEEP)).await;
    assert_eq!(first.status.as_u16(), 202, "{}", first.json());
    let told = first.json()["data"].clone();
    assert!(told["state"].is_string() && told["position"].is_u64(), "{told}");
    // The second comes after the first, and is told so at once.
    let second = put(&server, "two?wait=0", &guests::evaluating(guests::DROP)).await.json()["data"].clone();
    assert_eq!((&second["state"], &second["position"]), (&json!("queued"), &json!(1)), "{second}");
    let waiting =
        server.get("/status").await.expect(200)["metrics"]["plugins"]["waiting"]["uploads"]["small"].clone();
    let lanes =
        |what: &str| ["scan", "compile"].iter().filter_map(|lane| waiting[lane][what].as_u64()).sum::<u64>();
    assert_eq!(lanes("waiting") + lanes("under_way"), 2, "{waiting}");
    let upload = settled(&server, told["upload_id"].as_str().unwrap()).await;
    assert_eq!(
        (&upload["state"], &upload["plugin"]["name"]),
        (&json!("accepted"), &json!("one")),
        "{upload}"
    );
    assert_eq!(
        (&upload["plugin"]["state"], &upload["plugin"]["class"]),
        (&json!("active"), &json!("small")),
        "{upload}"
    );
    let upload = settled(&server, second["upload_id"].as_str().unwrap()).await;
    assert_eq!(
        (&upload["state"], &upload["plugin"]["name"]),
        (&json!("accepted"), &json!("two")),
        "{upload}"
    );
    assert_eq!(server.get("/api/v1/plugins").await.expect(200)["data"]["count"], 2);

    let refused =
        put(&server, "three?wait=0", &guests::evaluating("(i64.const 0)")).await.json()["data"].clone();
    let upload = settled(&server, refused["upload_id"].as_str().unwrap()).await;
    assert_eq!(
        (&upload["state"], &upload["error"]["code"]),
        (&json!("refused"), &json!("INVALID_PLUGIN")),
        "{upload}"
    );
    assert_eq!(upload["error"]["details"]["reason"], "compile", "{upload}");
    assert_eq!(server.get("/api/v1/plugins/uploads/0123456789abcdef").await.status.as_u16(), 404);
    for wait in ["301", "-1", "soon"] {
        let reply = put(&server, &format!("four?wait={wait}"), b"x").await;
        assert_eq!(
            (reply.status.as_u16(), &reply.json()["details"]["field"]),
            (400, &json!("wait")),
            "{wait}"
        );
    }
}

#[tokio::test]
async fn an_upload_whose_client_went_away_is_not_taken_in() {
    let setup = Setup::quiet();
    let config = late(&setup, 1.0);
    let server = setup.config(&config).start();
    let gone =
        timeout(Duration::from_millis(300), put(&server, "gone", &guests::evaluating(guests::KEEP))).await;
    assert!(gone.is_err(), "it is compiled later");
    // Once the one after it is through, it would have been.
    assert_eq!(put(&server, "stays", &guests::evaluating(guests::DROP)).await.status.as_u16(), 201);
    let names: Value = server.get("/api/v1/plugins").await.expect(200)["data"]["plugins"].clone();
    assert_eq!((names.as_array().unwrap().len(), &names[0]["name"]), (1, &json!("stays")));
    assert_eq!(
        fs::read_dir(server.setup().data_dir().join("uploads")).unwrap().count(),
        0,
        "nothing of it is left"
    );
}

#[tokio::test]
async fn what_takes_too_much_to_compile_is_refused_with_the_limit() {
    let limits = "[plugin]\ncompile_small_cpu_secs = 1\n";
    let server = Setup::quiet().config(limits).start();
    let reply = put(&server, "slow", &slow_to_compile()).await;
    let (status, body) = (reply.status.as_u16(), reply.json());
    let details = &body["details"];
    assert_eq!(
        (status, &details["reason"], &details["limit"]),
        (422, &json!("too_slow_to_compile"), &json!(1)),
        "{body}"
    );
    assert!(details["message"].as_str().unwrap().contains("plugin.compile_small_cpu_secs"), "{body}");

    let limits = "[plugin]\ncompile_small_memory_bytes = 40000000\n";
    let server = Setup::quiet().config(limits).start();
    let reply = put(&server, "large", &slow_to_compile()).await;
    let (status, body) = (reply.status.as_u16(), reply.json());
    let details = &body["details"];
    assert_eq!(
        (status, &details["reason"], &details["limit"]),
        (422, &json!("too_much_memory"), &json!(40_000_000)),
        "{body}"
    );
    assert!(details["message"].as_str().unwrap().contains("plugin.compile_small_memory_bytes"), "{body}");
    assert_eq!(server.get("/ping").await.text(), "pong");
}

#[tokio::test]
async fn a_compiler_that_crashes_is_a_refusal_and_the_next_upload_goes_on() {
    let setup = Setup::quiet();
    let path = setup.folder().join("compiler");
    // What is uploaded as `crash` never compiles: its process kills itself.
    fs::write(
        &path,
        format!(
            "#!/bin/sh\n[ -e '{0}/crash' ] && kill -9 $$\nexec '{PROGRAM}' \"$@\"\n",
            setup.folder().display()
        ),
    )
    .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    let config = format!("[plugin]\ncompile_program = {:?}", path.display().to_string());
    let server = setup.config(&config).start();
    fs::write(server.setup().folder().join("crash"), "").unwrap();
    let reply = put(&server, "mine", &guests::evaluating(guests::KEEP)).await;
    assert_eq!(
        (reply.status.as_u16(), &reply.json()["details"]["reason"]),
        (422, &json!("crashed")),
        "{}",
        reply.json()
    );
    let message = reply.json()["details"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("SIGKILL") && message.contains("upload it again"), "{message}");
    fs::remove_file(server.setup().folder().join("crash")).unwrap();
    assert_eq!(put(&server, "mine", &guests::evaluating(guests::KEEP)).await.status.as_u16(), 201);
    // One that cannot be started at all is a failure of ours, not a fault of the component.
    let server = Setup::quiet().config("[plugin]\ncompile_program = \"/nowhere/killstream\"").start();
    let reply = put(&server, "mine", &guests::evaluating(guests::KEEP)).await;
    assert_eq!(
        (reply.status.as_u16(), &reply.json()["code"]),
        (500, &json!("FETCH_ERROR")),
        "{}",
        reply.json()
    );
}

/// How often the compiling process was started.
fn starts(folder: &Path) -> usize {
    fs::read_to_string(folder.join("starts")).unwrap_or_default().lines().count()
}

/// Has each start of the compiling process counted.
fn counted(setup: &Setup) -> String {
    let path = setup.folder().join("compiler");
    fs::write(
        &path,
        format!("#!/bin/sh\necho >> '{}/starts'\nexec '{PROGRAM}' \"$@\"\n", setup.folder().display()),
    )
    .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    format!("[plugin]\ncompile_program = {:?}\n", path.display().to_string())
}

#[tokio::test]
async fn what_can_never_be_loaded_is_refused_before_it_is_compiled() {
    let setup = Setup::quiet();
    let config = counted(&setup) + "guests_memory_bytes = 4096\n";
    let server = setup.config(&config).start();
    let reply = put(&server, "mine", &guests::evaluating(guests::KEEP)).await;
    let (status, body) = (reply.status.as_u16(), reply.json());
    let details = &body["details"];
    assert_eq!(
        (status, &details["reason"], &details["limit"]),
        (422, &json!("too_much_memory"), &json!(4096)),
        "{body}"
    );
    assert!(details["message"].as_str().unwrap().ends_with("(plugin.guests_memory_bytes)"), "{body}");
    assert_eq!(starts(server.setup().folder()), 1, "it was looked through");
}

#[tokio::test]
async fn an_upload_is_taken_where_others_have_the_memory() {
    let setup = Setup::quiet();
    let config = counted(&setup);
    let mut first = setup.clone().config(&config).start();
    first.upload("one", &guests::evaluating(guests::KEEP)).await;
    let used = async |server: &Server| {
        let told = server.get("/status").await.expect(200)["metrics"]["plugins"].clone();
        told["bytes"].as_u64().unwrap_or_else(|| panic!("{told}"))
    };
    let loaded = used(&first).await;
    first.stop();
    // Enough for one with an instance, which begins with 256 KiB and has to fit half of it, and not for
    // another.
    let server = setup.config(&format!("{config}guests_memory_bytes = {}\n", loaded + 400_000)).start();
    let stream = server.enhanced("plugin=one").await;
    let reply = put(&server, "two", &guests::evaluating(guests::DROP)).await;
    assert_eq!(reply.status.as_u16(), 201, "{}", reply.json());
    let begun = starts(server.setup().folder());
    assert_eq!(server.get("/api/v1/killmails?plugin=two").await.status.as_u16(), 503);
    drop(stream);
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let reply = server.get("/api/v1/killmails?plugin=two").await;
        if reply.status.as_u16() == 200 {
            break;
        }
        assert!(Instant::now() < end, "{}", reply.json());
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(starts(server.setup().folder()), begun, "what was compiled is loaded");
}

/// Takes away what was compiled, as a new compiler does.
fn forget_compiled(server: &Server) {
    for file in fs::read_dir(server.setup().data_dir().join("compiled")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "code") {
            fs::remove_file(path).unwrap();
        }
    }
}

#[tokio::test]
async fn a_start_does_not_wait_for_compilers_and_readers_lose_nothing() {
    let upstream = Upstream::start();
    let setup = Setup::following(&upstream);
    let config = late(&setup, 2.0);
    let mut server = setup.config(&config).start();
    server.upload("good", &guests::evaluating(guests::KEEP)).await;
    forget_compiled(&server);
    server.restart();
    let mut stream = server.enhanced("plugin=good").await;
    let connected = stream.event_named("connected").await.json();
    assert_eq!(connected["preparing"], true, "{connected}");
    let mut basic = server.basic("plugin=good").await;
    let mut channel = Channel::v2(server.address()).await;
    let joined = channel.join(json!({ "systems": [30_000_142], "plugin": "good" })).await;
    assert_eq!(joined["preparing"], true, "{joined}");
    let reply = server.get("/api/v1/killmails?plugin=good").await;
    assert_eq!(
        (reply.status.as_u16(), &reply.json()["code"]),
        (503, &json!("PLUGIN_PREPARING")),
        "{}",
        reply.json()
    );
    assert!(reply.headers.contains_key("retry-after"));
    let listed = server.get("/api/v1/plugins/good").await.expect(200)["data"].clone();
    assert_eq!((&listed["state"], &listed["preparing"]), (&json!("active"), &json!(true)), "{listed}");
    let ids: Vec<u64> = (1000..1010).collect();
    for id in 1000..1010 {
        upstream.publish(killmail(id));
    }
    assert_eq!(stream.killmails(ids.len()).await, ids);
    assert_eq!(basic.killmails(ids.len()).await, ids);
    assert_eq!(channel.live(ids.len()).await, ids);
    server.get("/api/v1/killmails?plugin=good").await.expect(200);
    let listed = server.get("/api/v1/plugins/good").await.expect(200)["data"].clone();
    assert_eq!(listed.get("preparing"), None, "{listed}");

    // What was compiled once is not compiled again, and what somebody else wrote is not run.
    server.restart();
    let connected = server.enhanced("plugin=good").await.event_named("connected").await.json();
    assert_eq!(connected.get("preparing"), None, "{connected}");
    for file in fs::read_dir(server.setup().data_dir().join("compiled")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "code") {
            let mut code = fs::read(&path).unwrap();
            let middle = code.len() / 2;
            code[middle] ^= 1;
            fs::write(&path, code).unwrap();
        }
    }
    server.restart();
    let connected = server.enhanced("plugin=good").await.event_named("connected").await.json();
    assert_eq!(connected["preparing"], true, "{connected}");
    assert!(server.log().contains("is not what was compiled here"), "{}", server.log());
}

#[tokio::test]
async fn a_compiler_that_is_killed_once_costs_a_kept_plugin_nothing() {
    let upstream = Upstream::start();
    let setup = Setup::following(&upstream);
    let path = setup.folder().join("compiler");
    let once = setup.folder().join("once");
    fs::write(
        &path,
        format!(
            "#!/bin/sh\n[ -e '{0}' ] && rm '{0}' && kill -9 $$\nexec '{PROGRAM}' \"$@\"\n",
            once.display()
        ),
    )
    .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    let config = format!("[plugin]\ncompile_program = {:?}", path.display().to_string());
    let mut server = setup.config(&config).start();
    server.upload("good", &guests::evaluating(guests::KEEP)).await;
    forget_compiled(&server);
    fs::write(&once, "").unwrap();
    server.restart();
    let mut stream = server.enhanced("plugin=good").await;
    assert_eq!(stream.event_named("connected").await.json()["preparing"], true);
    upstream.publish(killmail(1000));
    assert_eq!(stream.killmails(1).await, [1000]);
    assert!(!once.exists() && server.log().contains("is tried again"), "{}", server.log());
}

#[tokio::test]
async fn a_plugin_that_todays_limits_refuse_is_unusable_and_says_why() {
    let mut server = Setup::quiet().start();
    server.upload("good", &guests::evaluating(guests::KEEP)).await;
    server.stop();
    let limits = "[plugin]\nfunctions_max = 1\nscripting_functions_max = 1";
    let server = server.setup().clone().config(limits).start();
    let end = Instant::now() + Duration::from_secs(30);
    let listed = loop {
        let listed = server.get("/api/v1/plugins/good").await.expect(200)["data"].clone();
        if listed.get("preparing").is_none() || Instant::now() > end {
            break listed;
        }
        sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(listed["state"], "unusable", "{listed}");
    assert!(listed["reason"].as_str().unwrap().contains("functions_max"), "{listed}");
    let reply = server.get("/api/v1/killmails?plugin=good").await;
    assert_eq!(
        (reply.status.as_u16(), &reply.json()["code"]),
        (503, &json!("PLUGIN_UNUSABLE")),
        "{}",
        reply.json()
    );
    let reply = server.get("/api/v1/kills/stream?plugin=good").await;
    assert_eq!(
        (reply.status.as_u16(), &reply.json()["error"]["type"]),
        (503, &json!("plugin_unusable")),
        "{}",
        reply.json()
    );
    assert_eq!(reply.json()["error"]["retryable"], false, "it is so until somebody does something");
    assert!(reply.header("retry-after").is_none());
}

#[tokio::test]
async fn compilers_killed_at_random_leave_nothing_behind() {
    let uploads: u32 = if std::env::var_os("KILLSTREAM_LONG").is_some() { 200 } else { 12 };
    let setup = Setup::quiet();
    let path = setup.folder().join("compiler");
    // Two of three are killed, after up to 60 ms.
    let script = format!(
        "#!/bin/sh\nn=$(od -An -N1 -tu1 /dev/urandom)\n[ $((n % 3)) = 0 ] || (sleep 0.0$((n % 60)); kill -9 $$) >/dev/null 2>&1 <&- &\nexec '{PROGRAM}' \"$@\"\n"
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    let config = format!("[plugin]\ncompile_program = {:?}", path.display().to_string());
    let server = setup.config(&config).start();
    let (mut taken, mut crashed) = (0, 0);
    for n in 0..uploads {
        let component = guests::keep_with(&format!("{{\"n\":{n}}}"));
        let reply = put(&server, &format!("p{n}"), &component).await;
        match reply.status.as_u16() {
            201 => taken += 1,
            422 => {
                assert_eq!(reply.json()["details"]["reason"], "crashed", "{}", reply.json());
                crashed += 1;
            }
            other => panic!("{other}: {}", reply.json()),
        }
    }
    assert!(crashed > 0, "none of {uploads} was killed");
    assert_eq!(server.get("/api/v1/plugins").await.expect(200)["data"]["count"], taken);
    let left = |folder: &str| fs::read_dir(server.setup().data_dir().join(folder)).unwrap().count();
    assert_eq!(left("uploads"), 0);
    assert_eq!(left("compiled"), 2 * taken + 1, "code, seal, and the key");
    let children =
        fs::read_to_string(format!("/proc/{0}/task/{0}/children", server.pid())).unwrap_or_default();
    assert!(children.trim().is_empty(), "{children}");
}

#[tokio::test]
async fn the_command_waits_for_what_takes_long() {
    let setup = Setup::quiet();
    let config = late(&setup, 0.2);
    let server = setup.config(&config).start();
    let file = server.setup().folder().join("good.wasm");
    fs::write(&file, guests::evaluating(guests::KEEP)).unwrap();
    let url = server.url("");
    let arguments = ["upload", "good", file.to_str().unwrap(), "--server", &url, "--token", TOKEN];
    let output = server.setup().command("plugin").args(arguments).output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && out.starts_with("good sha256:") && out.contains(" active "),
        "{output:?}"
    );
}

#[tokio::test]
async fn a_plugin_that_fails_in_its_trial_is_taken_with_a_warning() {
    let server = Setup::quiet().start();
    let text = Text { evaluate: "(call $err) unreachable", ..Text::default() };
    let bytes = guests::writing("", "ValueError: no such key\n", &text);
    let reply = put(&server, "traps", &bytes).await;
    let body = reply.json();
    let warning = body["data"]["warnings"][0].as_str().unwrap_or_default().to_owned();
    assert_eq!(reply.status.as_u16(), 201, "{body}");
    assert!(
        warning.starts_with("all ") && warning.contains(" calls of the trial ended in `trap`: "),
        "{body}"
    );
    assert!(warning.contains("it said last: ValueError: no such key"), "{body}");
    // Whoever looks at it later is told as well, and so is who uploads it again, and under another name.
    let listed = server.get("/api/v1/plugins/traps").await.expect(200);
    assert_eq!(listed["data"]["warnings"][0], warning, "{listed}");
    for name in ["traps", "again"] {
        assert_eq!(put(&server, name, &bytes).await.json()["data"]["warnings"][0], warning, "{name}");
    }
    let asked = put(&server, "later?wait=0", &guests::evaluating("unreachable")).await.json()["data"].clone();
    let upload = settled(&server, asked["upload_id"].as_str().unwrap()).await;
    assert!(upload["plugin"]["warnings"][0].as_str().is_some_and(|text| text.contains("`trap`")), "{upload}");
    let good = put(&server, "good", &guests::evaluating(guests::KEEP)).await.json();
    assert!(good["data"].get("warnings").is_none(), "{good}");

    let file = server.setup().folder().join("traps.wasm");
    fs::write(&file, bytes).unwrap();
    let url = server.url("");
    let arguments = ["upload", "told", file.to_str().unwrap(), "--server", &url, "--token", TOKEN];
    let output = server.setup().command("plugin").args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("warning: all ") && said.contains("ValueError"),
        "{output:?}"
    );
}
