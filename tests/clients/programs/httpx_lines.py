"""PyPI `httpx` alone, lines cut by hand as in the older service's guide: `data:` is a killmail, whatever else is passed over."""

import json
import time

import httpx
from lib import AMARR, JITA, SERVER, TAMA, Ledger, publish, same, stage, whole

CHARACTER = 95465499


def follow(ledger, path, params, last_id, enough):
    """Reads one connection until there are enough; gives the last id."""
    headers = {"last-event-id": last_id} if last_id else {}
    end = time.monotonic() + 20
    try:
        with httpx.stream("GET", f"http://{SERVER}{path}", params=params, headers=headers, timeout=15) as answer:
            same(answer.status_code, 200, "status")
            for line in answer.iter_lines():
                assert time.monotonic() < end, f"waited in vain, having {ledger.all}"
                if line.startswith("data: "):
                    ledger.take(whole(json.loads(line.removeprefix("data: ")))["killmail_id"])
                elif line.startswith("id: "):
                    last_id = line.removeprefix("id: ")
                else:
                    assert line == "" or line.startswith((": ", "retry: ")), f"unexpected on the basic stream: {line}"
                # A place is known once the id line is there.
                if last_id and len(ledger.all) >= enough and line == "":
                    break
    except httpx.HTTPError as broken:
        print(f"broken: {broken!r}")
    return last_id


def main():
    with httpx.Client(base_url=f"http://{SERVER}", timeout=15) as http:
        rest(http)
    ledger, path = Ledger(), "/api/v1/kills/stream"
    params = {"character_ids": CHARACTER, "min_value": 1_000_000}
    place = follow(ledger, path, params, None, 0)
    same(ledger.all, [], "no history without preload_days")
    words = [{"victim": CHARACTER}, {"victim": 90000010}, {"victim": CHARACTER, "value": 5}, {"attackers": [CHARACTER], "victim": 90000011}]
    ids = publish(*words)
    expected = [ids[0], ids[3]]
    place = follow(ledger, path, params, place, len(expected))
    stage("restart")
    expected += publish({"victim": CHARACTER})
    follow(ledger, path, params, place, len(expected))
    same(ledger.all, expected, "everything once, in order")


def rest(http):
    """The requests of the older service's Elixir guide."""
    ids = publish({"system": AMARR, "hours_ago": 30}, {"system": AMARR, "hours_ago": 20}, {"system": TAMA, "hours_ago": 1})
    kills = http.get(f"/api/v1/kills/system/{AMARR}", params={"since_hours": 24, "limit": 50}).raise_for_status().json()["data"]["kills"]
    same([kill["killmail_id"] for kill in kills], [ids[1]], "24 hours of one system")
    body = {"system_ids": [AMARR, TAMA, JITA], "since_hours": 48, "limit": 50}
    found = http.post("/api/v1/kills/systems", json=body).raise_for_status().json()["data"]["systems_kills"]
    same({system: [kill["killmail_id"] for kill in kills] for system, kills in found.items()},
         {str(AMARR): [ids[1], ids[0]], str(TAMA): [ids[2]], str(JITA): []}, "48 hours of three systems")
    same(whole(http.get(f"/api/v1/killmail/{ids[0]}").raise_for_status().json()["data"])["killmail_id"], ids[0], "one killmail")
    same(http.get("/api/v1/killmail/5").json()["code"], "NOT_FOUND", "an unknown killmail")


main()
