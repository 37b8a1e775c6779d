"""The deliverer: follows the journal, and sends what waits in the outbox.

One thread looks at the journal and the clock and hands deliveries to workers. A webhook has one delivery in work at a
time, so its order is kept; webhooks whose last attempt failed have half of the workers at most, so receivers that hang
do not hold up the others. In memory are only the deliveries in work. One deliverer at a time acts on a home, by a
lease; one that died is replaced at once on its machine.
"""

from __future__ import annotations

import logging
import random
import threading
from datetime import datetime, timedelta
from pathlib import Path

from flyball.clock import SYSTEM, Clock, parse_duration
from flyball.control.lease import Lease
from flyball.delivery.webhooks.following import ACTOR, Follower
from flyball.delivery.webhooks.messages import headers_of
from flyball.delivery.webhooks.secrets import Secrets
from flyball.delivery.webhooks.sending import Answer, send
from flyball.delivery.webhooks.settings import WebhookSettings
from flyball.errors import FlyballError, NotFound, Unavailable
from flyball.ledger import Ledger
from flyball.ledger.deliveries import Attempt, Delivery, State
from flyball.ledger.resources import Resource

__all__ = ["Deliverer", "back_off_s", "secret_of"]

log = logging.getLogger("flyball.webhooks")

_TIDY_S = 600.0  # between two looks for deliveries and secrets that are no longer needed


