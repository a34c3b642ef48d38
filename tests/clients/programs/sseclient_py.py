"""PyPI `sseclient-py` over `httpx`, enhanced stream by system: preload, live, cut in either, resumed by the id of the last event."""

import json
import time

import httpx
import sseclient
from lib import AMARR, JITA, SERVER, Ledger, publish, same, seed, stage, whole

URL = f"http://{SERVER}/api/v1/kills/stream/enhanced"


class Follower:
    def __init__(self):
        self.ledger = Ledger()
        self.last_id = None
        self.names = []
        self.totals = []

    def follow(self, until):
        """Reads one connection until `until` says so or it breaks."""
        headers = {"accept": "text/event-stream"} | ({"last-event-id": self.last_id} if self.last_id else {})
        end = time.monotonic() + 20
        try:
            with httpx.stream("GET", URL, params={"system_ids": f"{JITA}", "preload_days": 30}, headers=headers, timeout=15) as answer:
                same(answer.status_code, 200, "status")

                def chunks():
                    for chunk in answer.iter_bytes():
                        assert time.monotonic() < end, f"waited in vain, having {self.ledger.all}"
                        yield chunk

                for event in sseclient.SSEClient(chunks()).events():
                    self.take(event)
                    if until():
                        return
        except httpx.HTTPError as broken:
            print(f"broken: {broken!r}")

    def take(self, event):
        self.last_id = event.id or self.last_id
        self.names.append(event.event)
        data = json.loads(event.data)
        if event.event == "batch":
            for killmail in data["kills"]:
                self.ledger.take(whole(killmail)["killmail_id"])
        elif event.event == "killmail":
            self.ledger.take(whole(data)["killmail_id"])
        elif event.event == "transition":
            self.totals.append(data["total_historical"])
        else:
            assert event.event in ("connected", "heartbeat"), (event.event, data)


def main():
    history = seed(*({"system": JITA, "hours_ago": 200 - n} for n in range(160)))
    follower = Follower()
    follower.follow(lambda: len(follower.ledger.all) >= 50)
    assert len(follower.ledger.all) < len(history), "left inside the preload"
    away = publish({"system": JITA}, {"system": AMARR}, {"system": JITA})
    expected = history + [away[0], away[2]]
    follower.follow(lambda: len(follower.ledger.all) >= len(expected))
    same(follower.ledger.all, expected, "history and what came meanwhile, each once, in order")
    same(follower.totals, [110], "total_historical counts what remained")

    stage("cut", after_bytes=20_000)
    expected += publish(*({"system": JITA} for _ in range(40)))
    for _ in range(3):
        if len(follower.ledger.all) < len(expected):
            follower.follow(lambda: len(follower.ledger.all) >= len(expected))
    expected += publish({"system": JITA})
    follower.follow(lambda: len(follower.ledger.all) >= len(expected))
    same(follower.ledger.all, expected, "everything once, in order")
    same(follower.names.count("transition"), 1, "transitions")


main()
