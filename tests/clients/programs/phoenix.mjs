// The official npm package `phoenix`, over each of the two WebSocket packages: join, preload, live, grow, shrink, cut, resume, leave.
import { Socket } from "phoenix";
import w3c from "websocket";
import ws from "ws";
import { AMARR, JITA, Ledger, RENS, TAMA, check, counted, publish, run, same, seed, server, sorted, stage, until, whole } from "./lib.mjs";

const CHARACTER = 2119999999;

/** A pushed message's answer. */
function asked(push) {
  return new Promise((ok, failed) => {
    push.receive("ok", ok);
    push.receive("error", (response) => failed(new Error(`an error reply: ${JSON.stringify(response)}`)));
    push.receive("timeout", () => failed(new Error("no reply in time")));
  });
}

class Client {
  ledger = new Ledger();
  updates = [];
  counts = new Map();
  completed = [];
  joins = [];
  opened = 0;
  closed = 0;
  place;

  constructor(transport, wanted) {
    this.wanted = wanted;
    const options = { transport, params: { client_identifier: "tests" }, heartbeatIntervalMs: 400, timeout: 20_000 };
    // A token goes as a subprotocol; `ws` ends a connection whose answer names none, as browsers do.
    if (transport === ws) options.authToken = "a token";
    this.socket = new Socket(`ws://${server}/socket`, options);
    this.socket.onOpen(() => {
      this.opened++;
      this.ledger.reconnected();
    });
    // The place is asked for at every join, so a reconnect goes on where this client was.
    this.channel = this.socket.channel("killmails:lobby", () => ({ ...this.wanted, ...(this.place && { resume_from: this.place }) }));
    this.channel.on("killmail_update", (update) => {
      same(new Set(update.killmails.map((killmail) => killmail.system_id)).size, 1, "systems of one update");
      update.killmails.forEach((killmail) => {
        same(killmail.system_id, update.system_id, "the update's system");
        this.ledger.take(whole(killmail).killmail_id);
      });
      check(update.preload || update.killmails.length === 1, "live updates hold one killmail");
      check(update.preload || typeof update.event_id === "string", "live updates say their place");
      this.place = update.event_id ?? this.place;
      this.updates.push(update);
    });
    this.channel.on("kill_count_update", ({ system_id, count }) => this.counts.set(system_id, count));
    this.channel.on("preload_complete", (complete) => this.completed.push(complete));
    this.channel.onClose(() => this.closed++);
  }

  async join() {
    this.socket.connect();
    const push = this.channel.join();
    push.receive("ok", (response) => this.joins.push(response));
    return asked(push);
  }

  push(event, payload) {
    return asked(this.channel.push(event, payload));
  }

  /** Waits for the end of so many preloads. */
  async preloaded(times) {
    await until(`preload_complete number ${times}`, () => this.completed.length >= times);
    return this.completed[times - 1];
  }
}

