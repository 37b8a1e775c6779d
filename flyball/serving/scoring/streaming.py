"""Consume, score, produce: each message answered at least once, whatever dies in between.

A turn takes some messages, answers them together, sends the answers and what could not be answered, waits until both
are acknowledged, and only then commits. So at most one turn's messages are in flight, and a slow other side slows
reading instead of filling memory. A turn that is cut off anywhere is done again, with the same ids.

An answer is JSON: `id`, `version`, `outputs` and the fields that are kept of the message. A dead letter has the bytes
that came, and in its headers `reason`, `place` and `id`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from flyball.clock import SYSTEM, Clock
from flyball.errors import InvalidInput, Unavailable
from flyball.serving.scoring.scorer import Scorer
from flyball.serving.scoring.topics import Message, Sink, Source
from flyball.tracking.predictions import PredictionLog

__all__ = ["Streaming", "Tally"]

TURN = 500  # messages; a call's fixed cost is little beside so many, and they are answered in milliseconds
_LONGEST_WAIT_S = 30.0
_log = logging.getLogger("flyball.scoring")


@dataclass
class Tally:
    """What was done: messages answered, and those that were no rows."""

    answered: int = 0
    dead: int = 0


@dataclass
class Streaming:
    """A stream of questions and its answers.

    Attributes:
        scorer: asked before each turn, so that a new champion answers from the next one on.
        dead_letters: None: a message that cannot be answered ends the stream.
        keep: fields of a message that its answer repeats.
        log: where each answer is told too.
        until_idle_s: end when nothing came for so long; None: never.
    """

    scorer: Callable[[], Scorer]
    source: Source
    sink: Sink
    dead_letters: Sink | None = None
    keep: Sequence[str] = ()
    log: PredictionLog | None = None
    until_idle_s: float | None = None
    turn: int = TURN
    clock: Clock = SYSTEM
    tally: Tally = field(default_factory=Tally)

    def run(self, stop: threading.Event) -> Tally:
        """Go on until told to stop; the turn that has begun is finished first.

        Raises:
            InvalidInput, StepFailed: a message cannot be answered and there are no dead letters; it was not committed.
            Unavailable: the source cannot be read any more.
        """
        quiet_since = self.clock.monotonic()
        while not stop.is_set():
            messages = self.source.poll(self.turn)
            if not messages:
                if self.until_idle_s is not None and self.clock.monotonic() - quiet_since > self.until_idle_s:
                    break
                continue
            if not self._turn(messages, stop):
                break
            quiet_since = self.clock.monotonic()
        return self.tally

    def _turn(self, messages: Sequence[Message], stop: threading.Event) -> bool:
        """Answer messages and commit them; False when told to stop before they could be sent."""
        began = time.perf_counter()
        scorer = self.scorer()
        records: list[tuple[Message, dict[str, Any]]] = []
        dead: list[Message] = []
        for message in messages:
            record = _record(message.value)
            if record is None:
                dead.append(self._dead(message, InvalidInput("it is no JSON object")))
            else:
                records.append((message, record))
        names = {field.name for field in scorer.fields} | set(scorer.by.keys)
        given = [{name: record[name] for name in record if name in names} for _, record in records]
        answers: list[Message] = []
        logged: list[tuple[str, Mapping[str, Any], Mapping[str, Any]]] = []
        for (message, record), row, found in zip(records, given, scorer.records(given), strict=True):
            if isinstance(found, Exception):
                dead.append(self._dead(message, found))
                continue
            kept = {name: record[name] for name in self.keep if name in record}
            told = {"id": message.id, "version": scorer.version, "outputs": found, **kept}
            answers.append(Message(orjson.dumps(told), message.id, message.key))
            logged.append((message.id, row, found))
        if not self._sent(self.sink, answers, stop):
            return False
        if dead and self.dead_letters is not None and not self._sent(self.dead_letters, dead, stop):
            return False
        if self.log is not None and logged:
            ids, rows, outputs = zip(*logged, strict=True)
            batch = scorer.logged(_columns(rows), _columns(outputs), ids, self.clock.now(), began)
            self.log.append_wait(batch)
        self.source.commit(messages)
        self.tally.answered += len(answers)
        self.tally.dead += len(dead)
        return True

    def _dead(self, message: Message, error: Exception) -> Message:
        """Return the dead letter of a message. Raises why it is one, where nobody takes them."""
        reason = str(error).replace("row 0", "the message")
        if self.dead_letters is None:
            raise type(error)(f"the message {message.place} cannot be answered: {reason}; give a topic of dead letters")
        headers = {"reason": reason, "place": message.place, "id": message.id}
        return Message(message.value, message.id, message.key, headers)

    def _sent(self, sink: Sink, messages: Sequence[Message], stop: threading.Event) -> bool:
        """Send, and try again while the other side is away; False when told to stop meanwhile."""
        wait_s = 0.1
        while messages:
            try:
                sink.send(messages)
                break
            except Unavailable as error:
                _log.warning("%s; trying again in %.1f s", error, wait_s)
                if stop.wait(wait_s):
                    return False
                wait_s = min(wait_s * 2, _LONGEST_WAIT_S)
        return True


def _record(value: bytes) -> dict[str, Any] | None:
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}
