// What the JavaScript clients share: directing the stage, waiting, and a ledger in which nothing may stand twice.

export const server = process.env.SERVER;
const stageUrl = process.env.STAGE;

export const [JITA, AMARR, TAMA, RENS] = [30000142, 30002187, 30002813, 30002510];

/** Asks the stage for something. */
export async function stage(action, body = {}) {
  const answer = await fetch(`${stageUrl}/${action}`, { method: "POST", body: JSON.stringify(body) });
  if (!answer.ok) throw new Error(`the stage could not ${action}: ${answer.status}`);
  return answer.json();
}

/** Publishes killmails (words as in stage.py) and gives their ids. */
export async function publish(...killmails) {
  return (await stage("publish", { killmails })).ids;
}

/** The same for history, which is never announced. */
export async function seed(...killmails) {
  return (await stage("seed", { killmails })).ids;
}

/** How many killmails the last 24 hours of a system have. */
export async function counted(system) {
  return (await stage("count", { system })).count;
}

export function check(truth, said) {
  if (!truth) throw new Error(said);
}

export function same(got, wanted, what) {
  const [a, b] = [JSON.stringify(got), JSON.stringify(wanted)];
  check(a === b, `${what}: got ${a}, wanted ${b}`);
}

export const sorted = (ids) => [...ids].sort((a, b) => a - b);

/** Waits until `found` gives something true; fails after 20 s. */
export async function until(what, found) {
  const end = Date.now() + 20_000;
  for (;;) {
    const value = await found();
    if (value) return value;
    if (Date.now() > end) throw new Error(`waited in vain for ${what}`);
    await new Promise((next) => setTimeout(next, 10));
  }
}

/** Ids in the order they came; a second time on one connection is an error. */
export class Ledger {
  all = [];
  #connection = new Set();

  take(id) {
    check(Number.isInteger(id), `no killmail id: ${id}`);
    check(!this.#connection.has(id), `killmail ${id} came twice on one connection`);
    this.#connection.add(id);
    this.all.push(id);
  }

  /** A new connection may bring in its preload what an older one had. */
  reconnected() {
    this.#connection.clear();
  }

  has(...ids) {
    return ids.every((id) => this.all.includes(id));
  }

  /** Waits until these have come; says which did not. */
  async got(ids, what) {
    try {
      await until(what, () => this.has(...ids));
    } catch {
      throw new Error(`${what}: ${ids.filter((id) => !this.has(id))} did not come, only ${this.all}`);
    }
  }
}

/** Every client of the old service relies on these. */
export function whole(killmail) {
  check(killmail.kill_time?.endsWith("Z"), `kill_time: ${killmail.kill_time}`);
  check(killmail.system_id === killmail.solar_system_id && killmail.system_id > 30_000_000, `system: ${killmail.system_id}`);
  check(!("killID" in killmail) && !("victim_char_id" in killmail), "names of the oldest form");
  check(killmail.zkb.totalValue === killmail.zkb.total_value && killmail.zkb.totalValue > 0, "zkb in both spellings");
  check(killmail.attackers.filter((attacker) => attacker.final_blow === true).length === 1, "one final blow");
  check(killmail.attacker_count === killmail.attackers.length, "attacker_count");
  check(killmail.victim.ship_name && !JSON.stringify(killmail).includes(":null"), "names or nothing, never null");
  return killmail;
}

/** Runs a client program; whatever goes wrong ends it. */
export function run(program) {
  process.on("uncaughtException", (error) => {
    console.error(error);
    process.exit(1);
  });
  program().then(
    () => process.exit(0),
    (error) => {
      console.error(error);
      process.exit(1);
    },
  );
}
