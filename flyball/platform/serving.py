"""Predictions, their truth, and going back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flyball.errors import InvalidInput, NotFound
from flyball.ledger.refs import Ref, ref

if TYPE_CHECKING:
    from datetime import datetime

    import polars as pl

    from flyball.delivery.provenance import Link
    from flyball.serving.engine import Engine
    from flyball.tracking.exploring import Explorer, Slice, Summary
    from flyball.tracking.sealing import Sealer, Sealings
    from flyball.tracking.sinks import Forwarder
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

    def predict(
        self,
        deployment: str,
        records: Any,
        key: str | None = None,
        *,
        explain: bool = False,
        approximate: bool = False,
    ) -> list[dict[str, Any]]:
        """Answer records as the data plane would, and log them; see `serving.engine`. Raises NotFound, InvalidInput."""
        self._may("predict")
        rows = [records] if isinstance(records, Mapping) else list(records)
        self.engine.refresh()
        answer = self.engine.predict(deployment, rows, key=key, explain=explain, is_approximate=approximate)
        return answer.records()

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

    def explanation(self, id: str, approximate: bool = False) -> dict[str, Any]:
        """Return what each input did for a logged prediction: computed again from its log row and its version's bundle.

        Returns:
            As `models.explaining.Explanation.records`.

        Raises:
            NotFound: no such prediction, or its version is gone.
            Conflict: the log row no longer gives the answer that was logged: inputs are masked, or were erased.
            InvalidInput: the model has no exact explanation, and sampling was not asked for.
        """
        from flyball.serving.explaining import explain_logged

        found = self.prediction(id)
        if "+" in found.version:
            raise InvalidInput(
                f"the prediction {found.id} was answered by a routine of {found.version}, whose parts are not logged; "
                'ask for the explanation with the request: "explain": true, "approximate": true'
            )
        return explain_logged(found, self.load(ref(found.version, "model")), approximate)  # type: ignore[attr-defined]

    def provenance(self, id: str) -> list[Link]:
        """Return where a logged prediction comes from, see `delivery.provenance`. Raises NotFound."""
        from flyball.delivery.provenance import provenance

        found = self.prediction(id)
        with self._reading() as world:
            return provenance(found, world)

    def predictions(
        self,
        deployment: str,
        wanted: Slice | None = None,
        limit: int = 100,
        before: tuple[datetime, str] | None = None,
    ) -> pl.DataFrame:
        """Return the newest logged rows of a deployment within a slice, newest first; see `tracking.exploring`.

        Raises:
            NotFound: there is no such deployment.
            InvalidInput: the slice cannot be read, or names a column that no row has.
        """
        from flyball.tracking.exploring import Slice

        self._known_deployment(deployment)
        return self._explorer.rows(deployment, wanted or Slice(), limit, before)

    def predictions_summary(self, deployment: str, wanted: Slice | None = None, by: str | None = None) -> Summary:
        """Return what the logged rows of a slice come to, in all and by a column's values. Raises as `predictions`."""
        from flyball.tracking.exploring import Slice

        self._known_deployment(deployment)
        return self._explorer.summary(deployment, wanted or Slice(), by)

    def seal_traffic(self) -> Sealings:
        """Put what is new in the prediction log into its tables now; see `tracking.sealing`."""
        self._may("start")
        return self.sealer().seal()

    def sealer(self) -> Sealer:
        """Return what seals the prediction log of this home."""
        from flyball import settings
        from flyball.tracking.sealing import Sealer, SealingSettings

        return Sealer(self.home / "traffic", settings.load(SealingSettings, "traffic", self.home))

    def forwarder(self) -> Forwarder | None:
        """Return what sends the prediction log on, None when the settings name no sink. Raises InvalidInput."""
        from flyball import settings
        from flyball.tracking.sealing import SealingSettings
        from flyball.tracking.sinks import Forwarder
        from flyball.tracking.sinks.kafka import KafkaSink

        chosen = settings.load(SealingSettings, "traffic", self.home)
        if not chosen.sink:
            return None
        sink = KafkaSink(chosen.sink, chosen.sink_client)
        return Forwarder(self.home / "traffic", sink, chosen.sink_every_s)

    def predictions_known(self, deployment: str) -> tuple[int, list[str]]:
        """Return how many logged rows a deployment has, and the versions that answered them. Raises NotFound."""
        self._known_deployment(deployment)
        return self._explorer.known(deployment)

    def predictions_schema(self, deployment: str) -> dict[str, pl.DataType]:
        """Return the columns that the logged rows of a deployment have. Raises NotFound."""
        self._known_deployment(deployment)
        return self._explorer.schema(deployment)

    @property
    def _explorer(self) -> Explorer:
        from flyball.tracking.exploring import Explorer

        return self._shared_once("explorer", lambda: Explorer(self.home / "traffic"))  # type: ignore[no-any-return]

    def _known_deployment(self, name: str) -> None:
        self._may("read")
        with self._reading() as world:
            world.resources.get("deployment", name)

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
