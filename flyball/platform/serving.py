"""Predictions, their truth, and going back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flyball.errors import NotFound
from flyball.ledger.refs import Ref, ref

if TYPE_CHECKING:
    from flyball.serving.engine import Engine
    from flyball.tracking.traffic import Prediction

from flyball.platform.home import Home

__all__ = ["ServingActs"]


class ServingActs(Home):
    """Predictions, their truth, and going back."""

    @cached_property
    def engine(self) -> Engine:
        """The data plane's own engine in this process, for notebooks without a server."""
        from flyball.serving.engine import Engine

        return Engine(self.home)

    def predict(self, deployment: str, records: Any, key: str | None = None) -> list[dict[str, Any]]:
        """Answer records as the data plane would, and log them; see `serving.engine`. Raises NotFound, InvalidInput."""
        self._may("predict")
        rows = [records] if isinstance(records, Mapping) else list(records)
        self.engine.refresh()
        return self.engine.predict(deployment, rows, key=key).records()

    def label(self, labels: Iterable[tuple[str, Any]] | Mapping[str, Any], source: str = "") -> int:
        """Append the truth of predictions by their ids; return how many. Durable on return. Raises InvalidInput."""
        from flyball.tracking.predictions import Label, LabelLog

        self._may("label")
        pairs = labels.items() if isinstance(labels, Mapping) else labels
        now = self.clock.now()
        rows = [Label(prediction, value, now, source or self.actor) for prediction, value in pairs]
        log = LabelLog(self.home / "traffic", "platform")
        try:
            log.append_wait(rows)
        finally:
            log.close()
        return len(rows)

    def prediction(self, id: str) -> Prediction:
        """Return one logged prediction; looks through the whole log. Raises NotFound."""
        from flyball.tracking.traffic import TrafficReader

        self._may("read")
        found = TrafficReader(self.home / "traffic").find(id)
        if found is None:
            raise NotFound(f"the prediction log holds no prediction {id[:64]!r}")
        return found

    def rollback(self, target: str | Ref) -> str:
        """Send a deployment back: end its rollout, or else give the champion's place back to the champion before.

        `model/late` goes back by the model: stage, alias and the traffic of whoever follows the alias.

        Returns:
            The version that serves from now on, like `late@1`.

        Raises:
            NotFound: no such deployment or model.
            Conflict: there is nothing to go back to.
        """
        from flyball.delivery.promotion import roll_back, roll_back_model

        found = ref(str(target)) if "/" in str(target) else ref(str(target), "deployment")
        with self._writing("rollback") as world:
            return roll_back_model(found.name, world) if found.kind == "model" else roll_back(found.name, world)
