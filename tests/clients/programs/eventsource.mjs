// The npm package `eventsource` (what browsers do) on both streams: cut, restarted, resumed by itself with Last-Event-ID.
import { EventSource } from "eventsource";
import { AMARR, JITA, Ledger, check, publish, run, same, server, stage, until, whole } from "./lib.mjs";

run(async () => {
  const ledger = new Ledger();
  const basic = new EventSource(`http://${server}/api/v1/kills/stream?system_ids=${JITA}`);
  let opened = 0;
  basic.onopen = () => opened++;
  basic.onmessage = (event) => ledger.take(whole(JSON.parse(event.data)).killmail_id);
  for (const name of ["killmail", "gap", "connected"]) basic.addEventListener(name, (event) => ledger.take(`${name}: ${event.data}`));
  await until("the stream to open", () => opened === 1);

  const expected = await publish({ system: JITA }, { system: AMARR }, { system: JITA });
  expected.splice(1, 1);
  await ledger.got(expected, "live killmails");

  // What is published while the client is away comes when it is back: it names its place.
  await stage("hold");
  await stage("cut");
  expected.push(...(await publish({ system: JITA }, { system: JITA })));
  await stage("release");
  await ledger.got(expected, "killmails of the time away");

  // Nothing live came after this place: the id of a ping is a place as well.
  await stage("hold");
  await stage("restart");
  expected.push(...(await publish({ system: JITA })));
  await stage("release");
  await ledger.got(expected, "killmails of the time the server was away");
  expected.push(...(await publish({ system: JITA })));
  await ledger.got(expected, "live again");
  same(ledger.all, expected, "everything once, in order");
  check(opened === 3, `opened ${opened} times`);
  basic.close();
});
