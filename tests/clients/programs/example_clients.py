"""A program of examples/clients (`sse` or `channels`, `javascript` or `python`): preload, live, cut, server restarted, resumed."""

import os
import re
import subprocess
import sys
import threading

from lib import AMARR, JITA, SERVER, TAMA, publish, same, seed, stage, until

EXAMPLES = os.environ["KILLSTREAM_EXAMPLES"]
PROGRAMS = {"javascript": ("node", ".mjs"), "python": (sys.executable, ".py")}


class Example:
    """A running example and what it told."""

    def __init__(self, language, name, *arguments):
        program, ending = PROGRAMS[language]
        command = [program, os.path.join(EXAMPLES, language, name + ending), *arguments]
        self.child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.lines = []
        threading.Thread(target=lambda: self.lines.extend(iter(self.child.stdout.readline, "")), daemon=True).start()

    def told(self, when):
        lines = [re.match(rf"{when} (\d+) \S+Z in \d+: Rifter, 1250000 ISK$", line) for line in list(self.lines)]
        return [int(line.group(1)) for line in lines if line]

    def tells(self, live, what):
        until(f"{what}: {live}, told {self.lines}", lambda: set(live) <= set(self.told("live")))

    def goes_on(self, live):
        """Cut, restarted, live: what comes after `live`, which has come."""
        stage("hold")
        stage("cut")
        ids = publish({"system": JITA}, {"system": AMARR}, {"system": TAMA})
        stage("release")
        live = live + [ids[0], ids[2]]
        self.tells(live, "killmails of the time away")
        stage("restart")
        live += publish({"system": TAMA})
        self.tells(live, "after the server's restart")
        live += publish({"system": JITA})
        self.tells(live, "live again")
        same(self.told("live"), live, "live: each once, in order")

    def end(self):
        assert self.child.poll() is None, "ended by itself"
        self.child.kill()
        self.child.wait()


def sse(language):
    history = seed(*({"system": JITA, "hours_ago": 20 - n / 4} for n in range(60)))
    url = f"http://{SERVER}/api/v1/kills/stream/enhanced?system_ids={JITA},{TAMA}&preload_days=1"
    stage("cut", after_bytes=400_000)
    example = Example(language, "sse", url)
    until("the transition", lambda: any(line.startswith("transition") for line in list(example.lines)))
    same(example.told("past"), history, "the preload: each once, in order")
    live = publish({"system": JITA}, {"system": AMARR}, {"system": TAMA})
    live.pop(1)
    example.tells(live, "live killmails")
    example.goes_on(live)
    example.end()


def channels(language):
    newest = seed(*({"system": JITA, "hours_ago": 0.4 - n / 20} for n in range(7)))[-5:]
    example = Example(language, "channels", f"ws://{SERVER}", f"{JITA},{TAMA}")
    until(f"the preload: {newest}, told {example.lines}", lambda: set(newest) <= set(example.told("past")))
    until("the end of the preload", lambda: any(line.startswith("preload: 5") for line in list(example.lines)))
    past = example.told("past")
    # Cut before anything came live: the place where it joined will do.
    stage("hold")
    stage("cut")
    live = publish({"system": JITA}, {"system": AMARR}, {"system": TAMA})
    stage("release")
    live.pop(1)
    example.tells(live, "live killmails")
    example.goes_on(live)
    same(example.told("past"), past, "one preload")
    example.end()


{"sse": sse, "channels": channels}[sys.argv[1]](sys.argv[2])
