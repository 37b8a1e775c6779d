"""Experiments: how often a verdict is wrong, and what looks and draws cost (`make bench-experiments`).

    python -m benchmarks.experiments            all
    python -m benchmarks.experiments --nulls    only the simulated experiments without a difference
    python -m benchmarks.experiments --small    a tenth of the experiments and rows

Nulls: 10,000 experiments without a difference, each looked at 100 times, 50 keys an arm a look, and planned for their
end. A wrong verdict is one look at which the interval leaves zero out; beside it a t-test at 5 % that is made at each
look. Costs are CPU seconds of this process.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.report import Measure, report
from flyball.rollouts import Arm, Observed, RolloutPlan
from flyball.rollouts.bandit import contextual
from flyball.serving.contextual import Chooser
from flyball.serving.measuring import Measures
from flyball.serving.snapshot import contextual_of
from flyball.serving.tallies import Tallies
from flyball.stats.contexts import ContextSums
from flyball.stats.outcomes import Floats, Outcomes, difference, merged, outcomes_of
from flyball.stats.sequential import compare
from flyball.tracking.predictions import Label, LabelLog, PredictionBatch, PredictionLog, new_ids

ALPHA, LOOKS, KEYS = 0.05, 100, 50
Draw = Callable[[np.random.Generator, int], Outcomes]


def values(draw: Callable[[np.random.Generator, tuple[int, int]], Floats]) -> Draw:
    return lambda generator, experiments: outcomes_of(draw(generator, (experiments, KEYS)))


def binary(chance: float) -> Draw:
    def draw(generator: np.random.Generator, experiments: int) -> Outcomes:
        count = generator.binomial(KEYS, chance, experiments).astype(np.float64)
        nothing = np.zeros(experiments)
        units = np.full(experiments, float(KEYS))
        return Outcomes(units, count / KEYS, count - count**2 / KEYS, nothing, nothing, nothing)

    return draw


DRAWS: dict[str, Draw] = {
    "normal": values(lambda generator, shape: generator.standard_normal(shape)),
    **{f"binary, p = {chance}": binary(chance) for chance in (0.5, 0.1, 0.05, 0.02, 0.01, 0.005)},
    "lognormal, σ = 1": values(lambda generator, shape: np.exp(generator.standard_normal(shape))),
    "lognormal, σ = 1.5": values(lambda generator, shape: np.exp(1.5 * generator.standard_normal(shape))),
}


def wrong_verdicts(draw: Draw, experiments: int) -> tuple[float, float]:
    """Return the share of experiments in which zero was ever excluded: by the sequence, by a t-test at each look."""
    generator = np.random.default_rng(11)
    treated, control = Outcomes(), Outcomes()
    excluded = tested = np.zeros(experiments, dtype=bool)
    for _ in range(LOOKS):
        treated = merged([treated, draw(generator, experiments)])
        control = merged([control, draw(generator, experiments)])
        excluded = excluded | (compare(treated, control, 2 * KEYS * LOOKS, ALPHA).p_value < ALPHA)
        found = difference(treated, control)
        tested = tested | (np.abs(found.value) > 1.96 * np.sqrt(found.variance))
    return float(excluded.mean()), float(tested.mean())


def nulls(experiments: int) -> list[Measure]:
    found = []
    for name, draw in DRAWS.items():
        wrong, peeking = wrong_verdicts(draw, experiments)
        work = f"wrong verdicts, {name} ({experiments:,} experiments, {LOOKS} looks)"
        found.append(Measure(work, 100 * wrong, "%", "t-test at each look", 100 * peeking, target=100 * ALPHA))
    return found


def folding(rows: int) -> list[Measure]:
    """Measure a tally of `rows` labelled answers of as many keys as answers have rows in ten."""
    random = np.random.default_rng(3)
    start = datetime(2026, 5, 1, tzinfo=UTC)
    with TemporaryDirectory() as made:
        folder = Path(made)
        log, labels = PredictionLog(folder, "bench", "os"), LabelLog(folder, "bench", "os")
        for first in range(0, rows, 1000):
            ids = new_ids(1000)
            keys = [f"customer {n}" for n in random.integers(0, rows // 10, 1000)]
            for variant, part in (("champion", slice(0, 500)), ("canary", slice(500, 1000))):
                log.append(
                    PredictionBatch(
                        "offers", 1, variant, "offers@1", start + timedelta(seconds=first), ids[part],
                        {"x": [1.0] * 500}, {"prediction": [1] * 500}, keys[part],
                    )
                )  # fmt: skip
            labels.append([Label(id, 1.0, start) for id in ids])
        log.close()
        labels.close()
        began = time.process_time()
        Tallies(folder).look("offers", Measures(0, ("reward",)))
        taken = time.process_time() - began
        began = time.process_time()
        for _ in range(20):
            Tallies(folder).look("offers", Measures(0, ("reward",)))
        idle = (time.process_time() - began) / 20
        size = sum(path.stat().st_size for path in (folder / "experiments").iterdir())
    return [
        Measure("an answer and its label folded in", 1e6 * taken / rows, "µs"),
        Measure("a look at which nothing is new", 1e3 * idle, "ms"),
        Measure("kept on disk an answer", size / rows, "bytes"),
    ]


def drawing() -> list[Measure]:
    """Measure one request's draw, by how many inputs and arms there are."""
    found, quiet = [], Arm()
    for inputs, others in ((1, 0), (4, 0), (8, 0), (4, 1)):
        arms = ("canary", *(f"arm{n + 2}" for n in range(others)))
        names = tuple(f"x{n}" for n in range(inputs))
        random = np.random.default_rng(1)
        moves = [(random.standard_normal(inputs).tolist(), 0.5, None, float(random.normal())) for _ in range(200)]
        sums = {name: ContextSums.empty(inputs + 1).moved(moves) for name in ("champion", *arms)}
        plan = RolloutPlan(policy="linear_thompson", context=names, arms=arms)
        described = contextual_of(contextual(plan, Observed(quiet, quiet, quiet, contexts=sums)))
        assert described is not None
        drawn = Chooser(described)
        contexts = [context for context, *_ in moves]
        began = time.process_time()
        for n in range(20_000):
            drawn.choose(contexts[n % 200], "01a2005ce709c5601488ce7700000177")
        taken = (time.process_time() - began) / 20_000
        found.append(Measure(f"a request's draw, {inputs} inputs, {len(arms) + 1} arms", 1e6 * taken, "µs", target=5.0))
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--nulls", action="store_true", help="only the simulated experiments without a difference")
    options.add_argument("--small", action="store_true", help="a tenth of the experiments and rows")
    given = options.parse_args()
    found = nulls(1_000 if given.small else 10_000)
    if not given.nulls:
        found += drawing() + folding(10_000 if given.small else 100_000)
    report(found)


if __name__ == "__main__":
    main()
