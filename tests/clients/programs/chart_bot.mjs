// A client that behaves as eve-chart-bot does, over the npm package `phoenix-websocket`: a join that names nothing, characters and systems
// added afterwards with a preload of their own, in batches; everything is asked for again after a break.
import ws from "ws";
import { AMARR, JITA, Ledger, TAMA, check, publish, run, same, seed, server, sorted, stage, until, whole } from "./lib.mjs";

globalThis.WebSocket ??= ws;
const { PhoenixWebsocket } = await import("phoenix-websocket").catch(() => import("./stand_in.mjs"));

const TOPIC = "killmails:lobby";
const CHARACTERS = [2119999999, 90000007];
const preload = { enabled: true, limit_per_system: 100, since_hours: 168, delivery_batch_size: 10, delivery_interval_ms: 300 };

/** What the bot's database takes of a killmail. */
function row(killmail) {
  whole(killmail);
  check(killmail.victim.ship_type_id > 0 && Array.isArray(killmail.attackers), "ship and attackers");
  check(killmail.zkb.points >= 0 && [killmail.zkb.npc, killmail.zkb.solo, killmail.zkb.awox].every((flag) => flag === false), "zkb");
  return { id: killmail.killmail_id, isk: BigInt(Math.floor(killmail.zkb.total_value)), at: new Date(killmail.kill_time), labels: killmail.zkb.labels.length };
}

run(async () => {
  const words = [];
  for (let n = 0; n < 24; n++) words.push({ system: n % 3 ? JITA : TAMA, hours_ago: 100 - n, attackers: [5 + 90000000, CHARACTERS[0]] });
  words.push({ system: AMARR, hours_ago: 200, victim: CHARACTERS[0] }, { system: AMARR, hours_ago: 30, victim: CHARACTERS[1] });
  words.push({ system: AMARR, hours_ago: 20, victim: 90000011 });
  const history = await seed(...words);
  const of = { first: history.slice(0, 24), second: [history[25]], amarr: [history[26]] };

  const ledger = new Ledger();
  const [updates, completed, rejoined] = [[], [], []];
  let connected = 0;
  const socket = new PhoenixWebsocket(`ws://${server}/socket`, { client_identifier: "eve-chart-bot" });
  socket.onConnectedCallback = () => {
    connected++;
    ledger.reconnected();
  };
  await socket.connect();
  const handlers = {
    killmail_update: (update) => {
      check(update.killmails.every((killmail) => killmail.system_id === update.system_id), "one system in one push");
      update.killmails.forEach((killmail) => ledger.take(row(killmail).id));
      updates.push(update);
    },
    kill_count_update: ({ count }) => check(Number.isInteger(count) && count >= 0, "a count"),
    preload_complete: (complete) => completed.push(complete),
  };
  await socket.subscribeToTopic(TOPIC, { preload }, handlers, (joining) => rejoined.push(joining));

  // Answers come at once, however long the preload before them takes.
  const ask = (event, payload) => socket.sendMessage(TOPIC, event, payload).then((reply) => reply.response);
  same((await ask("subscribe_characters", { character_ids: CHARACTERS.slice(0, 1), preload })).subscribed_characters, CHARACTERS.slice(0, 1), "one character");
  same(sorted((await ask("subscribe_characters", { character_ids: CHARACTERS.slice(1), preload })).subscribed_characters), sorted(CHARACTERS), "two characters");
  same((await ask("subscribe_systems", { systems: [AMARR], preload })).subscribed_systems, [AMARR], "a system");
  check(ledger.all.length < 26, "answers waited for preloads");
  const during = await publish({ system: TAMA, victim: CHARACTERS[1] }, { system: TAMA, victim: 90000012 });
  await ledger.got([...of.first, ...of.second, ...of.amarr, during[0]], "three preloads");
  const pushed = updates.filter((update) => update.preload);
  check(pushed.every((update) => update.killmails.length <= 10), "pushes of at most ten");
  check(!ledger.has(history[24]) && !ledger.has(during[1]), "older than asked for, or of nobody");
  await until("the end of the preloads", () => completed.length >= 3);

  same((await ask("unsubscribe_characters", { character_ids: CHARACTERS.slice(0, 1) })).subscribed_characters, CHARACTERS.slice(1), "after shrinking");
  const live = await publish({ system: JITA, victim: CHARACTERS[0] }, { system: AMARR }, { system: JITA, attackers: CHARACTERS });
  await ledger.got(live.slice(1), "live killmails");
  check(!ledger.has(live[0]), "a character left");

  // A break: the package joins again, the bot asks again, the preload brings what it missed.
  await stage("hold");
  await stage("cut");
  const away = await publish({ system: AMARR }, { system: JITA, victim: CHARACTERS[1] });
  await stage("release");
  await until("the second join", () => rejoined.length === 1);
  await rejoined[0];
  await ask("subscribe_characters", { character_ids: CHARACTERS.slice(1), preload });
  await ask("subscribe_systems", { systems: [AMARR], preload });
  await ledger.got(away, "killmails of the time away");
  await ledger.got(await publish({ system: AMARR }), "live again");

  const refused = await ask("subscribe_systems", { systems: ["x"], preload }).catch((error) => error);
  check(refused instanceof Error, "a wrong id is refused");
  same(await ask("get_status", {}).then((status) => status.subscribed_systems), [AMARR], "the channel lives after an error");
  let ended = false;
  socket.onDisconnectedCallback = () => (ended = true);
  socket.unsubscribeToTopic(TOPIC);
  await until("the end", () => ended);
  same(connected, 2, "connections");
});
