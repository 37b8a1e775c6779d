"""REST in front of a model that is slow, full or failing: a stand-in model that is held up by the test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from planes import until
from strained import Strained


@pytest.fixture
def strained(tmp_path: Path) -> Iterator[Strained]:
    made = Strained(tmp_path)
    yield made
    made.close()


def test_liveness_answers_while_a_model_computes_and_a_full_queue_says_so(strained: Strained) -> None:
    replies: list[Any] = []
    askers = [threading.Thread(target=lambda: replies.append(strained.ask())) for _ in range(3)]
    for asker in askers:
        asker.start()
    assert strained.model.entered.wait(20)
    assert strained.plane.call("GET", "/v2/health/live").status == 200
    assert strained.plane.call("GET", "/v2/models/late/ready").status == 200
    until(
        lambda: (
            b'flyball_queue_rows{deployment="late",version="late@1"} 3' in strained.plane.call("GET", "/metrics").body
        )
    )
    refused = strained.ask()
    assert refused.status == 503
    assert refused.headers["retry-after"] == "1"
    assert refused.json["error"].startswith("the queue is full: 3 rows wait for late@1")
    strained.model.gate.set()
    for asker in askers:
        asker.join()
    assert [reply.status for reply in replies] == [200, 200, 200]
    assert strained.ask().status == 200


def test_it_is_not_ready_before_its_models_are_loaded(strained: Strained) -> None:
    assert strained.is_ready_before is False
    assert strained.plane.call("GET", "/v2/health/ready").status == 200


def test_a_model_that_fails_is_a_500_that_is_counted_and_nobody_elses(strained: Strained) -> None:
    strained.model.gate.set()

    def fail(_: Any) -> Any:
        raise RuntimeError("out of luck")

    by = strained.service.engine.lineup.served["late"].variants[0]
    assert by.model is strained.model  # type: ignore[comparison-overlap]
    strained.model.predict = fail  # type: ignore[method-assign]
    reply = strained.ask()
    assert reply.status == 500
    assert reply.json["error"] == "late@1 failed on this request (RuntimeError: out of luck)"
    strained.service.tell()
    told = strained.service.engine.places.status.read_text()
    assert '"champion": 1' in told