class Deliverer:
    """Delivers for one home, in threads, until `stop`."""

    def __init__(self, ledger: Ledger, home: Path, settings: WebhookSettings, clock: Clock = SYSTEM) -> None:
        self._ledger = ledger
        self._settings = settings
        self._clock = clock
        self._keep = parse_duration(settings.keep)
        self._follower = Follower(ledger, settings)
        self._secrets = Secrets(home)
        self._lease = Lease(ledger, "webhooks")
        self._random = random.Random()
        self._busy: dict[str, bool] = {}  # webhooks with a delivery in work, and whether it is one that failed before
        self._changing = threading.Lock()
        self._nudged = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._renewed = self._tidied = float("-inf")

    def start(self) -> None:
        """Deliver in threads; returns at once."""
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)
        self._thread.start()

    def stop(self, wait_s: float = 1.0) -> None:
        """End the threads. A delivery in work that does not end within the time is sent again by the next deliverer."""
        self._stopping.set()
        self._nudged.set()
        if self._thread is not None:
            self._thread.join(wait_s)
        try:
            self._lease.release()
        except Unavailable as error:
            log.warning("the lease of webhooks could not be given back: %s", error)

    def look(self) -> None:
        """Put what is new into the outbox and hand what is due to the workers; what `start` does over and over."""
        if not self._follower.has_webhooks() and not self._busy:
            return
        if self._clock.monotonic() - self._renewed >= self._lease.ttl_s / 3:
            self._lease.renew()
            self._renewed = self._clock.monotonic()
        if self._lease.fence is None:
            return
        self._follower.follow(self._lease.fence)
        self._tidy()
        self._hand_out()

    def _run(self) -> None:
        wait = self._settings.poll_s
        while not self._stopping.is_set():
            try:
                self.look()
                wait = self._settings.poll_s
            except Unavailable as error:
                wait = min(wait * 2, 10.0)
                log.warning("webhooks wait: %s", error)
            except Exception:
                wait = 10.0
                log.exception("webhooks could not be delivered; trying again in 10 s")
            self._nudged.wait(wait)
            self._nudged.clear()

    def _hand_out(self) -> None:
        with self._changing:
            busy = dict(self._busy)
        free = self._settings.workers - len(busy)
        if free <= 0:
            return
        with self._ledger.read() as world:
            # More than there is room for: some may have to leave a place to those that did not fail.
            due = world.deliveries.due(list(busy), self._clock.now(), free + self._settings.workers)
        failing = sum(busy.values())
        for one in due:
            if free <= 0:
                return
            has_failed = one.attempts > 0
            if has_failed and failing >= max(1, self._settings.workers // 2):
                continue
            free, failing = free - 1, failing + has_failed
            with self._changing:
                self._busy[one.webhook] = has_failed
            # Daemons: a receiver that hangs must not keep the process from ending.
            threading.Thread(target=self._work, args=(one,), name="webhook", daemon=True).start()

    def _work(self, delivery: Delivery) -> None:
        try:
            if not self._stopping.is_set():
                self._deliver(delivery)
        except FlyballError as error:
            log.warning("webhook/%s: %s; it is sent again", delivery.webhook, error)
        except Exception:
            log.exception("webhook/%s failed", delivery.webhook)
        finally:
            with self._changing:
                self._busy.pop(delivery.webhook, None)
            self._nudged.set()

    def _deliver(self, delivery: Delivery) -> None:
        with self._ledger.read() as world:
            webhook = world.resources.find("webhook", delivery.webhook)
        if webhook is None:
            return  # the follower removes its deliveries
        began, started = self._clock.now(), self._clock.monotonic()
        answer = self._send(webhook, delivery, began)
        attempt = Attempt(began, round((self._clock.monotonic() - started) * 1000), answer.status, answer.told)
        state, due_at = self._after(delivery, answer)
        with self._ledger.write(ACTOR) as world:
            world.deliveries.tried(delivery, attempt, state, due_at)
        if state == "failed":
            log.warning("webhook/%s: event %s was not delivered: %s", delivery.webhook, delivery.event, attempt.error)

    def _send(self, webhook: Resource, delivery: Delivery, at: datetime) -> Answer:
        if not webhook.spec.get("active", True):
            return Answer(error="the webhook was made inactive", is_final=True)
        try:
            secret = secret_of(webhook, self._secrets)
        except FlyballError as error:
            return Answer(error=str(error))  # unsigned it would be refused, or worse, taken
        body = delivery.body.encode()
        form = webhook.spec.get("format", "cloudevents")
        return send(webhook.spec["url"], headers_of(form, delivery.id, body, at, secret), body, self._settings)

    def _after(self, delivery: Delivery, answer: Answer) -> tuple[State, datetime]:
        """Return what becomes of a delivery after an answer, and when it is sent next or had its end."""
        now = self._clock.now()
        if answer.is_taken:
            return "delivered", now
        if answer.is_final or delivery.attempts >= self._settings.retries:
            return "failed", now
        wait = back_off_s(delivery.attempts, self._settings, self._random)
        if answer.retry_after_s is not None:
            wait = min(max(wait, answer.retry_after_s), self._settings.backoff_max_s)
        return "waiting", now + timedelta(seconds=wait)

    def _tidy(self) -> None:
        if self._clock.monotonic() - self._tidied < _TIDY_S:
            return
        self._tidied = self._clock.monotonic()
        with self._ledger.read() as world:
            names = {one.name for one in world.resources.all("webhook")}
        self._secrets.tidy(names)
        with self._ledger.write(ACTOR, fence=self._lease.fence) as world:
            world.deliveries.forget(done_before=self._clock.now() - self._keep)


def back_off_s(failed: int, settings: WebhookSettings, chance: random.Random) -> float:
    """Return the seconds to wait after `failed` + 1 attempts: doubling to a bound, and a random half of it less."""
    longest = min(settings.backoff_s * 2.0 ** min(failed, 60), settings.backoff_max_s)
    return longest * chance.uniform(0.5, 1.0)


def secret_of(webhook: Resource, kept: Secrets) -> str | None:
    """Return what a webhook's messages are signed by; None: they are not. Raises NotFound, Unavailable."""
    if not webhook.status.get("signed"):
        return None  # a secret that an earlier webhook of this name has left is none of this one's
    try:
        return kept.of(webhook.name)
    except NotFound as error:
        raise Unavailable(str(error)) from None
