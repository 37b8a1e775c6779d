"""Experiments, runs as they are told of, and points as a journal of requests with sealed chunks.

Runs of the kinds that experiments show go into experiment 0. The points of `metric_points` are packed as sealing
packs them; of each metric the newest by (step, time, value) becomes the run's `latest`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import orjson
import sqlalchemy as sa
from alembic import op

from flyball.ledger.points import Point, newest
from flyball.ledger.sql.packing import MOST_POINTS, Columns, in_order, pack, pack_chunk

revision = "0004"
down_revision = "0003"

_CHUNK_FROM = 64  # points of a metric; fewer stay packed with those of other metrics
_BATCH = 2000


def upgrade() -> None:
    _add_tables()
    with op.batch_alter_table("journal_head") as table:
        table.add_column(sa.Column("number", sa.BigInteger, nullable=False, server_default="0"))
    with op.batch_alter_table("runs") as table:
        for column in (
            sa.Column("latest", sa.JSON, nullable=False, server_default="{}"),
            sa.Column("experiment", sa.BigInteger),
            sa.Column("user", sa.Text, nullable=False, server_default=""),
            sa.Column("deleted_at", sa.Text),
            sa.Column("inputs", sa.JSON, nullable=False, server_default="[]"),
            sa.Column("outputs", sa.JSON, nullable=False, server_default="[]"),
            sa.Column("revision", sa.BigInteger, nullable=False, server_default="0"),
            sa.Column("folded", sa.BigInteger, nullable=False, server_default="0"),
        ):
            table.add_column(column)
    bind = op.get_bind()
    number = _move_points(bind)
    number = _number_runs(bind, number)
    bind.execute(sa.text("UPDATE journal_head SET number = :number"), {"number": number})
    op.drop_table("metric_points")
    with op.batch_alter_table("runs") as table:
        table.drop_column("metrics")
    op.create_index("runs_by_experiment", "runs", ["experiment", "started_at"])
    op.create_index("runs_by_revision", "runs", ["revision", "id"])
    for name, columns in (
        ("runs_by_owner", ["of", "started_at"]),
        ("runs_by_parent", ["parent"]),
        ("runs_by_cache_key", ["cache_key", "status"]),
    ):
        there = sa.text(f'"{columns[0]}" IS NOT NULL')
        op.drop_index(name, "runs")
        op.create_index(name, "runs", columns, sqlite_where=there, postgresql_where=there)


def _add_tables() -> None:
    made = op.create_table(
        "experiments",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("artifact_location", sa.Text),
        sa.Column("tags", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("updated_at", sa.Text, nullable=False),
        sa.Column("deleted_at", sa.Text),
        sqlite_autoincrement=True,
    )
    now = sa.text("SELECT at FROM events ORDER BY seq LIMIT 1")
    first = op.get_bind().execute(now).scalar_one_or_none()
    at = first or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    op.bulk_insert(made, [{"id": 0, "name": "Default", "tags": {}, "created_at": at, "updated_at": at}])
    op.create_table(
        "input_datasets",
        sa.Column("experiment", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("source_type", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("contexts", sa.JSON, nullable=False),
        sa.Column("schema", sa.Text),
        sa.Column("profile", sa.Text),
    )
    op.create_table(
        "point_journal",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
        sa.Column("run", sa.Text, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    op.create_index("point_journal_by_run", "point_journal", ["run", "id"])
    op.create_table(
        "point_chunks",
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("part", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("first_at", sa.BigInteger, nullable=False),
        sa.Column("first_step", sa.BigInteger, nullable=False),
        sa.Column("last_at", sa.BigInteger, nullable=False),
        sa.Column("last_step", sa.BigInteger, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "removed_runs",
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_removed_runs_revision", "removed_runs", ["revision"])


def _move_points(bind: sa.Connection) -> int:
    """Pack the points of each run; return the last number that was given."""
    number = 0
    for run, metrics in groupby(_metrics(bind), key=lambda found: found[0]):
        latest: dict[str, Point] = {}
        few: list[Point] = []
        for _, key, points in metrics:
            latest = newest(points, latest)
            ats, steps, values = in_order([Columns(*zip(*((p.at_ms, p.step, p.value) for p in points), strict=True))])
            if len(values) < _CHUNK_FROM:
                few += [Point(key, value, step, at) for at, step, value in zip(ats, steps, values, strict=True)]
                continue
            for start in range(0, len(values), MOST_POINTS):
                part = slice(start, start + MOST_POINTS)
                chunk = pack_chunk(Columns(ats[part], steps[part], values[part]))
                number += 1
                bind.execute(_CHUNK, {"run": run, "key": key, "part": number, **chunk._asdict()})
        for start in range(0, len(few), MOST_POINTS):
            packed = few[start : start + MOST_POINTS]
            number += 1
            bind.execute(_ROW, {"id": number, "run": run, "count": len(packed), "data": pack(packed)})
        bind.execute(_LATEST, {"id": run, "latest": _told(latest), "folded": number})
    return number


def _metrics(bind: sa.Connection) -> Iterator[tuple[str, str, list[Point]]]:
    """Yield (run, key, points) by run."""
    query = sa.text("SELECT run, key, step, at, value FROM metric_points ORDER BY run, key")
    rows = bind.execute(query, execution_options={"yield_per": _BATCH})
    for (run, key), found in groupby(rows, key=lambda row: (row.run, row.key)):
        yield run, key, [Point(key, math.nan if r.value is None else r.value, r.step, _ms(r.at)) for r in found]


def _number_runs(bind: sa.Connection, number: int) -> int:
    """Give each run its revision, user and experiment, and the metrics that have no point."""
    ids = bind.execute(sa.text("SELECT id FROM runs ORDER BY started_at, id")).scalars().all()
    for start in range(0, len(ids), _BATCH):
        batch = ids[start : start + _BATCH]
        found = {row.id: row for row in bind.execute(_RUNS, {"ids": batch})}
        changes = []
        for id in batch:
            row, number = found[id], number + 1
            latest = _json(row.latest)
            kept = {key: [value, 0, _ms(row.started_at)] for key, value in _json(row.metrics).items()}
            changes.append({"id": id, "revision": number, "latest": {**kept, **latest}})
        bind.execute(_NUMBERED, changes)
    return number


def _told(latest: dict[str, Point]) -> dict[str, Any]:
    return {p.key: [None if math.isnan(p.value) else p.value, p.step, p.at_ms] for p in latest.values()}


def _json(value: Any) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(value) if isinstance(value, str) else value
    return found


def _ms(at: str) -> int:
    instant = datetime.fromisoformat(at)
    return int(instant.timestamp()) * 1000 + instant.microsecond // 1000


_CHUNK = sa.text(
    "INSERT INTO point_chunks (run, key, part, count, first_at, first_step, last_at, last_step, data) "
    "VALUES (:run, :key, :part, :size, :first_at, :first_step, :last_at, :last_step, :data)"
)
_ROW = sa.text("INSERT INTO point_journal (id, run, count, data) VALUES (:id, :run, :count, :data)")
_LATEST = sa.text("UPDATE runs SET latest = :latest, folded = :folded WHERE id = :id").bindparams(
    sa.bindparam("latest", type_=sa.JSON)
)
_RUNS = sa.text("SELECT id, started_at, metrics, latest FROM runs WHERE id IN :ids").bindparams(
    sa.bindparam("ids", expanding=True)
)
_NUMBERED = sa.text(
    'UPDATE runs SET revision = :revision, latest = :latest, "user" = actor, '
    "experiment = CASE WHEN kind IN ('training', 'evaluation') THEN 0 END WHERE id = :id"
).bindparams(sa.bindparam("latest", type_=sa.JSON))
