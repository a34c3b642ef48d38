"""PyPI `standardwebhooks` verifies what the server signs. A unit test proves that the server signs webhooks.ndjson as it stands."""

import json
from datetime import datetime
from pathlib import Path

import standardwebhooks.webhooks as library
from lib import same
from standardwebhooks.webhooks import Webhook, WebhookVerificationError


def at_time(unix_secs):
    """The library refuses what is older than five minutes."""

    class Then(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.fromtimestamp(unix_secs, tz)

    library.datetime = Then


def refused(webhook, body, headers):
    try:
        webhook.verify(body, headers)
    except WebhookVerificationError:
        return True
    return False


def main():
    requests = [json.loads(line) for line in Path(__file__).with_name("webhooks.ndjson").read_text(encoding="utf-8").splitlines()]
    same(len(requests), 60, "requests")
    for headers in requests:
        secrets, body = headers.pop("secrets"), headers.pop("body")
        at = int(headers["webhook-timestamp"])
        at_time(at)
        for secret in secrets:
            webhook = Webhook(secret)
            same(webhook.verify(body.encode(), headers), json.loads(body), "the body")
            assert refused(webhook, f"{body} ", headers), "an altered body was accepted"
            assert refused(webhook, body, {**headers, "webhook-id": "msg_other"}), "an altered id was accepted"
            assert refused(webhook, body, {**headers, "webhook-timestamp": str(at + 1)}), "an altered time was accepted"


main()
