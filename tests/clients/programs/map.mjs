// A client that behaves as the Wanderer map does through phoenix_gen_socket_client: WebSocket pings and no Phoenix heartbeat, arrays of
// exactly five, every reply matched by join_ref: one without it counts as the reply to the join, and would make it forget that it joined.
import WebSocket from "ws";
import { AMARR, JITA, Ledger, TAMA, check, counted, publish, run, same, seed, server, sorted, stage, until, whole } from "./lib.mjs";

const TOPIC = "killmails:lobby";
const WAIT_MS = 20_000;

class GenSocket {
  ledger = new Ledger();
  /** As the map counts: one more for each pushed killmail, set by each count. */
  counters = new Map();
  pending = new Map();
  joinRef = undefined;
  joinedAs = undefined;
  closed = undefined;
  #next = 0;

  /** `ref` makes refs: strings as the library's newer versions send, numbers as older ones. */
  constructor(ref) {
    this.ref = () => ref(++this.#next);
  }

  async connect() {
    this.socket = new WebSocket(`ws://${server}/socket/websocket?vsn=2.0.0&heartbeat=30000`, { autoPong: false });
    this.socket.on("message", (data, binary) => this.#message(data, binary));
    this.socket.on("close", (code) => (this.closed = code));
    await new Promise((open, failed) => this.socket.once("open", open).once("error", failed));
    this.pings = setInterval(() => this.socket.ping(), 300);
    this.closed = undefined;
    this.ledger.reconnected();
  }

  disconnect() {
    clearInterval(this.pings);
    this.socket.terminate();
    this.joinedAs = undefined;
    this.pending.clear();
  }

  join(payload) {
    this.joinRef = this.ref();
    return this.#send(this.joinRef, this.joinRef, "phx_join", payload);
  }

  push(event, payload) {
    check(this.joinedAs !== undefined, "not_joined");
    return this.#send(this.joinedAs, this.ref(), event, payload);
  }

  #send(joinRef, ref, event, payload) {
    const answered = new Promise((answer, failed) => {
      const timer = setTimeout(() => failed(new Error(`no reply to ${event}`)), WAIT_MS);
      this.pending.set(ref, (reply) => {
        clearTimeout(timer);
        answer(reply);
      });
    });
    this.socket.send(JSON.stringify([joinRef, ref, TOPIC, event, payload]));
    return answered;
  }

  #message(data, binary) {
    check(!binary, "a binary frame");
    const frame = JSON.parse(data);
    check(Array.isArray(frame) && frame.length === 5, `not an array of five: ${data}`);
    const [joinRef, ref, topic, event, payload] = frame;
    check(payload && typeof payload === "object" && !Array.isArray(payload), `a payload that is no object: ${data}`);
    same(topic, TOPIC, "the topic");
    if (event === "phx_reply") return this.#reply(joinRef, ref, payload, data);
    same(joinRef, this.joinedAs ?? this.joinRef, `the join_ref of ${event}`);
    if (event === "phx_close" || event === "phx_error") throw new Error(`the channel ended: ${data}`);
    same(ref, null, `the ref of ${event}`);
    if (event === "killmail_update") this.#update(payload);
    if (event === "kill_count_update") this.counters.set(payload.system_id, payload.count);
  }

  #reply(joinRef, ref, payload, data) {
    check(this.pending.has(ref), `a reply to nothing that was asked (type and all): ${data}`);
    if (joinRef === null || joinRef === ref) {
      same([joinRef, ref], [this.joinRef, this.joinRef], "a reply that reads as the reply to the join");
      if (payload.status === "ok") this.joinedAs = joinRef;
    } else {
      same(joinRef, this.joinedAs, "the join_ref of a reply");
    }
    this.pending.get(ref)(payload);
    this.pending.delete(ref);
  }

  #update({ system_id, killmails }) {
    for (const killmail of killmails) {
      this.ledger.take(whole(killmail).killmail_id);
      this.counters.set(system_id, (this.counters.get(system_id) ?? 0) + 1);
    }
  }
}

async function plays(client, history) {
  await client.connect();
  const joined = await client.join({ systems: [JITA, TAMA], client_identifier: "wanderer_app" });
  same([joined.status, sorted(joined.response.subscribed_systems)], ["ok", [JITA, TAMA]], "the join's reply");
  await client.ledger.got(history.slice(-5), "the preload");
  await until("a count", () => client.counters.get(JITA) > 5);
  same(client.counters.get(JITA), await counted(JITA), "the count after the preload");

  // Longer than the server waits for a silent client: the pings are life enough.
  await new Promise((after) => setTimeout(after, 3_000));
  same(client.closed, undefined, "closed although it pinged");

  const live = await publish({ system: JITA }, { system: AMARR }, { system: TAMA });
  await client.ledger.got([live[0], live[2]], "live killmails");
  check(!client.ledger.has(live[1]), "a killmail of another system");
  same(client.counters.get(JITA), await counted(JITA), "the count after a live killmail");
  const grown = await client.push("subscribe_systems", { systems: [AMARR] });
  same([grown.status, sorted(grown.response.subscribed_systems)], ["ok", sorted([JITA, TAMA, AMARR])], "after growing");
  await client.ledger.got([live[1]], "the preload of the new system");
  const shrunk = await client.push("unsubscribe_systems", { systems: [TAMA] });
  same([shrunk.status, sorted(shrunk.response.subscribed_systems)], ["ok", sorted([JITA, AMARR])], "after shrinking");
  const after = await publish({ system: TAMA }, { system: AMARR });
  await client.ledger.got([after[1]], "live after shrinking");
  check(!client.ledger.has(after[0]), "a killmail of a system left");

  // The map comes back with its systems and no place: the preload brings what it missed.
  await stage("hold");
  await stage("cut");
  await until("the cut", () => client.closed !== undefined);
  client.disconnect();
  const away = await publish({ system: JITA }, { system: AMARR });
  await stage("release");
  await client.connect();
  same((await client.join({ systems: [JITA, AMARR], client_identifier: "wanderer_app" })).status, "ok", "the second join");
  await client.ledger.got(away, "killmails of the time away");
  await until("the counts", async () => client.counters.get(JITA) === (await counted(JITA)) && client.counters.get(AMARR) === (await counted(AMARR)));
  const last = await publish({ system: JITA });
  await client.ledger.got(last, "live after coming back");
  same(client.counters.get(JITA), await counted(JITA), "the count at the end");
  client.disconnect();
}

run(async () => {
  const history = await seed(...[30, 9, 8, 7, 6, 5, 4].map((hours_ago) => ({ system: JITA, hours_ago })));
  await plays(new GenSocket((n) => `${n}`), history);
  // The five newest are others by now.
  const second = new GenSocket((n) => n);
  const newest = await seed(...[0.9, 0.8, 0.7, 0.6, 0.5].map((hours_ago) => ({ system: JITA, hours_ago })));
  await plays(second, newest);
});
