#!/usr/bin/env python3
"""The stage a client plays on: a fake R2Z2 feed, the real server, and between server and client a line that can be cut.

    stage.py FILE ARGUMENT...

runs one client program of $KILLSTREAM_CLIENTS/programs (Node for .mjs, else the Python of $KILLSTREAM_CLIENTS/python) beside the
server $KILLSTREAM_BIN, and ends as it ended. The program finds the server at $SERVER (host:port, through the line) and
directs the stage by posting JSON to $STAGE/<action>:

    publish  {"killmails": [{"system": 30000142, "victim": 95465499, "attackers": [..], "hours_ago": 3, "value": 1e6}, ..]}
             -> {"ids": [..]}; by the feed; returns when the server has stored them
    seed     the same, but in one request to the server: history, never announced
    count    {"system": 30000142} -> {"count": how many were published there with a time in the last 24 hours}
    cut      {} breaks every connection now; {"after_bytes": n, "hold": bool} the one that brings the n-th byte from now on
             to its client, once, and holds the line then
    hold     refuses new connections; release takes them again
    restart  stops the server in order (SIGTERM) and starts it on the same folder
    lines    -> {"open": connections through the line now, "opened": ever}

Must not know: what any client does.
"""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import killmails

FIRST_NUMBER = 96_000_000
READY_SECS = 60
# The longest one client program may take; longer where it builds a plugin and has it compiled.
PATIENCE_SECS = 90
PATIENCE_WITH_COMPILERS_SECS = 420
TOKEN = "a token of the stage"
CONFIG = """
[sse]
ping_ms = 1000
heartbeat_ms = 3000

[channels]
ping_ms = 500
idle_ms = 1500

[plugin]
compile_nice = 0
"""


class Feed:
    """Numbered documents."""

    def __init__(self):
        self.lock = threading.Lock()
        self.documents = []
        self.missed = None
        self.published = []

    def make(self, words):
        """Documents of these killmails; ids and numbers go up."""
        now = time.time()
        made = []
        with self.lock:
            for word in words:
                killmail_id = killmails.FIRST_ID + len(self.published)
                document = killmails.document(killmail_id, FIRST_NUMBER + len(self.documents) + len(made), word, now)
                self.published.append((document["esi"]["solar_system_id"], now - 3600 * word.get("hours_ago", 0) - 20))
                made.append(document)
        return made

    def publish(self, made):
        with self.lock:
            self.documents += [json.dumps(document).encode() for document in made]

    def count(self, system):
        with self.lock:
            return sum(1 for where, at in self.published if where == system and at > time.time() - 86400)

    def file(self, path):
        if path == "/ephemeral/sequence.json":
            return json.dumps({"sequence": FIRST_NUMBER}).encode()
        name = path.removeprefix("/ephemeral/").removesuffix(".json")
        with self.lock:
            number = int(name) - FIRST_NUMBER if name.isdigit() else -1
            # What is published right behind a number that was just denied does not show before it does, or files published
            # within a millisecond would seem to come in another order.
            missed, self.missed = self.missed, None
            if missed is not None and missed < number and missed < len(self.documents):
                return None
            if 0 <= number < len(self.documents):
                return self.documents[number]
            self.missed = number
            return None


class Line:
    """A TCP line to the server that can be cut and held."""

    def __init__(self):
        self.lock = threading.Lock()
        self.pairs = set()
        self.opened = 0
        self.held = False
        self.cut_after = None
        self.then_hold = False
        self.to = None
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            threading.Thread(target=self.carry, args=(client,), daemon=True).start()

    def carry(self, client):
        if self.held:
            return abort(client)
        try:
            server = socket.create_connection(self.to)
        except OSError:
            return abort(client)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pair = (client, server)
        with self.lock:
            self.pairs.add(pair)
            self.opened += 1
        threading.Thread(target=self.pump, args=(client, server, pair, False), daemon=True).start()
        self.pump(server, client, pair, True)

    def pump(self, source, sink, pair, counted):
        try:
            while data := source.recv(16384):
                if counted and self.reached(len(data)):
                    break
                sink.sendall(data)
            # The other direction ends by itself when its side has ended.
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        if counted:
            self.drop(pair)

    def reached(self, count):
        with self.lock:
            if self.cut_after is None:
                return False
            self.cut_after -= count
            if self.cut_after > 0:
                return False
            self.cut_after = None
            self.held = self.held or self.then_hold
            return True

    def drop(self, pair):
        with self.lock:
            self.pairs.discard(pair)
        for end in pair:
            abort(end)

    def cut(self):
        with self.lock:
            pairs = list(self.pairs)
        for pair in pairs:
            self.drop(pair)


def abort(end):
    """Ends a connection at once, as a broken network would."""
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    end.close()


