"""Runs of MLflow's protocol: made, read, changed, deleted and searched. What they log is in `run_logging`."""

from __future__ import annotations

from typing import Any

from flyball.errors import Conflict, InvalidInput, NotFound
from flyball.ledger.experiments import DEFAULT
from flyball.ledger.runs import NAME_TAG
from flyball.platform import Platform
from flyball.wire.mlflow.experiments import VIEW, VIEWS, experiment_id, inactive, no_experiment, page_size
from flyball.wire.mlflow.fields import choice, messages, text, texts, whole, wrong
from flyball.wire.mlflow.refusals import Refused, invalid
from flyball.wire.mlflow.routing import Asked, Routes
from flyball.wire.mlflow.run_texts import RunTexts
from flyball.wire.mlflow.run_values import STATUS_OF, STATUSES, document, information
from flyball.wire.mlflow.run_writing import RUN, awaited, existing, written
from flyball.wire.mlflow.values import instant, offset_of, token_of

__all__ = ["add_runs"]

_PAGE = 1000  # runs of a page when nobody says how many
_MOST = 50_000


def add_runs(routes: Routes, platform: Platform) -> None:
    """Add the routes of runs."""
    told = RunTexts(platform)

    @routes.add(
        "POST",
        "2.0/mlflow/runs/create",
        text("experiment_id"),
        text("user_id"),
        text("run_name"),
        whole("start_time"),
        messages("tags", text("key"), text("value")),
    )
    async def create(asked: Asked) -> dict[str, Any]:
        experiment = experiment_id(asked.get("experiment_id") or DEFAULT)
        tags = {given.get("key", ""): given.get("value", "") for given in asked.get("tags", ())}
        start = instant(asked.get("start_time", 0), "start_time")
        location = await told.location(experiment)
        ticket: Any = awaited(platform).create_run(
            experiment, asked.get("run_name"), asked.get("user_id", ""), started_at=start, tags=tags
        )
        try:
            run = await ticket
        except NotFound:
            raise no_experiment(experiment) from None
        except Conflict:
            raise inactive("experiment", experiment) from None
        whole_run = document(run, location, {})
        del whole_run["outputs"]
        return {"run": whole_run}

    @routes.add("GET", "2.0/mlflow/runs/get", RUN)
    def get(asked: Asked) -> tuple[int, bytes]:
        with existing(asked["run_id"]):
            text_of_it = told.one(platform.run_whole(asked["run_id"]))
        return 200, b'{"run":' + text_of_it + b"}"

    @routes.add(
        "POST",
        "2.0/mlflow/runs/update",
        RUN,
        choice("status", STATUSES),
        whole("end_time"),
        text("run_name"),
    )
    async def update(asked: Asked) -> dict[str, Any]:
        id, status, name = asked["run_id"], asked.get("status"), asked.get("run_name")
        ended = instant(asked["end_time"], "end_time") if "end_time" in asked else None
        if name:  # the tag renames the run, and comes back where it was deleted
            await written(platform, id, awaited(platform).log(id, tags={NAME_TAG: name}))
        future = awaited(platform).update_run(id, status=STATUS_OF[status] if status else None, ended_at=ended)
        run = await written(platform, id, future)
        return {"run_info": information(run, await told.location(run.experiment or DEFAULT))}

    @routes.add("POST", "2.0/mlflow/runs/delete", text("run_id", required=True))
    def delete(asked: Asked) -> dict[str, Any]:
        with existing(asked["run_id"]):
            platform.delete_run(asked["run_id"])
        return {}

    @routes.add("POST", "2.0/mlflow/runs/restore", text("run_id", required=True))
    def restore(asked: Asked) -> dict[str, Any]:
        with existing(asked["run_id"]):
            try:
                platform.restore_run(asked["run_id"])
            except Conflict as error:  # its experiment is deleted
                raise invalid(str(error)) from None
        return {}

    @routes.add(
        "POST",
        "2.0/mlflow/runs/search",
        texts("experiment_ids"),
        text("filter"),
        choice("run_view_type", VIEWS),
        whole("max_results"),
        texts("order_by"),
        text("page_token"),
    )
    def search(asked: Asked) -> tuple[int, bytes]:
        limit = asked.get("max_results", _PAGE)
        if limit > _MOST:
            raise wrong("max_results", limit)
        limit, offset = page_size(limit), offset_of(asked.get("page_token"))
        experiments = [experiment_id(given) for given in asked.get("experiment_ids", ())]
        view = VIEW[asked.get("run_view_type", "ACTIVE_ONLY")]
        try:
            found, is_more = platform.search_run_marks(
                experiments, asked.get("filter", ""), asked.get("order_by", ()), view, limit, offset
            )
        except InvalidInput as error:
            if str(error).startswith("`order_by` contains duplicate fields"):  # MLflow's code for it, with 500
                raise Refused("INTERNAL_ERROR", str(error), 400) from None
            raise
        parts = []
        if found:
            parts.append(b'"runs":[' + b",".join(told.of(found)) + b"]")
        if is_more:
            parts.append(b'"next_page_token":"' + token_of(offset + limit).encode() + b'"')
        return 200, b"{" + b",".join(parts) + b"}"
