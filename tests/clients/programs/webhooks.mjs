// npm `standardwebhooks` verifies what the server signs. A unit test proves that the server signs webhooks.ndjson as it stands.
import { readFileSync } from "node:fs";
import { Webhook } from "standardwebhooks";
import { check, run, same } from "./lib.mjs";

const refused = (verify) => {
  try {
    verify();
    return false;
  } catch {
    return true;
  }
};

run(async () => {
  const requests = readFileSync(new URL("webhooks.ndjson", import.meta.url), "utf8").trimEnd().split("\n").map((line) => JSON.parse(line));
  same(requests.length, 60, "requests");
  const realNow = Date.now;
  for (const { secrets, body, ...headers } of requests) {
    // The library refuses what is older than five minutes.
    const at = Number(headers["webhook-timestamp"]);
    Date.now = () => at * 1000;
    for (const secret of secrets) {
      const webhook = new Webhook(secret);
      same(webhook.verify(body, headers), JSON.parse(body), "the body");
      check(refused(() => webhook.verify(`${body} `, headers)), "an altered body was accepted");
      check(refused(() => webhook.verify(body, { ...headers, "webhook-id": "msg_other" })), "an altered id was accepted");
      check(refused(() => webhook.verify(body, { ...headers, "webhook-timestamp": String(at + 1) })), "an altered time was accepted");
    }
  }
  Date.now = realNow;
});