async function plays(name, transport) {
  const start = {
    jita: await seed(...[30, 20, 9, 8, 7, 6, 5, 4].map((hours_ago) => ({ system: JITA, hours_ago }))),
    tama: await seed({ system: TAMA, hours_ago: 3 }, { system: TAMA, hours_ago: 2, attackers: [CHARACTER] }),
    rens: await seed({ system: RENS, hours_ago: 1, victim: CHARACTER }),
  };
  const truth = { jita: await counted(JITA), tama: await counted(TAMA) };
  const client = new Client(transport, { systems: [JITA, AMARR], client_identifier: "tests" });
  const joined = await client.join();
  same([joined.status, sorted(joined.subscribed_systems), joined.subscribed_characters], ["connected", [JITA, AMARR], []], "the join's reply");

  // Without a preload object: the five newest of 24 hours, newest first, one push.
  let complete = await client.preloaded(1);
  same(client.ledger.all, start.jita.slice(-5).reverse(), "the preload");
  same([client.updates.length, client.updates[0].preload], [1, true], "pushes of the preload");
  same([complete.total_kills, complete.errors], [5, []], "preload_complete");
  await until("the count of Jita", () => client.counts.has(JITA));
  same([...client.counts], [[JITA, truth.jita]], "counts after the preload");

  // Live: what is subscribed, once.
  const live = await publish({ system: JITA }, { system: TAMA }, { system: AMARR });
  await client.ledger.got([live[0], live[2]], "live killmails");
  check(!client.ledger.has(live[1]), "a killmail of another system");

  // Growing brings what the new terms select, less what was sent.
  const tama = await client.push("subscribe_systems", { systems: [TAMA] });
  same(sorted(tama.subscribed_systems), sorted([JITA, AMARR, TAMA]), "systems after growing");
  complete = await client.preloaded(2);
  await client.ledger.got([...start.tama, live[1]], "the preload of Tama");
  same(complete.total_kills, 3, "killmails of the second preload");
  await until("the count of Tama", () => client.counts.has(TAMA));
  same(client.counts.get(TAMA), truth.tama + 1, "the count of Tama");
  same((await client.push("subscribe_systems", { systems: [TAMA] })).message, "Already subscribed to all requested systems", "growing by nothing");
  same((await client.push("subscribe_characters", { character_ids: [CHARACTER], preload: true })).subscribed_characters, [CHARACTER], "characters");
  complete = await client.preloaded(3);
  await client.ledger.got(start.rens, "the preload of the character");
  same(complete.total_kills, 1, "killmails of the third preload");

  // Shrinking: systems OR characters.
  const shrunk = await client.push("unsubscribe_systems", { systems: [JITA] });
  same(sorted(shrunk.subscribed_systems), sorted([AMARR, TAMA]), "systems after shrinking");
  const after = await publish({ system: JITA }, { system: JITA, attackers: [CHARACTER] }, { system: TAMA, victim: CHARACTER });
  await client.ledger.got(after.slice(1), "killmails after shrinking");
  check(!client.ledger.has(after[0]), "a killmail of a system left");
  const updated = await client.push("update_subscriptions", { add_systems: [RENS], remove_systems: [AMARR], add_characters: [], remove_characters: [CHARACTER] });
  same([sorted(updated.subscribed_systems), updated.subscribed_characters], [[RENS, TAMA].sort(), []], "after update_subscriptions");
  const status = await client.push("get_status", {});
  check(status.user_id.startsWith("tests_") && status.subscription_id === joined.subscription_id, JSON.stringify(status));

  // Cut off: the client comes back by itself and goes on at its place.
  await client.preloaded(4);
  const before = client.ledger.all.length;
  client.wanted = { systems: [RENS, TAMA] };
  await stage("hold");
  await stage("cut");
  const away = await publish({ system: RENS }, { system: AMARR }, { system: TAMA }, { system: RENS });
  await stage("release");
  await client.ledger.got([away[0], away[2], away[3]], "killmails of the time away");
  await stage("hold");
  await stage("restart");
  away.push(...(await publish({ system: TAMA })));
  await stage("release");
  away.push(...(await until("live after a restart", async () => client.joins.length === 3 && publish({ system: RENS }))));
  await client.ledger.got(away.slice(4), "killmails of the server's restart");
  same(client.ledger.all.slice(before), [away[0], away[2], ...away.slice(3)], "resumed: once, in order, without a preload");
  same([client.opened, client.completed.length], [3, 4], "connections and preloads");
  check(client.joins.slice(1).every((join) => typeof join.resumed_from === "string" && !join.gap), JSON.stringify(client.joins));

  // An error leaves the channel alive; leaving ends it.
  const refused = await client.push("subscribe_systems", { systems: ["x"] }).catch((error) => error.message);
  check(refused.includes("non_integer_system_ids"), refused);
  check((await client.push("nonsense", {}).catch((error) => error.message)).includes("unknown event: nonsense"), "an unknown event");
  await asked(client.channel.leave());
  same(client.closed, 1, "closes");
  same(client.opened, 3, "connections to the end: every heartbeat was answered");
  client.socket.disconnect();
  console.log(`${name}: ${client.ledger.all.length} killmails`);
}

const [name, transport] = process.argv[2] === "websocket" ? ["websocket", w3c.w3cwebsocket] : ["ws", ws];
run(() => plays(name, transport));
