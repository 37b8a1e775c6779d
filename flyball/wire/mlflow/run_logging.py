"""What runs log in MLflow's protocol: metrics, parameters and tags, one by one or in batches.

Called thousands of times a second, so the handlers run on the loop and wait for the recorder, which commits what many
of them bring together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from flyball.errors import Conflict, NotFound
from flyball.platform import Platform
from flyball.wire.mlflow.fields import Field, messages, text
from flyball.wire.mlflow.keys import PARAM_VALUE, TAG_VALUE, check_key, check_run_id, cut, repeated
from flyball.wire.mlflow.logged_metrics import METRIC, Logged, metrics, read_one
from flyball.wire.mlflow.refusals import invalid, not_found, required
from flyball.wire.mlflow.routing import Asked, Routes
from flyball.wire.mlflow.run_writing import RUN, awaited, existing, refusal, written

__all__ = ["add_run_logging"]

_METRICS = 1000
_PARAMS_OR_TAGS = 100
_ALL = 1000
_BYTES = 1_000_000
_PAIR = (text("key"), text("value"))


def add_run_logging(routes: Routes, platform: Platform) -> None:
    """Add the routes by which runs log."""

    @routes.add(
        "POST",
        "2.0/mlflow/runs/log-metric",
        RUN,
        *(_required(field) if field.name in ("key", "value", "timestamp") else field for field in METRIC),
    )
    async def log_metric(asked: Asked) -> dict[str, Any]:
        run = asked["run_id"]
        point, of_model = read_one(asked.fields, "")
        if of_model is None:
            await written(platform, run, awaited(platform).log(run, points=(point,)))
        else:
            await written(platform, run, platform.log_measured(run, [of_model], points=(point,)))
        return {}

    @routes.add("POST", "2.0/mlflow/runs/log-parameter", RUN, text("key", required=True), text("value"))
    async def log_parameter(asked: Asked) -> dict[str, Any]:
        run, key = asked["run_id"], asked["key"]
        check_key(key, "key", "Param key")
        params = {key: cut(asked.get("value", ""), PARAM_VALUE, "Param value")}
        await written(platform, run, awaited(platform).log(run, params=params, truncate=None), params)
        return {}

    @routes.add("POST", "2.0/mlflow/runs/set-tag", RUN, text("key", required=True), text("value"))
    async def set_tag(asked: Asked) -> dict[str, Any]:
        run, key = asked["run_id"], asked["key"]
        check_key(key, "key", "key")
        tags = {key: cut(asked.get("value", ""), TAG_VALUE, "value")}
        await written(platform, run, awaited(platform).log(run, tags=tags, truncate=None))
        return {}

    @routes.add("POST", "2.0/mlflow/runs/delete-tag", text("run_id", required=True), text("key", required=True))
    def delete_tag(asked: Asked) -> dict[str, Any]:
        run, key = asked["run_id"], asked["key"]
        try:
            platform.untag_run(run, key)
        except Conflict as error:
            raise refusal(platform, run, error) from None
        except NotFound:
            with existing(run):
                platform.run_whole(run)
            raise not_found(f"No tag with name: {key} in run with id {run}") from None
        return {}

    @routes.add(
        "POST",
        "2.0/mlflow/runs/log-batch",
        text("run_id", required=True),
        metrics("metrics"),
        messages("params", *_PAIR),
        messages("tags", *_PAIR),
    )
    async def log_batch(asked: Asked) -> dict[str, Any]:
        if asked.size_bytes > _BYTES:
            raise invalid(
                f"Batched logging API requests must be at most {_BYTES} bytes, got a request of size "
                f"{asked.size_bytes}."
            )
        run, logged = asked["run_id"], asked.get("metrics", Logged(()))
        given, tagged = asked.get("params", ()), asked.get("tags", ())
        _check_present(given, "params")
        _check_present(tagged, "tags")
        check_run_id(run)
        for place, one in enumerate(given):
            check_key(one["key"], f"params[{place}].key", "Param key")
        params = {one["key"]: cut(one.get("value", ""), PARAM_VALUE, "Param value") for one in given}
        tags = {}
        for place, one in enumerate(tagged):
            check_key(one["key"], f"tags[{place}].key", f"tags[{place}].key")
            tags[one["key"]] = cut(one.get("value", ""), TAG_VALUE, f"tags[{place}].value")
        _check_counts(len(logged.points), len(given), len(tagged))
        if len(params) < len(given):
            again = repeated([one["key"] for one in given])
            raise invalid(
                f"Duplicate parameter keys have been submitted: {again}. Please ensure the request contains only one "
                "param value per param key."
            )
        if logged.of_models:
            future = platform.log_measured(run, logged.of_models, points=logged.points, params=params, tags=tags)
        else:
            future = awaited(platform).log(run, points=logged.points, params=params, tags=tags, truncate=None)
        await written(platform, run, future, params, is_batch=True)
        return {}


def _required(field: Field) -> Field:
    return replace(field, is_required=True)


def _check_present(given: Sequence[Mapping[str, str]], name: str) -> None:
    for place, one in enumerate(given):
        if not one.get("key"):
            raise required(f"{name}[{place}].key")


def _check_counts(points: int, params: int, tags: int) -> None:
    several = "metrics, params, and tags"
    for noun, most, count in (
        ("metrics", _METRICS, points),
        ("params", _PARAMS_OR_TAGS, params),
        ("tags", _PARAMS_OR_TAGS, tags),
        (several, _ALL, points + params + tags),
    ):
        if count > most:
            raise invalid(
                f"A batch logging request can contain at most {most} {noun}. Got {count} {noun}. Please split up "
                f"{noun} across multiple requests and try again."
            )
