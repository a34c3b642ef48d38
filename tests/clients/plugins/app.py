# Configuration, all optional: {"mode": "cheap" | "involves" | "json", "of": "alliance" | "corporation", "ids": [..], "min_value": n}
import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.guest import Verdict_Drop, Verdict_Keep, Verdict_KeepWith
from wit_world.imports import killmail
from wit_world.imports.types import Kind, Role

MODES = ("cheap", "involves", "json")
KINDS = {"alliance": Kind.ALLIANCE, "corporation": Kind.CORPORATION}
settings = {}  # set by configure, never by evaluate


class Guest(exports.Guest):
    def configure(self, config):
        try:
            given = json.loads(config)
        except ValueError as error:
            raise Err(f"configuration: {error}")
        mode, of = given.get("mode", "cheap"), given.get("of", "alliance")
        if mode not in MODES:
            raise Err(f"mode: one of {', '.join(MODES)}")
        if of not in KINDS:
            raise Err(f"of: one of {', '.join(KINDS)}")
        settings.update(mode=mode, of=KINDS[of], ids=given.get("ids", []), min_value=given.get("min_value", 100e6))
        return None  # every killmail is of interest

    def evaluate(self, summary):
        if settings["mode"] == "involves":
            return Verdict_Keep() if killmail.involves(settings["of"], Role.ATTACKER, settings["ids"]) else Verdict_Drop()
        if settings["mode"] == "json":
            whole = json.loads(killmail.json())
            note = {"ship": whole["victim"].get("ship_type_id", 0), "attackers": len(whole["attackers"])}
            return Verdict_KeepWith(json.dumps(note))
        return Verdict_Keep() if summary.total_value >= settings["min_value"] else Verdict_Drop()
