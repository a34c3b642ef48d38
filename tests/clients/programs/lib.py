"""What the Python clients share: directing the stage, waiting, and a ledger in which nothing may stand twice."""

import json
import os
import time
import urllib.request

SERVER = os.environ["SERVER"]
STAGE = os.environ["STAGE"]
JITA, AMARR, TAMA, RENS = 30000142, 30002187, 30002813, 30002510


def stage(action, **body):
    """Asks the stage for something."""
    request = urllib.request.Request(f"{STAGE}/{action}", json.dumps(body).encode(), method="POST")
    with urllib.request.urlopen(request, timeout=40) as answer:
        return json.load(answer)


def publish(*killmails):
    """Publishes killmails (words as in stage.py) and gives their ids."""
    return stage("publish", killmails=list(killmails))["ids"]


def seed(*killmails):
    """The same for history, which is never announced."""
    return stage("seed", killmails=list(killmails))["ids"]


def counted(system):
    return stage("count", system=system)["count"]


def same(got, wanted, what):
    assert got == wanted, f"{what}: got {got}, wanted {wanted}"


def until(what, found, seconds=20):
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.01)
    return value


class Ledger:
    """Ids in the order they came; a second time on one connection is an error."""

    def __init__(self):
        self.all = []
        self.connection = set()

    def take(self, killmail_id):
        assert isinstance(killmail_id, int), f"no killmail id: {killmail_id}"
        assert killmail_id not in self.connection, f"killmail {killmail_id} came twice on one connection"
        self.connection.add(killmail_id)
        self.all.append(killmail_id)

    def reconnected(self):
        self.connection.clear()


def whole(killmail):
    """Every client of the old service relies on these."""
    assert killmail["kill_time"].endswith("Z") and killmail["system_id"] == killmail["solar_system_id"]
    assert "killID" not in killmail and "victim_char_id" not in killmail
    assert killmail["zkb"]["totalValue"] == killmail["zkb"]["total_value"] > 0
    assert sum(attacker["final_blow"] for attacker in killmail["attackers"]) == 1
    assert killmail["attacker_count"] == len(killmail["attackers"])
    assert killmail["victim"]["ship_name"] and ":null" not in json.dumps(killmail, separators=(",", ":"))
    return killmail
