// Follows an event stream and loses nothing: it keeps the last event id and goes on there after any break. Needs no package.
//
//     node sse.mjs 'http://localhost:4004/api/v1/kills/stream/enhanced?system_ids=30000142&preload_days=1'
//
// In a browser `new EventSource(url)` does all of this by itself.

const url = process.argv[2] ?? "http://localhost:4004/api/v1/kills/stream";
const [FIRST_WAIT_MS, LONGEST_WAIT_MS] = [500, 30_000];
let [place, wait] = ["", FIRST_WAIT_MS];

const sleep = (ms) => new Promise((after) => setTimeout(after, ms));

function told(when, killmail) {
  const isk = Math.round(killmail.zkb.totalValue ?? 0);
  console.log(`${when} ${killmail.killmail_id} ${killmail.kill_time} in ${killmail.system_id}: ${killmail.victim.ship_name}, ${isk} ISK`);
}

function event(name, data) {
  if (name === "batch") data.kills.forEach((killmail) => told("past", killmail));
  else if (name === "" || name === "killmail") told("live", data);
  else if (name !== "heartbeat") console.log(`${name}: ${JSON.stringify(data)}`);
}

/** Reads one connection to its end. */
async function read(body) {
  let [rest, name, data] = ["", "", ""];
  for await (const text of body.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("id: ")) place = line.slice(4);
      else if (line.startsWith("event: ")) name = line.slice(7);
      else if (line.startsWith("data: ")) data += line.slice(6);
      else if (line === "") {
        if (data) event(name, JSON.parse(data));
        [name, data, wait] = ["", "", FIRST_WAIT_MS];
      }
    }
  }
}

for (;;) {
  let pause = wait;
  try {
    const answer = await fetch(url, { headers: { accept: "text/event-stream", ...(place && { "last-event-id": place }) } });
    if (answer.ok) await read(answer.body);
    else if (answer.status < 500 && answer.status !== 429) throw new Error(`refused: ${await answer.text()}`, { cause: "for good" });
    else pause = 1000 * Number(answer.headers.get("retry-after") ?? pause / 1000);
  } catch (error) {
    if (error.cause === "for good") throw error;
    console.error(`broken: ${error.message}`);
  }
  console.error(`again in ${pause} ms, after ${place || "nothing"}`);
  await sleep(pause);
  wait = Math.min(wait * 2, LONGEST_WAIT_MS);
}
