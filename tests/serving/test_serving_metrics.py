"""What Prometheus is told, read again by the grammar of its text format (exposition formats, version 0.0.4)."""

from __future__ import annotations

import re
from collections import defaultdict

from flyball.features.freshness import ViewFreshness
from flyball.serving.metrics import Counters, Gauges, prometheus

SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\n"])*",?)*)\})? (\S+)')
LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')


def read(text: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Return the samples by name and labels, after checking what the format asks for."""
    assert text.endswith("\n")
    kinds: dict[str, str] = {}
    found: defaultdict[str, dict[tuple[tuple[str, str], ...], float]] = defaultdict(dict)
    family = ""
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, family, kind = line.split(" ")
            assert family not in kinds, "a family stands in two places"
            kinds[family] = kind
            assert (kind == "counter") == family.endswith("_total"), family
        elif not line.startswith("# HELP "):
            matched = SAMPLE.fullmatch(line)
            assert matched, line
            name, labels, value = matched[1], tuple(LABEL.findall(matched[2] or "")), float(matched[3])
            suffixes = ("_bucket", "_sum", "_count") if kinds[family] == "histogram" else ("",)
            assert name in {family + suffix for suffix in suffixes}, line
            assert labels not in found[name], line
            found[name][labels] = value
    for family in [name for name, kind in kinds.items() if kind == "histogram"]:
        for labels, count in found[f"{family}_count"].items():
            buckets = [(dict(k)["le"], v) for k, v in found[f"{family}_bucket"].items() if k[:-1] == labels]
            assert [v for _, v in buckets] == sorted(v for _, v in buckets)
            assert buckets[-1] == ("+Inf", count)
    return found


def counted() -> Counters:
    counters = Counters()
    counters.answered("late", "champion", "late@1", 3, 0.004)
    counters.answered("late", "champion", "late@1", 1, 9.0)
    counters.failures["late", "canary", "late@2"] += 1
    counters.errors["", 404] += 2
    counters.refuse("late", "rate")
    counters.batches["late@1"].observe(4)
    counters.logging["disk"].observe(0.01)
    counters.log_dropped["late"] += 7
    counters.labels = 5
    return counters


VIEWS = {"airports": ViewFreshness(rows=4, missing=1, age_counts=[1, 2, *[0] * 12], age_sum_s=8.5)}


def test_text_holds_to_the_format_and_says_what_was_counted() -> None:
    found = read(prometheus(counted(), VIEWS, {"0": Gauges.of_process(generation=4, in_flight={"late": 2})}))
    late = (("deployment", "late"), ("variant", "champion"), ("version", "late@1"))
    assert found["flyball_requests_total"] == {late: 2}
    assert found["flyball_request_seconds_count"] == {late: 2}
    assert found["flyball_requests_refused_total"] == {(("deployment", "late"), ("reason", "rate")): 1}
    assert found["flyball_log_dropped_rows_total"] == {(("deployment", "late"),): 7}
    assert found["flyball_requests_in_flight"] == {(("deployment", "late"),): 2}
    assert found["flyball_snapshot_generation"] == {(): 4}
    assert found["process_resident_memory_bytes"][("worker", "0"),] > 1 << 20
    assert found["process_cpu_seconds_total"][("worker", "0"),] > 0


def test_names_with_quotes_and_line_feeds_are_escaped() -> None:
    counters = Counters()
    counters.errors['a"b\\c\nd', 400] += 1
    found = read(prometheus(counters, {}, {}))
    assert found["flyball_request_errors_total"] == {(("deployment", r"a\"b\\c\nd"), ("status", "400")): 1}


def test_sum_of_two_processes_is_twice_one() -> None:
    both = Counters()
    for _ in range(2):
        both.add(counted().document(VIEWS))
    one = read(prometheus(counted(), VIEWS, {}))
    for name, samples in read(prometheus(both, {}, {})).items():
        if name not in ("flyball_workers", "flyball_snapshot_generation"):
            assert samples == {labels: 2 * value for labels, value in one[name].items()}, name


def test_bounds_of_several_workers_are_those_of_the_slowest() -> None:
    found = read(prometheus(Counters(), {}, {"1": Gauges(generation=5), "2": Gauges(generation=3, connections=7)}))
    assert found["flyball_snapshot_generation"] == {(): 3}
    assert found["flyball_workers"] == {(): 2}
    assert found["flyball_connections"] == {(): 7}
