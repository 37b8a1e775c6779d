"""Logged models: what runs left as models, before anybody registers one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flyball.errors import InvalidInput
from flyball.ledger.logged_models import LoggedModel, ModelCondition, ModelOrder, ModelStatus
from flyball.platform.home import Home

if TYPE_CHECKING:
    pass

__all__ = ["LoggedModelActs"]

_FIELDS = {
    "name": "name",
    "model_id": "id",
    "model_type": "type",
    "status": "status",
    "status_message": "status_message",
    "source_run_id": "run",
    "experiment_id": "experiment",
    "artifact_location": "location",
    "creation_timestamp": "created_ms",
    "last_updated_timestamp": "updated_ms",
}


class LoggedModelActs(Home):
    """Logged models."""

    def create_logged_model(
        self,
        experiment: str,
        name: str | None = None,
        *,
        type: str | None = None,
        run: str | None = None,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> LoggedModel:
        """Make a logged model, which waits for its files; without a name it gets one.

        Raises:
            InvalidInput: the name is empty or has one of `/ : . % " '`.
            NotFound, Conflict: there is no such experiment; it is deleted.
        """
        from flyball.tracking.names import random_name

        if name is not None:
            _check_name(name)
        _number(experiment)
        chosen = name if name is not None else random_name()
        options: dict[str, Any] = {"type": type, "run": run, "params": params, "tags": tags}
        return self.recorder.change(lambda world: world.logged_models.create(experiment, chosen, **options)).result()

    def logged_model(self, id: str, *, deleted: bool = False) -> LoggedModel:
        """Return a logged model; with `deleted` also one that is marked so. Raises NotFound."""
        with self._reading() as world:
            return world.logged_models.get(id, deleted=deleted)

    def update_logged_model(
        self,
        id: str,
        *,
        status: ModelStatus | None = None,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        without_tag: str | None = None,
    ) -> LoggedModel:
        """Change a logged model; raises as `LoggedModels.update`."""
        options: dict[str, Any] = {"status": status, "params": params, "tags": tags, "without_tag": without_tag}
        return self.recorder.change(lambda world: world.logged_models.update(id, **options)).result()

    def delete_logged_model(self, id: str) -> None:
        """Mark a logged model as deleted; the sweep removes it in its time. Raises NotFound."""
        self._may("delete")
        self.recorder.change(lambda world: world.logged_models.discard(id)).result()

    def search_logged_models(
        self,
        experiments: Iterable[str],
        filter: str = "",
        datasets: Sequence[tuple[str, str | None]] = (),
        order_by: Sequence[Mapping[str, Any]] = (),
        limit: int = 100,
        offset: int = 0,
    ) -> tuple[list[LoggedModel], bool]:
        """Return logged models, and whether there are more.

        Args:
            filter: comparisons joined by AND, see `tracking.filters`.
            datasets: see `LoggedModels.search`.
            order_by: objects {field_name, ascending, dataset_name, dataset_digest}.

        Raises:
            InvalidInput: the filter, the order or an experiment's id is wrong.
        """
        from flyball.tracking.filters import holds, parse_filter, parse_order_objects
        from flyball.tracking.grammars import LOGGED_MODELS

        def test(comparison: Any) -> Callable[[Any], bool]:
            return lambda value: holds(value, comparison)

        conditions = []
        for one in parse_filter(filter, LOGGED_MODELS):
            key = _FIELDS[one.key] if one.kind == "attribute" else one.key
            conditions.append(ModelCondition(one.kind, key, one.operator, one.value, test(one)))
        order = []
        for by in parse_order_objects(order_by, LOGGED_MODELS):
            key = _FIELDS[by.key] if by.kind == "attribute" else by.key
            order.append(ModelOrder(by.kind, key, by.ascending, by.dataset, by.digest))
        ids = [_number(id) for id in experiments]
        with self._reading() as world:
            return world.logged_models.search(ids, conditions, datasets, order, limit, offset)


def _check_name(name: str) -> None:
    bad = ("/", ":", ".", "%", '"', "'")
    if not name or any(character in name for character in bad):
        raise InvalidInput(
            f"Invalid model name ({name!r}) provided. Model name must be a non-empty string "
            f"and cannot contain the following characters: {bad}"
        )


def _number(id: str) -> str:
    if not (id.isascii() and id.isdecimal() and len(id) <= 18):
        raise InvalidInput(f"Invalid experiment ID {id[:80]!r}. Experiment ID must be a valid integer.")
    return id
