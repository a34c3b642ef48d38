"""A plugin in JavaScript or Python, built as its tool builds by default, uploaded to a default server: judged over history and live, the
server restarted, judged again.

    scripting.py js|python
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

from lib import JITA, SERVER, publish, same, seed, stage

CLIENTS = os.environ["KILLSTREAM_CLIENTS"]
PLUGINS, WIT, TOKEN = os.environ["KILLSTREAM_PLUGINS"], os.environ["KILLSTREAM_WIT"], os.environ["TOKEN"]
ALLIANCE = 99005338


def built(language, folder):
    """The component, by the command a user types."""
    file = os.path.join(folder, "plugin.wasm")
    if language == "js":
        command = [f"{CLIENTS}/tools/node_modules/.bin/componentize-js", f"{PLUGINS}/plugin.js", "--wit", WIT, "-n", "plugin", "-o", file]
    else:
        command = [f"{CLIENTS}/python/bin/componentize-py", "-q", "-d", WIT, "-w", "plugin", "componentize", "-p", PLUGINS, "app", "-o", file]
    subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)
    with open(file, "rb") as component:
        return component.read()


def ask(path, method="GET", body=None):
    request = urllib.request.Request(f"http://{SERVER}{path}", body, {"authorization": f"Bearer {TOKEN}"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=400) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{method} {path}: {error.status} {error.read().decode()}") from error


def judged(config):
    """Ids that history keeps, oldest first, and what stands beside them."""
    query = urllib.parse.urlencode({"plugin": "mine", "plugin_config": json.dumps(config), "order": "oldest", "limit": 1000})
    _, answer = ask(f"/api/v1/killmails?{query}")
    data = answer["data"]
    assert data["complete"] and data["faults"] == {}, data
    return {killmail["killmail_id"]: killmail.get("enriched", {}).get("mine") for killmail in data["killmails"]}


def live(config, words):
    """Ids and notes that a stream hands over of what is published now, up to the last."""
    query = urllib.parse.urlencode({"plugin": "mine", "plugin_config": json.dumps(config)})
    with urllib.request.urlopen(f"http://{SERVER}/api/v1/kills/stream/enhanced?{query}", timeout=120) as stream:
        lines = (line.decode().rstrip("\n") for line in stream)
        assert next(line for line in lines if line.startswith("data: "))
        ids = publish(*words)
        kept, event = {}, ""
        for line in lines:
            if line.startswith("event: "):
                event = line.removeprefix("event: ")
            elif line.startswith("data: ") and event == "killmail":
                killmail = json.loads(line.removeprefix("data: "))
                kept[killmail["killmail_id"]] = killmail.get("enriched", {}).get("mine")
                if killmail["killmail_id"] == ids[-1]:
                    return ids, kept
            elif line.startswith("data: ") and event == "error":
                raise AssertionError(line)
    raise AssertionError("the stream ended")


def shared(subscribers):
    """Many subscriptions with one configuration judge a killmail once."""
    query = urllib.parse.urlencode({"plugin": "mine", "plugin_config": json.dumps({"min_value": 3e6})})
    calls = lambda: ask("/api/v1/plugins/mine")[1]["data"]["calls"]
    with contextlib.ExitStack() as streams:
        url = f"http://{SERVER}/api/v1/kills/stream/enhanced?{query}"
        lines = [iter(streams.enter_context(urllib.request.urlopen(url, timeout=120))) for _ in range(subscribers)]
        for each in lines:
            assert next(line for line in each if line.startswith(b"event: connected"))
        before = calls()
        publish(killmail(4e6))
        for each in lines:
            assert next(line for line in each if line.startswith(b"event: killmail"))
        same(calls() - before, 1, f"calls for {subscribers} subscriptions")


def killmail(value, attackers=1):
    return {"system": JITA, "value": value, "attackers": [2112000000 + n for n in range(attackers)]}


def main(language):
    old = seed(killmail(5e6), killmail(200e6), killmail(300e6))
    with tempfile.TemporaryDirectory(prefix="killstream-scripting-") as folder:
        component = built(language, folder)
    began = time.monotonic()
    status, answer = ask("/api/v1/plugins/mine?wait=300", "PUT", component)
    same((status, answer["data"]["class"], answer["data"]["state"]), (201, "scripting", "active"), "the upload")
    print(f"{language}: {len(component)} bytes, accepted after {time.monotonic() - began:.1f} s")

    same(sorted(judged({})), old[1:], "history, by value")
    ids, kept = live({"min_value": 1e6}, [killmail(5), killmail(2e6)])
    same(sorted(kept), ids[1:], "live, by value")
    ids, kept = live({"mode": "json"}, [killmail(1, 3), killmail(1, 1)])
    # An NPC is always among them.
    same([kept[one]["attackers"] for one in ids], [4, 2], "live, noted")
    same(sorted(judged({"mode": "involves", "ids": [ALLIANCE]})), sorted(judged({"min_value": 0})), "history, by alliance")
    same(judged({"mode": "involves", "ids": [ALLIANCE + 1]}), {}, "history, by another alliance")
    shared(100)
    before = judged({"mode": "json"})

    stage("restart")
    began = time.monotonic()
    same(judged({"mode": "json"}), before, "history after a restart")
    print(f"{language}: judged {time.monotonic() - began:.2f} s after the restart")
    ids, kept = live({"min_value": 1e6}, [killmail(5), killmail(2e6)])
    same(sorted(kept), ids[1:], "live after a restart")


main(sys.argv[1])
