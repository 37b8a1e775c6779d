"""The registry: what a search by tag over a thousand models and the look at one cost, in CPU time of this process.

python -m benchmarks.registry
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.report import Measure, report
from flyball.platform import Platform
from flyball.wire.mlflow.registry_values import model_document, version_document

MODELS = 1000
_ROUNDS = 30


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        platform = Platform.open(Path(folder) / "home")
        _fill(platform)
        one = "model 0500"
        rows = []
        for work, limit_ms, act in (
            ("search 1,000 models by a tag that 20 have", 15, lambda: _models(platform, "tags.team = 'team 7'")),
            ("search 1,000 models by a tag, LIKE", 15, lambda: _models(platform, "tags.team LIKE 'team 7%'")),
            ("search 1,000 models, the first 100", 15, lambda: _models(platform, "")),
            ("look at one model", 2, lambda: model_document(platform.model(one))),
            ("look at one version", 2, lambda: version_document(platform.model_version(one, 2))),
            ("look at one version by its alias", 2, lambda: platform.model_version_by_alias(one, "champion")),
        ):
            rows.append(Measure(f"{work}, CPU", _cpu_ms(act), "ms", target=limit_ms))
        platform.close()
    report(rows)


def _models(platform: Platform, filter: str) -> None:
    found, _ = platform.search_models(filter)
    for model in found:
        model_document(model)


def _fill(platform: Platform) -> None:
    with platform.ledger.write("user/bench") as world:
        for number in range(MODELS):
            name = f"model%20{number:04}"
            world.resources.apply("model", name, {"promotion": "by hand"})
            world.notes.change("model", name, tags={"team": f"team {number % 50}", "n": str(number)}, is_new=True)
            for version in (1, 2):
                world.versions.publish("model", name, f"{version:064}", metadata={"source": "s3://bucket/model"})
                world.notes.change("model", name, version, source="s3://bucket/model", tags={"v": "x"}, is_new=True)
            world.versions.set_alias("model", name, "champion", 2)


def _cpu_ms(act: Callable[[], object]) -> float:
    act()
    times = []
    for _ in range(_ROUNDS):
        start = time.process_time()
        act()
        times.append(1000 * (time.process_time() - start))
    return statistics.median(times)


if __name__ == "__main__":
    main()
