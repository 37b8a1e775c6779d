"""What is done with data, over HTTP: search, versions' rows, differences and profiles, quarantine, products.

    GET  /api/search · /api/products[/NAME]
    GET  /api/data/NAME/rows · /diff · /profile · /compare · /drift · /uses · /probe · POST /api/data/NAME
    GET  /api/quarantine[/NAME[/NUMBER[/rows]]] · POST /api/quarantine/NAME/NUMBER/fix · /release · /drop

A version is a number, an alias or `latest`. Versions themselves are listed by `/api/versions/dataset/NAME`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Body, FastAPI, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from flyball.clock import format_instant, parse_instant
from flyball.data.quarantine import Held, State
from flyball.errors import InvalidInput
from flyball.platform import Platform
from flyball.wire.native.values import encode, listing, version_value

__all__ = ["add_data", "held_value"]

Limit = Annotated[int, Query(ge=1, le=1000)]
Rows = Annotated[int, Query(ge=0, le=10_000)]
Version = Annotated[str, Query(description="a number, an alias or latest")]
Key = Annotated[list[str] | None, Query(description="columns that name a row; empty: none; default: the dataset's")]
Purpose = Annotated[str | None, Query(description="what the rows are read for")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Publication(_Body):
    """Rows as records, or SQL over other datasets; neither reads the dataset's own source."""

    records: list[dict[str, Any]] | None = Field(None, min_length=1)
    sql: str | None = None
    mode: Literal["overwrite", "append", "upsert"] | None = None
    key: list[str] = []
    purpose: str | None = None
    note: str = ""


class _Fix(_Body):
    """New values by column, in SQL, or records that take the batch's place."""

    set: dict[str, str] | None = Field(None, min_length=1)
    records: list[dict[str, Any]] | None = Field(None, min_length=1)
    reason: str = ""
    mode: Literal["overwrite", "append"] | None = None


class _Reason(_Body):
    reason: str


class _Release(_Reason):
    mode: Literal["overwrite", "append"] | None = None


def held_value(held: Held) -> dict[str, Any]:
    """Return a batch that was kept aside, with its report."""
    return {
        "ref": str(held.ref),
        "dataset": held.version.name,
        "number": held.version.number,
        "state": held.state,
        "rows": held.rows,
        "is_part": held.is_part,
        "created_at": format_instant(held.version.created_at),
        "contract": dict(held.report),
        "actor": held.actor,
        "at": format_instant(held.at) if held.at else None,
        "reason": held.reason,
        "version": held.outcome,
    }


def add_data(app: FastAPI, platform: Platform) -> None:
    """Add the routes to the application."""
    _add_catalogue(app, platform)
    _add_versions(app, platform)
    _add_quarantine(app, platform)


def _add_catalogue(app: FastAPI, platform: Platform) -> None:
    @app.get("/api/search")
    def search(q: str = "", limit: Limit = 20, after: str | None = None) -> Response:
        """Find resources, versions and runs by words and filters."""
        return _json(platform.search(q, limit, after).to_dict())

    @app.get("/api/products")
    def products() -> Response:
        """List the data products, each with its stage, ports, service levels and dependents."""
        names = [product.name for product in platform.resources("data-product")]
        return _json(listing({"name": name, **platform.products.to_dict(name)} for name in names))

    @app.get("/api/products/{name}")
    def product(name: str) -> Response:
        """Return one data product."""
        return _json({"name": name, **platform.products.to_dict(name)})


