"""Killmails of the shape R2Z2 publishes, made up from a few words.

Must not know: who reads them.
"""

import time

JITA, AMARR, TAMA = 30000142, 30002187, 30002813
FIRST_ID = 128_000_001


def iso(at):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def item(type_id, location, **more):
    return {"flag": location, "item_type_id": type_id, "singleton": 0, **more}


def document(killmail_id, number, word, now):
    """One numbered document. `word` may name system, victim, attackers, hours_ago, value, size (of the item list)."""
    at = int(now - 3600 * word.get("hours_ago", 0)) - 20
    attackers = [
        {
            "alliance_id": 99005338,
            "character_id": character,
            "corporation_id": 98388312,
            "damage_done": 1200 - n,
            "final_blow": n == 0,
            "security_status": -1.5,
            "ship_type_id": 22456,
            "weapon_type_id": 2873,
        }
        for n, character in enumerate(word.get("attackers", [2112625428]))
    ]
    # NPCs have no character.
    attackers.append({"corporation_id": 1000125, "damage_done": 7, "final_blow": False, "security_status": 0, "ship_type_id": 3740})
    victim = {
        "character_id": word.get("victim", 95465499),
        "corporation_id": 98601201,
        "damage_taken": sum(attacker["damage_done"] for attacker in attackers),
        "items": [item(2488, 11, quantity_destroyed=1), item(3293, 5, items=[item(34, 0, quantity_dropped=4000000000)])]
        + [item(2873, 27 + n % 8, quantity_dropped=1 + n) for n in range(word.get("size", 4))],
        "position": {"x": -188477636371.79, "y": 12.5, "z": 527828299029.0},
        "ship_type_id": 587,
    }
    value = float(word.get("value", 1_250_000))
    body_hash = f"{killmail_id:040x}"
    zkb = {
        "locationID": 50001248, "hash": body_hash, "fittedValue": value / 2, "droppedValue": value / 4,
        "destroyedValue": value * 3 / 4, "totalValue": value, "points": 3, "npc": False, "solo": False, "awox": False,
        "labels": ["pvp", "loc:highsec"], "href": f"https://esi.evetech.net/v1/killmails/{killmail_id}/{body_hash}/",
    }
    esi = {
        "attackers": attackers, "killmail_id": killmail_id, "killmail_time": iso(at),
        "solar_system_id": word.get("system", JITA), "victim": victim,
    }
    return {"killmail_id": killmail_id, "hash": body_hash, "esi": esi, "zkb": zkb, "uploaded_at": int(now), "sequence_id": number}
