"""Encoded runs, remembered while they do not change, and where experiments keep artifacts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from flyball.errors import NotFound
from flyball.ledger.experiments import DEFAULT, InputDataset
from flyball.ledger.runs import Run
from flyball.platform import Platform
from flyball.wire.mlflow.app import encode
from flyball.wire.mlflow.experiments import no_experiment
from flyball.wire.mlflow.run_values import Fragments, document

__all__ = ["RunTexts"]

_LOCATIONS = 10_000  # experiments whose location is remembered; it never changes


class RunTexts:
    """The runs of one home as JSON."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._fragments = Fragments()
        self._locations: dict[str, str] = {}

    async def location(self, experiment: str) -> str:
        """Return where an experiment keeps artifacts. Raises Refused when there is none."""
        known = self._locations.get(experiment)
        return known if known is not None else await asyncio.to_thread(self.location_of, experiment)

    def location_of(self, experiment: str) -> str:
        """As `location`, from a thread."""
        known = self._locations.get(experiment)
        if known is None:
            try:
                known = self._platform.experiment(experiment).artifact_location
            except NotFound:
                raise no_experiment(experiment) from None
            if len(self._locations) >= _LOCATIONS:
                self._locations.clear()
            self._locations[experiment] = known
        return known

    def of(self, marks: Mapping[str, int]) -> list[bytes]:
        """Return runs as JSON, in order; the numbers of their newest changes say which texts still hold."""

        def make(missing: list[str]) -> dict[str, tuple[int, bytes]]:
            found = self._platform.runs_whole(missing)
            datasets = self._datasets([run for _, run in found.values()])
            return {id: (mark, self._text(run, datasets)) for id, (mark, run) in found.items()}

        return self._fragments.of(marks, make)

    def one(self, run: Run) -> bytes:
        """Return a run that was read just now as JSON."""
        return self._text(run, self._datasets([run]))

    def _text(self, run: Run, datasets: dict[tuple[str, str, str], InputDataset]) -> bytes:
        experiment = run.experiment or DEFAULT
        used = {
            (i["name"], i["digest"]): datasets.get((experiment, i["name"], i["digest"]))
            for i in run.inputs
            if "name" in i
        }
        known = {key: found for key, found in used.items() if found is not None}
        return encode(document(run, self.location_of(experiment), known))

    def _datasets(self, runs: Sequence[Run]) -> dict[tuple[str, str, str], InputDataset]:
        wanted: dict[str, set[tuple[str, str]]] = {}
        for run in runs:
            for given in run.inputs:
                if "name" in given:
                    wanted.setdefault(run.experiment or DEFAULT, set()).add((given["name"], given["digest"]))
        return {
            (experiment, *key): found
            for experiment, named in wanted.items()
            for key, found in self._platform.input_dataset_details(experiment, named).items()
        }