def _add_versions(app: FastAPI, platform: Platform) -> None:
    @app.post("/api/data/{name}", status_code=201)
    def publish(name: str, given: Annotated[_Publication, Body()] = _Publication()) -> Response:
        """Publish the next version."""
        from flyball.data.queries import is_query

        if given.records is not None and given.sql is not None:
            raise InvalidInput("give records or sql, not both; neither reads the dataset's own source")
        if given.sql is not None and not is_query(given.sql):
            # A path would be read on the server, where whoever asks may have nothing to look for.
            raise InvalidInput(f"sql is not a SELECT: {given.sql[:80]!r}")
        source: Any = given.records if given.records is not None else given.sql
        options: dict[str, Any] = {"mode": given.mode, "key": given.key, "note": given.note}
        found = platform.publish(name, source, purpose=given.purpose, **options)
        report = found.report.to_dict() if found.report is not None else None
        aside = version_value(found.quarantined) if found.quarantined is not None else None
        version = version_value(found.version)
        return _json(
            {"version": version, "changes": dict(found.changes), "contract": report, "quarantined": aside}, 201
        )

    @app.get("/api/data/{name}/rows")
    def rows(
        name: str,
        version: Version = "latest",
        columns: Annotated[list[str] | None, Query()] = None,
        at: str | None = None,
        purpose: Purpose = None,
        limit: Rows = 100,
        offset: Annotated[int, Query(ge=0)] = 0,
    ) -> Response:
        """Return rows of a version, masked as the policies say; `next` is the offset to go on with."""
        frame = platform.frame(_ref(name, version), purpose=purpose, at=_instant(at), columns=columns)
        found = frame.slice(offset, limit + 1).collect()
        more = offset + limit if found.height > limit else None
        return _json(listing(found.head(limit).to_dicts(), more))

    @app.get("/api/data/{name}/diff")
    def diff(
        name: str,
        before: Version,
        after: Version = "latest",
        key: Key = None,
        sample: Annotated[int, Query(ge=0, le=100)] = 10,
        purpose: Purpose = None,
    ) -> Response:
        """Return how two versions differ: columns, rows by key, distributions."""
        keyed = None if key is None else [column for column in key if column]
        return _json(platform.diff(name, before, after, key=keyed, sample=sample, purpose=purpose).to_dict())

    @app.get("/api/data/{name}/profile")
    def profile(name: str, version: Version = "latest", purpose: Purpose = None) -> Response:
        """Return what a version's rows look like."""
        return _json(platform.profile(_ref(name, version), purpose=purpose).to_dict())

    @app.get("/api/data/{name}/compare")
    def compare(name: str, before: Version, after: Version = "latest", purpose: Purpose = None) -> Response:
        """Return two profiles side by side, column by column."""
        found = platform.compare_profiles(_ref(name, before), _ref(name, after), purpose)
        return _json(listing(column.to_dict() for column in found))

    @app.get("/api/data/{name}/drift")
    def drift(
        name: str,
        before: Version,
        after: Version = "latest",
        columns: Annotated[list[str] | None, Query()] = None,
        method: Literal["exact", "profile"] = "profile",
        purpose: Purpose = None,
    ) -> Response:
        """Return how far each column is from an earlier version's."""
        found = platform.drift(_ref(name, before), _ref(name, after), columns, method=method, purpose=purpose)
        return _json(listing(column.to_dict() for column in found))

    @app.get("/api/data/{name}/uses")
    def uses(name: str, version: Annotated[str | None, Query()] = None) -> Response:
        """Return which runs, models and people read it, the last first."""
        target = _ref(name, version) if version is not None else f"dataset/{name}"
        return _json(listing(use.to_dict() for use in platform.uses(target)))

    @app.get("/api/data/{name}/probe")
    def probe(name: str) -> Response:
        """Return whether the dataset's own source can be read, is fresh and has the expected columns."""
        found = platform.probe(name)
        seen = {"origin": found.origin, "reachable": found.reachable, "newest": found.newest, "good": found.is_good}
        return _json({**seen, "columns": dict(found.columns), "problems": list(found.problems)})


def _add_quarantine(app: FastAPI, platform: Platform) -> None:
    @app.get("/api/quarantine")
    def batches(state: State | None = None, limit: Limit = 100) -> Response:
        """List the batches that were kept aside, newest first."""
        return _json(listing(map(held_value, platform.held(None, state, limit))))

    @app.get("/api/quarantine/{name}")
    def batches_of(name: str, state: State | None = None, limit: Limit = 100) -> Response:
        """List the batches of one dataset."""
        return _json(listing(map(held_value, platform.held(name, state, limit))))

    @app.get("/api/quarantine/{name}/{number}")
    def batch(name: str, number: int) -> Response:
        """Return one batch with its report."""
        return _json(held_value(platform.held_batch(name, number)))

    @app.get("/api/quarantine/{name}/{number}/rows")
    def batch_rows(
        name: str, number: int, failing: bool = True, limit: Rows = 100, offset: Annotated[int, Query(ge=0)] = 0
    ) -> Response:
        """Return rows of a batch, each with the rules that it breaks."""
        found = platform.inspect(name, number, failing=failing).slice(offset, limit + 1).collect()
        more = offset + limit if found.height > limit else None
        return _json(listing(found.head(limit).to_dicts(), more))

    @app.post("/api/quarantine/{name}/{number}/fix")
    def fix(name: str, number: int, given: _Fix) -> Response:
        """Publish a batch after a change, if it keeps its contract then."""
        from flyball.data.sources import open_source

        if (given.set is None) == (given.records is None):
            raise InvalidInput("say what to change: set, or records, not both")
        change = given.set if given.set is not None else open_source(given.records)
        return _json(version_value(platform.fix(name, number, change, reason=given.reason, mode=given.mode)))

    @app.post("/api/quarantine/{name}/{number}/release")
    def release(name: str, number: int, given: _Release) -> Response:
        """Publish a batch as it is, although it breaks its contract."""
        return _json(version_value(platform.release(name, number, given.reason, mode=given.mode)))

    @app.post("/api/quarantine/{name}/{number}/drop")
    def drop(name: str, number: int, given: _Reason) -> Response:
        """Delete the rows of a batch; its report stays."""
        return _json(held_value(platform.drop(name, number, given.reason)))


def _json(value: Any, status: int = 200) -> Response:
    return Response(encode(value), status, media_type="application/json")


def _ref(name: str, version: str) -> str:
    return f"dataset/{name}@{version}"


def _instant(text: str | None) -> datetime | None:
    return parse_instant(text) if text is not None else None
