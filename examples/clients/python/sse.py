"""Follows an event stream and loses nothing: it keeps the last event id and goes on there after any break.

    python sse.py 'http://localhost:4004/api/v1/kills/stream/enhanced?system_ids=30000142&preload_days=1'
"""

import json
import sys
import time

import httpx

FIRST_WAIT_SECS, LONGEST_WAIT_SECS = 0.5, 30


def told(when, killmail):
    isk = round(killmail["zkb"].get("totalValue") or 0)
    ship = killmail["victim"].get("ship_name", "?")
    print(f"{when} {killmail['killmail_id']} {killmail['kill_time']} in {killmail['system_id']}: {ship}, {isk} ISK", flush=True)


def happened(name, data):
    if name == "batch":
        for killmail in data["kills"]:
            told("past", killmail)
    elif name in ("", "killmail"):
        told("live", data)
    elif name != "heartbeat":
        print(f"{name}: {data}", flush=True)


class Follower:
    def __init__(self, url):
        self.url, self.place, self.wait = url, None, FIRST_WAIT_SECS

    def follow(self):
        while True:
            pause = None
            try:
                pause = self.connect()
            except httpx.HTTPError as broken:
                print(f"broken: {broken!r}", file=sys.stderr)
            time.sleep(self.wait if pause is None else pause)
            self.wait = min(self.wait * 2, LONGEST_WAIT_SECS)

    def connect(self):
        """Reads one connection to its end; gives how long the server asks to wait."""
        headers = {"accept": "text/event-stream"} | ({"last-event-id": self.place} if self.place else {})
        # Streams are never silent for long.
        with httpx.stream("GET", self.url, headers=headers, timeout=httpx.Timeout(10, read=90)) as answer:
            if answer.is_success:
                return self.read(answer.iter_lines())
            answer.read()
            if answer.is_client_error and answer.status_code != 429:
                raise SystemExit(f"refused: {answer.text}")
            return float(answer.headers["retry-after"]) if "retry-after" in answer.headers else None

    def read(self, lines):
        name = data = ""
        for line in lines:
            field, _, value = line.partition(": ")
            if field == "id":
                self.place = value
            elif field == "event":
                name = value
            elif field == "data":
                data += value
            elif line == "":
                if data:
                    happened(name, json.loads(data))
                name, data, self.wait = "", "", FIRST_WAIT_SECS


if __name__ == "__main__":
    Follower(sys.argv[1] if len(sys.argv) > 1 else "http://localhost:4004/api/v1/kills/stream").follow()
