"""Many traces: what it costs to keep them and to find some of them.

    python -m benchmarks.tracking_traces           100,000 traces of 10 spans each: a million spans
    python -m benchmarks.tracking_traces --small   a twentieth of that

Figures are CPU of this process, without HTTP. Pages have 100 traces, the newest first. The word and the attribute that
are searched stand in one trace of a thousand, so a page of them is found within the whole; the last word is nowhere,
for which every span is read.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.report import Measure, report
from flyball.llm.arriving import arrived
from flyball.llm.spans import Span
from flyball.platform import Platform

SPANS = 10
_AT = 1_790_000_000 * 10**9
_TEXT = "The flight is late because of the weather at its origin, and the crew waits for a slot. " * 4
_TOGETHER = 100  # traces of one transaction


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a twentieth of the traces")
    count = 5_000 if parser.parse_args().small else 100_000
    with TemporaryDirectory() as name, closing(Platform.open(Path(name) / "home")) as platform:
        report(_measure(platform, count))


def _measure(platform: Platform, count: int) -> list[Measure]:
    began = time.process_time()
    for start in range(0, count, _TOGETHER):
        new = arrived("0", (span for n in range(start, start + _TOGETHER) for span in _trace(n)), {})
        with platform.ledger.write("user/bench") as world:
            for spans in new:
                world.traces.add_spans(spans)
    took = time.process_time() - began
    before = _peak_mb()
    middle = (_AT + count // 2 * 10**9) // 10**6
    searches = {
        "the newest page": "",
        "by status": "trace.status = 'ERROR'",
        "by time": f"timestamp_ms < {middle}",
        "by name": "trace.name = 'plan'",
        "by tag": "tag.team = 'b'",
        "by a span's name": "span.name = 'look up 7'",
        "by an attribute of a span": "span.attributes.model = 'large'",
        "by a word in any text": "trace.text LIKE '%refund%'",
        "by a word, capitals or not": "trace.text ILIKE '%REFUND%'",
        "by a word that is nowhere": "trace.text LIKE '%xanthippe%'",
    }
    found = [Measure("keep spans", count * SPANS / took, "/CPU s", better="higher")]
    for title, filter in searches.items():
        cost, size = _cost(lambda filter=filter: len(platform.search_traces(["0"], filter)[0]))  # type: ignore[misc]
        found.append(Measure(f"{title}: {size} of {count:,}", cost * 1000, "CPU ms"))
    one = f"tr-{count // 2:032x}"
    found.append(
        Measure("a trace with its spans", _cost(lambda: len(platform.trace_spans([one])[one]))[0] * 1000, "CPU ms")
    )
    found.append(Measure("memory that the searches added", _peak_mb() - before, "MB at the most"))
    return found


def _trace(number: int) -> list[Span]:
    begin = _AT + number * 10**9
    is_rare = number % 1000 == 500
    spans = [
        Span(
            f"{number:032x}",
            f"{1:016x}",
            "plan" if number % 100 == 7 else "answer",
            begin,
            begin + 10**9,
            status="ERROR" if number % 50 == 3 else "OK",
            attributes={
                "mlflow.spanInputs": {"question": f"{_TEXT} {number}"},
                "mlflow.traceTag.team": "b" if is_rare else "a",
            },
        )
    ]
    for place in range(1, SPANS):
        told = {"mlflow.spanType": "TOOL", "mlflow.spanOutputs": f"{_TEXT} {place}", "model": "small"}
        if is_rare and place == 5:
            told |= {"model": "large", "mlflow.spanOutputs": "a refund was paid"}
        name = f"look up {place}"
        spans.append(Span(f"{number:032x}", f"{place + 1:016x}", name, begin, begin + 1, f"{1:016x}", attributes=told))
    return spans


def _cost(act: Callable[[], int]) -> tuple[float, int]:
    """Return the least CPU seconds of three, and the result."""
    best, found = float("inf"), 0
    for _ in range(3):
        began = time.process_time()
        found = act()
        best = min(best, time.process_time() - began)
    return best, found


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
