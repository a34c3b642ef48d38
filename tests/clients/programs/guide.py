"""The channel programs of the older service's guides: the Elixir one's join with its preload and its `update_subscriptions`, and the raw
Python one's frames, objects although it says version 2.0.0, which are answered in kind."""

import asyncio
import json

import websockets
from lib import AMARR, JITA, SERVER, TAMA, Ledger, publish, same, seed, whole

TOPIC = "killmails:lobby"


class Guide:
    """Frames as objects or arrays; answers come in the same form."""

    def __init__(self, objects):
        self.objects, self.ledger, self.events, self.ref = objects, Ledger(), [], 0

    async def ask(self, event, payload, topic=TOPIC):
        self.ref += 1
        frame = {"topic": topic, "event": event, "payload": payload, "ref": self.ref} if self.objects else ["1", f"{self.ref}", topic, event, payload]
        await self.socket.send(json.dumps(frame))
        while True:
            ref, event, payload = await self.next()
            if event == "phx_reply":
                same(ref, self.ref if self.objects else f"{self.ref}", "the ref of a reply, its type too")
                assert payload["status"] == "ok", payload
                return payload["response"]

    async def next(self):
        frame = json.loads(await asyncio.wait_for(self.socket.recv(), 20))
        same(isinstance(frame, dict), self.objects, f"the form of {frame}")
        if self.objects:
            event, payload, ref = frame["event"], frame["payload"], frame["ref"]
        else:
            _, ref, _, event, payload = frame
        self.events.append((event, payload))
        if event == "killmail_update":
            for killmail in payload["killmails"]:
                self.ledger.take(whole(killmail)["killmail_id"])
        return ref, event, payload

    async def got(self, ids):
        while not set(ids) <= set(self.ledger.all):
            await self.next()


async def plays(objects):
    history = seed(*({"system": TAMA, "hours_ago": 0.9 - n / 100} for n in range(60)))
    guide = Guide(objects)
    async with websockets.connect(f"ws://{SERVER}/socket/websocket?vsn=2.0.0&client_id=my-app") as guide.socket:
        preload = {"enabled": True, "limit_per_system": 50, "since_hours": 24, "delivery_batch_size": 100}
        joined = await guide.ask("phx_join", {"systems": [TAMA], "character_ids": [95465499, 90379338], "preload": preload})
        same((joined["subscribed_systems"], joined["status"]), ([TAMA], "connected"), "the join's reply")
        await guide.got(history[-50:])
        changed = await guide.ask("update_subscriptions", {"add_systems": [AMARR], "remove_systems": [TAMA], "remove_characters": [95465499]})
        same((changed["subscribed_systems"], changed["subscribed_characters"]), ([AMARR], [90379338]), "update_subscriptions")
        ids = await asyncio.to_thread(publish, {"system": TAMA}, {"system": AMARR}, {"system": JITA, "attackers": [90379338]})
        await guide.got(ids[1:])
        assert ids[0] not in guide.ledger.all, "a system left"
        same(await guide.ask("heartbeat", {}, topic="phoenix"), {}, "a heartbeat")
        while not any(event == "preload_complete" for event, _ in guide.events):
            await guide.next()
        names = [event for event, _ in guide.events]
        same(("subscription_updated" in names, "phx_error" in names), (True, False), "events")
        status = await guide.ask("get_status", {})
        assert status["user_id"].startswith("my-app_") and status["subscription_id"] == joined["subscription_id"], status


async def main():
    await plays(objects=False)
    await plays(objects=True)


asyncio.run(main())