class Server:
    """The real program, on a folder of its own."""

    def __init__(self, program, folder, feed_url):
        self.folder = folder
        with open(os.path.join(folder, "killstream.toml"), "w", encoding="utf-8") as file:
            file.write(CONFIG)
        self.command = [program, "serve", "--config", os.path.join(folder, "killstream.toml"), "--listen", "127.0.0.1:0"]
        self.environment = {
            "PATH": os.environ.get("PATH", ""), "DATA_DIR": os.path.join(folder, "data"), "SOURCE": "r2z2", "R2Z2_BASE_URL": feed_url,
            "ZKB_BASE_URL": feed_url, "ESI_BASE_URL": feed_url, "R2Z2_IDLE_MS": "40", "R2Z2_PACE_MS": "1",
            "USER_AGENT_CONTACT": "tests@localhost", "API_TOKEN": TOKEN,
        }
        self.child = None
        self.address = None

    def start(self):
        log = open(os.path.join(self.folder, "log"), "a", encoding="utf-8")
        self.child = subprocess.Popen(self.command, env=self.environment, stdout=subprocess.PIPE, stderr=log, text=True, cwd=self.folder)
        timer = threading.Timer(READY_SECS, self.child.kill)
        timer.start()
        for line in self.child.stdout:
            if line.startswith("listening on http://"):
                host, port = line.strip().removeprefix("listening on http://").rsplit(":", 1)
                self.address = (host, int(port))
                break
        timer.cancel()
        if self.child.poll() is not None or self.address is None:
            raise SystemExit(f"the server was not ready:\n{self.log()}")

    def stop(self):
        if self.child and self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(20)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()

    def url(self, path):
        return f"http://{self.address[0]}:{self.address[1]}{path}"

    def add(self, made):
        headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(self.url("/api/v1/killmails"), json.dumps(made).encode(), headers), timeout=60).close()

    def has(self, killmail_id):
        try:
            with urllib.request.urlopen(self.url(f"/api/v1/killmail/{killmail_id}"), timeout=10) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def log(self):
        with open(os.path.join(self.folder, "log"), encoding="utf-8") as file:
            return file.read()[-6000:]


class Stage:
    """What the client program can ask for."""

    def __init__(self, program, folder):
        self.feed, self.line = Feed(), Line()
        self.http = Http(("127.0.0.1", 0), handler(self))
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.server = Server(program, folder, self.url)
        self.begin()

    def begin(self):
        self.server.start()
        self.line.to = self.server.address

    def act(self, action, body):
        if action in ("publish", "seed"):
            made = self.feed.make(body["killmails"])
            if action == "seed":
                self.server.add(made)
            else:
                self.feed.publish(made)
            ids = [document["killmail_id"] for document in made]
            end = time.monotonic() + 30
            while not self.server.has(ids[-1]):
                if time.monotonic() > end:
                    return None
                time.sleep(0.01)
            return {"ids": ids}
        if action == "count":
            return {"count": self.feed.count(body["system"])}
        if action == "cut":
            if "after_bytes" in body:
                with self.line.lock:
                    self.line.cut_after, self.line.then_hold = body["after_bytes"], body.get("hold", False)
            else:
                self.line.cut()
        elif action in ("hold", "release"):
            self.line.held = action == "hold"
        elif action == "restart":
            self.server.stop()
            self.begin()
        elif action == "lines":
            with self.line.lock:
                return {"open": len(self.line.pairs), "opened": self.line.opened}
        else:
            return None
        return {}


class Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        """The server was stopped in the middle of a request; that is what `restart` does."""


def handler(stage):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, status, body):
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            found = stage.feed.file(self.path)
            self.answer(200 if found else 404, found or b"")

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")
            done = stage.act(self.path.lstrip("/"), body)
            self.answer(400 if done is None else 200, json.dumps(done).encode())

        def log_message(self, *_):
            pass

    return Handler


def main():
    clients, name = os.environ["KILLSTREAM_CLIENTS"], " ".join(sys.argv[1:])
    runner = "node" if sys.argv[1].endswith(".mjs") else f"{clients}/python/bin/python"
    command = [runner, f"{clients}/programs/{sys.argv[1]}", *sys.argv[2:]]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="killstream-clients-") as folder:
        stage = Stage(os.environ["KILLSTREAM_BIN"], folder)
        environment = {**os.environ, "STAGE": stage.url, "SERVER": "127.0.0.1:%d" % stage.line.listener.getsockname()[1], "TOKEN": TOKEN}
        patience = PATIENCE_WITH_COMPILERS_SECS if sys.argv[1] == "scripting.py" else PATIENCE_SECS
        try:
            ended = subprocess.run(command, env=environment, timeout=patience, check=False, capture_output=True, text=True, errors="replace")
            status, said = ended.returncode, ended.stdout + ended.stderr
        except subprocess.TimeoutExpired as late:
            said = "".join(part.decode(errors="replace") if isinstance(part, bytes) else part or "" for part in (late.stdout, late.stderr))
            status, said = 1, f"{said}\ndid not end within {patience} s"
        finally:
            stage.server.stop()
        word = "ok    " if status == 0 else "FAILED"
        print(f"{word} {name} ({time.monotonic() - began:.1f} s)")
        for line in said.strip().splitlines():
            print(f"       {line}")
        if status:
            print(f"--- the end of the server's log\n{stage.server.log()}")
    return status


if __name__ == "__main__":
    sys.exit(main())
