// Follows killmails over Phoenix channels with the official package and loses nothing: every live killmail says its place, and a join
// that names one goes on there. The package reconnects by itself, waiting longer each time.
//
//     npm install && node channels.mjs ws://localhost:4004 30000142,30002187 [95465499,...]
import { Socket } from "phoenix";
import WebSocket from "ws";

const [server = "ws://localhost:4004", systems = "30000142", characters = ""] = process.argv.slice(2);
const ids = (list) => list.split(",").filter(Boolean).map(Number);
let [place, opened] = [undefined, undefined];

const socket = new Socket(`${server}/socket`, { transport: WebSocket, params: { client_identifier: "example" } });
// The function is called at every join, so that one after a break names the place.
const channel = socket.channel("killmails:lobby", () => ({
  systems: ids(systems),
  character_ids: ids(characters),
  ...(place ? { resume_from: place } : { preload: { limit_per_system: 5, since_hours: 24, delivery_interval_ms: 0 } }),
}));

// A break inside the preload brings it again.
const preloaded = new Set();

channel.on("killmail_update", ({ killmails, preload, event_id }) => {
  for (const killmail of killmails) {
    if (preload && preloaded.has(killmail.killmail_id)) continue;
    if (preload) preloaded.add(killmail.killmail_id);
    const isk = Math.round(killmail.zkb.totalValue ?? 0);
    const when = preload ? "past" : "live";
    console.log(`${when} ${killmail.killmail_id} ${killmail.kill_time} in ${killmail.system_id}: ${killmail.victim.ship_name}, ${isk} ISK`);
  }
  place = event_id ?? place;
});
channel.on("kill_count_update", ({ system_id, count }) => console.log(`count of ${system_id}: ${count} in 24 h`));
channel.on("preload_complete", ({ total_kills }) => {
  console.log(`preload: ${total_kills}`);
  // All of the past is here: from now on the place where the channel was opened will do.
  place ??= opened;
});

socket.onClose(() => console.error(`broken, after ${place ?? "nothing"}`));
socket.connect();
channel
  .join()
  .receive("ok", ({ event_id, resumed_from, gap }) => {
    // Where the channel begins.
    opened = event_id;
    // What lay between cannot be had; this is where it goes on.
    if (gap) place = gap.resumed_at;
    console.log(gap ? `gap: ${JSON.stringify(gap)}` : `joined${resumed_from ? ` after ${resumed_from}` : ""}`);
  })
  .receive("error", ({ reason }) => {
    console.error(`refused: ${reason}`);
    process.exit(1);
  });
