"""PyPI `websockets` speaking as wanderer-notifier does: protocol 1.0.0 (objects, string refs, no join_ref), Origin http://localhost, a full
join again on the same socket when its lists change, and any error reply counts as a failure."""

import asyncio
import contextlib
import json
import time

import websockets
from lib import AMARR, JITA, SERVER, TAMA, Ledger, publish, same, seed, stage, whole

TOPIC = "killmails:lobby"
CHARACTER = 2119999999
PRELOAD = {"enabled": True, "limit_per_system": 20, "since_hours": 12}


class Notifier:
    def __init__(self):
        self.ledger = Ledger()
        self.replies = {}
        self.completed = []
        self.counts = {}
        self.count = 0

    async def connect(self):
        url = f"ws://{SERVER}/socket/websocket?vsn=1.0.0"
        self.socket = await websockets.connect(url, origin="http://localhost", user_agent_header="WandererNotifier/1.0 (Elixir WebSockex)")
        self.ledger.reconnected()
        self.reading = asyncio.create_task(self.read())
        self.beating = None

    async def read(self):
        # A broken line is no fault of what is read.
        with contextlib.suppress(websockets.ConnectionClosed):
            await self.frames()

    async def frames(self):
        async for text in self.socket:
            frame = json.loads(text)
            same(sorted(frame), ["event", "payload", "ref", "topic"], "the keys of a frame")
            event, payload, ref = frame["event"], frame["payload"], frame["ref"]
            if event == "phx_reply":
                assert payload["status"] == "ok", f"an error reply: {frame}"
                self.replies.pop(ref).set_result(payload["response"])
                continue
            same((frame["topic"], ref), (TOPIC, None), f"topic and ref of {event}")
            if event == "killmail_update":
                for killmail in payload["killmails"]:
                    assert whole(killmail)["system_id"] == payload["system_id"] and killmail["zkb"]["locationID"]
                    self.ledger.take(killmail["killmail_id"])
            elif event == "preload_complete":
                self.completed.append(payload)
            elif event == "kill_count_update":
                self.counts[payload["system_id"]] = payload["count"]
            else:
                raise AssertionError(f"unexpected, a close that is none among them: {frame}")

    async def ask(self, topic, event, payload, word):
        self.count += 1
        ref = f"{word}_{int(time.time())}_{self.count}"
        self.replies[ref] = asyncio.get_running_loop().create_future()
        await self.socket.send(json.dumps({"topic": topic, "event": event, "payload": payload, "ref": ref}))
        return await self.within(self.replies[ref])

    async def within(self, future):
        """What goes wrong while reading is the reason, not the wait."""
        done, _ = await asyncio.wait([future, self.reading], timeout=20, return_when=asyncio.FIRST_COMPLETED)
        assert done, "waited in vain"
        if self.reading in done and not future.done():
            raise self.reading.exception() or AssertionError("the connection ended")
        return future.result()

    async def join(self, systems, characters, preload=None):
        reply = await self.ask(TOPIC, "phx_join", {"systems": systems, "character_ids": characters, "preload": preload or PRELOAD}, "join")
        same((reply["status"], reply["subscribed_systems"], reply["subscribed_characters"]), ("connected", systems, characters), "the join")
        self.beating = self.beating or asyncio.create_task(self.beat())

    async def beat(self):
        while True:
            await asyncio.sleep(0.3)
            same(await self.ask("phoenix", "heartbeat", {}, "heartbeat"), {}, "a heartbeat")

    async def until(self, what, found):
        async def poll():
            while not found():
                await asyncio.sleep(0.01)

        try:
            await self.within(asyncio.create_task(poll()))
        except AssertionError as why:
            raise AssertionError(f"{what}: {why}, having {self.ledger.all}") from why

    async def got(self, ids, what):
        await self.until(f"{what} {ids}", lambda: set(ids) <= set(self.ledger.all))


async def publishes(*words):
    """Off the loop, so that reading goes on."""
    return await asyncio.to_thread(publish, *words)


async def main():
    history = seed(*({"system": JITA, "hours_ago": 14 - n / 2} for n in range(25)), {"system": TAMA, "hours_ago": 2, "victim": CHARACTER})
    recent = history[5:25][-20:]
    notifier = Notifier()
    await notifier.connect()
    await notifier.join([], [], {"enabled": False})
    await notifier.join([JITA], [])
    await notifier.got(recent, "the preload")
    await notifier.until("preload_complete", lambda: notifier.completed)
    same((sorted(notifier.ledger.all), notifier.completed[0]["total_kills"]), (recent, 20), "20 of the last 12 hours")
    await notifier.until("the count", lambda: notifier.counts.get(JITA) == 25)
    live = await publishes({"system": JITA}, {"system": AMARR})
    await notifier.got(live[:1], "live killmails")

    # Other lists: joined again on the same socket; no close in between, nothing twice.
    await notifier.join([AMARR, JITA], [CHARACTER])
    await notifier.got([live[1], history[25]], "the preload of what is new")
    live = await publishes({"system": TAMA}, {"system": TAMA, "attackers": [CHARACTER]}, {"system": JITA})
    await notifier.got(live[1:], "live killmails of the second lists")
    await notifier.join([AMARR], [])
    later = await publishes({"system": JITA}, {"system": AMARR})
    await notifier.got(later[1:], "live killmails of the third lists")
    assert not {live[0], later[0]} & set(notifier.ledger.all), "killmails of lists that are gone"

    stage("hold")
    stage("cut")
    away = await publishes({"system": AMARR})
    stage("release")
    notifier.beating.cancel()
    await asyncio.wait([notifier.reading], timeout=20)
    await notifier.connect()
    await notifier.join([AMARR, JITA], [])
    await notifier.got(away + later + live[2:], "what was missed, by the preload")
    await notifier.got(await publishes({"system": JITA}), "live again")
    notifier.beating.cancel()
    await notifier.socket.close()


asyncio.run(main())
