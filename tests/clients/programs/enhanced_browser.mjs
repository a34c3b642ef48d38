// A browser page on the enhanced stream, cut in the middle of its preload: EventSource comes back with the same URL and Last-Event-ID,
// and the preload goes on where it was.
import { EventSource } from "eventsource";
import { JITA, Ledger, TAMA, check, publish, run, same, seed, server, sorted, stage, until, whole } from "./lib.mjs";

const CHARACTER = 95465499;
const OTHER = 2112625428;

run(async () => {
  const words = [];
  for (let n = 0; n < 400; n++) {
    const hours_ago = 24 * 60 - n * 3;
    words.push({ system: n % 2 ? JITA : TAMA, hours_ago, victim: n % 4 ? CHARACTER : 90000009, attackers: [n % 4 ? OTHER : CHARACTER] });
    if (n % 8 === 0) words.push({ system: JITA, hours_ago, victim: 90000010, attackers: [OTHER] });
  }
  const published = await seed(...words);
  const history = published.filter((_, n) => words[n].victim !== 90000010);

  await stage("cut", { after_bytes: 700_000, hold: true });
  const ledger = new Ledger();
  const [connections, batches, transitions, modes] = [[], [], [], []];
  let [isRealtime, heartbeatCount] = [false, 0];
  const source = new EventSource(`http://${server}/api/v1/kills/stream/enhanced?character_ids=${CHARACTER}&preload_days=90`);
  source.addEventListener("connected", (event) => connections.push(JSON.parse(event.data)));
  source.addEventListener("batch", (event) => {
    const batch = JSON.parse(event.data);
    same(batch.kills, batch.killmails, "a batch under both names");
    same(batch.count, batch.kills.length, "the count of a batch");
    batches.push({ connection: connections.length, number: batch.batch_number, of: batch.total_batches });
    batch.kills.forEach((killmail) => ledger.take(whole(killmail).killmail_id));
    heartbeatCount = 0;
  });
  source.addEventListener("transition", (event) => {
    transitions.push(JSON.parse(event.data));
    isRealtime = true;
  });
  source.addEventListener("killmail", (event) => {
    check(isRealtime, "live before the transition");
    ledger.take(whole(JSON.parse(event.data)).killmail_id);
    heartbeatCount = 0;
  });
  source.addEventListener("heartbeat", (event) => {
    heartbeatCount++;
    modes.push(JSON.parse(event.data).mode);
  });
  for (const name of ["gap", "error"]) source.addEventListener(name, (event) => event.data && ledger.take(`${name}: ${event.data}`));

  // The line breaks inside a batch; killmails are published meanwhile.
  await until("the cut", async () => batches.length > 0 && (await stage("lines")).open === 0);
  check(ledger.all.length < history.length && transitions.length === 0, "the cut came too late");
  const away = await publish({ victim: CHARACTER }, { victim: 90000010, attackers: [OTHER] }, { attackers: [CHARACTER, OTHER] });
  await stage("release");
  await until("the transition", () => transitions.length > 0);
  same(ledger.all.slice(0, history.length), history, "history, oldest first, each once");
  check(transitions[0].status === "historical_complete", "the status of the transition");
  const second = batches.filter((batch) => batch.connection === 2);
  same(second.map((batch) => batch.number), second.map((_, n) => n + 1), "numbers of the batches of the second connection");
  same(second.at(-1).of, second.length, "total_batches counts what remained");
  await ledger.got([away[0], away[2]], "killmails of the time away");

  await stage("cut");
  await until("the third connection", () => connections.length === 3);
  const live = await publish({ victim: CHARACTER }, { victim: 90000010, attackers: [OTHER] });
  await ledger.got(live.slice(0, 1), "live after a second cut");
  await until("a heartbeat", () => heartbeatCount > 0);
  same(modes.at(-1), "realtime", "the mode of the last heartbeat");
  same(ledger.all, [...history, away[0], away[2], live[0]], "everything once, in order");
  same(ledger.all, sorted(ledger.all), "killmail id order");
  same(transitions.length, 1, "transitions");
  source.close();
});
