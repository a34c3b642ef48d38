// Configuration, all optional: {"mode": "cheap" | "involves" | "json", "of": "alliance" | "corporation", "ids": [..], "min_value": n}
import * as killmail from "killstream:plugin/killmail@1.0.0-rc.1";

const MODES = ["cheap", "involves", "json"];
const KINDS = ["alliance", "corporation"];
let settings; // set by configure, never by evaluate

export const guest = {
  configure(text) {
    let given;
    try { given = JSON.parse(text); } catch (error) { throw `configuration: ${error.message}`; }
    const { mode = "cheap", of = "alliance", ids = [], min_value = 100e6 } = given;
    if (!MODES.includes(mode)) throw `mode: one of ${MODES.join(", ")}`;
    if (!KINDS.includes(of)) throw `of: one of ${KINDS.join(", ")}`;
    if (!Array.isArray(ids) || !ids.every((id) => Number.isInteger(id) && id > 0)) throw "ids: a list of ids";
    if (typeof min_value !== "number") throw "min_value: a number, ISK";
    settings = { mode, of, ids, min_value };
    return undefined; // every killmail is of interest
  },

  evaluate(summary) {
    if (settings.mode === "involves")
      return { tag: killmail.involves(settings.of, "attacker", settings.ids) ? "keep" : "drop" };
    if (settings.mode === "json") {
      const { victim, attackers } = JSON.parse(killmail.json());
      return { tag: "keep-with", val: JSON.stringify({ ship: victim.ship_type_id ?? 0, attackers: attackers.length }) };
    }
    return { tag: summary.totalValue >= settings.min_value ? "keep" : "drop" };
  },
};
