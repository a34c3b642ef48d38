"""Follows killmails over Phoenix channels and loses nothing: every live killmail says its place, and a join that names one goes on there.

    python channels.py ws://localhost:4004 30000142,30002187 [95465499,...]

Frames are arrays of five: join_ref, ref, topic, event, payload. `connect` comes back by itself after a break, waiting longer each time.
"""

import asyncio
import contextlib
import itertools
import json
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

TOPIC = "killmails:lobby"
HEARTBEAT_SECS = 30


class Follower:
    def __init__(self, systems, characters):
        self.wanted = {"systems": systems, "character_ids": characters}
        self.place, self.opened, self.preloaded = None, None, set()
        self.refs = itertools.count(1)

    async def follow(self, server):
        async for socket in connect(f"{server}/socket/websocket?vsn=2.0.0&client_identifier=example", max_size=2**24):
            with contextlib.suppress(ConnectionClosed):
                await self.talk(socket)
            print(f"broken, after {self.place}", file=sys.stderr)

    async def talk(self, socket):
        join = str(next(self.refs))
        preload = {"limit_per_system": 5, "since_hours": 24, "delivery_interval_ms": 0}
        how = {"resume_from": self.place} if self.place else {"preload": preload}
        await socket.send(json.dumps([join, join, TOPIC, "phx_join", self.wanted | how]))
        beating = asyncio.create_task(self.beat(socket))
        try:
            async for text in socket:
                _, ref, topic, event, payload = json.loads(text)
                if topic != TOPIC:
                    continue
                if event == "phx_reply" and ref == join:
                    self.joined(payload)
                elif event == "killmail_update":
                    self.take(payload)
                elif event == "preload_complete":
                    print(f"preload: {payload['total_kills']}", flush=True)
                    # All of the past is here: from now on the place where the channel was opened will do.
                    self.place = self.place or self.opened
                elif event == "kill_count_update":
                    print(f"count of {payload['system_id']}: {payload['count']} in 24 h", flush=True)
                elif event in ("phx_close", "phx_error"):
                    return
        finally:
            beating.cancel()

    async def beat(self, socket):
        while True:
            await asyncio.sleep(HEARTBEAT_SECS)
            await socket.send(json.dumps([None, str(next(self.refs)), "phoenix", "heartbeat", {}]))

    def joined(self, reply):
        if reply["status"] != "ok":
            raise SystemExit(f"refused: {reply['response']['reason']}")
        # Where the channel begins.
        self.opened = reply["response"]["event_id"]
        if gap := reply["response"].get("gap"):
            # What lay between cannot be had; this is where it goes on.
            self.place = gap["resumed_at"]
            print(f"gap: {gap}", flush=True)

    def take(self, update):
        for killmail in update["killmails"]:
            number = killmail["killmail_id"]
            # A break inside the preload brings it again.
            if update["preload"] and number in self.preloaded:
                continue
            if update["preload"]:
                self.preloaded.add(number)
            isk = round(killmail["zkb"].get("totalValue") or 0)
            ship = killmail["victim"].get("ship_name", "?")
            when = "past" if update["preload"] else "live"
            print(f"{when} {number} {killmail['kill_time']} in {killmail['system_id']}: {ship}, {isk} ISK", flush=True)
        self.place = update.get("event_id") or self.place


def ids(text):
    return [int(part) for part in text.split(",") if part]


if __name__ == "__main__":
    server, systems, characters = (sys.argv[1:] + ["ws://localhost:4004", "30000142", ""][len(sys.argv) - 1 :])[:3]
    asyncio.run(Follower(ids(systems), ids(characters)).follow(server))
