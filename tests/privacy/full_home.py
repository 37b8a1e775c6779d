"""A home with one person in every place that a home has, and a look for that person in every file of it."""

from __future__ import annotations

import base64
import contextlib
import io
import re
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl

from flyball.errors import InvalidInput
from flyball.features.pushes import push
from flyball.features.storing import StoredViews
from flyball.features.views import feature_view
from flyball.ledger.runs import Artifact
from flyball.models import bundle
from flyball.monitoring.results import Results
from flyball.pipelines.results import store
from flyball.platform import Platform
from flyball.privacy.erasure import Eraser, PrivacySettings
from flyball.storage.online import OnlineValue
from flyball.storage.streams.log import Log
from flyball.tracking.predictions import PredictionBatch, PredictionLog, new_ids
from tests.privacy.ageing import answer

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PERSON = "zoë.quux@example.org"
OTHER = "bob@example.org"
COLUMN = "email"
CONTRACT = {
    "kind": "DataContract",
    "apiVersion": "v3.1.0",
    "id": "people",
    "version": "1.0.0",
    "status": "active",
    "schema": [
        {
            "name": "people",
            "properties": [
                {"name": "email", "logicalType": "string"},
                {"name": "age", "logicalType": "integer", "logicalTypeOptions": {"minimum": 0}},
                {"name": "at", "logicalType": "timestamp"},
            ],
        }
    ],
}


@feature_view(entity="email", event_time="at", ttl="900d")
def habits(people: pl.LazyFrame) -> pl.LazyFrame:
    return people.select("email", "at", doubled=pl.col("age") * 2)


@feature_view(entity=["email", "shop"], event_time="at", ttl="900d")
def visits(people: pl.LazyFrame) -> pl.LazyFrame:
    return people.select("email", "at", shop=pl.lit("north"), twice=pl.col("age") * 2)


def people(rows: int = 12, start: int = 0) -> pl.DataFrame:
    """Return rows of which every third is the person's."""
    numbers = range(start, start + rows)
    return pl.DataFrame(
        {
            "email": [PERSON if n % 3 == 0 else OTHER if n % 3 == 1 else f"user{n}@example.org" for n in numbers],
            "age": [20 + n for n in numbers],
            "at": [NOW + timedelta(hours=n) for n in numbers],
        }
    )


def fill(platform: Platform) -> dict[str, Any]:
    """Put the person everywhere; return the ids of the predictions about them, and of the others."""
    home = platform.home
    platform.declare(
        "dataset", "people", subject=COLUMN, event_time="at", contract=CONTRACT, on_failure="split", retention="400d"
    )
    first = platform.publish("people", people())
    platform.publish("people", people(6, 12), mode="append")
    broken = people(3, 30).with_columns(age=-pl.col("age"))
    platform.publish("people", pl.concat([people(3, 20), broken]), mode="append")
    with contextlib.suppress(InvalidInput):  # kept aside whole
        platform.publish("people", broken.with_columns(age=pl.col("age").cast(pl.Float64) + 0.5))
    _features(platform)
    ids = _traffic(home)
    platform.label(dict.fromkeys([*ids["person"], *ids["others"]], 1))
    _runs(platform)
    _model(platform, first.version.ref)
    results = Results(home / "streams")
    results.append(
        {"what": "reference", "monitor": "m", "version": "m@1", "columns": {"email": {"top": [PERSON, OTHER]}}}
    )
    results.append(
        {"what": "drift", "monitor": "m", "number": 1, "counts": {"email": [3, 1]}, "statistics": {"age": 0.1}}
    )
    results.close()
    (home / "logs").mkdir(exist_ok=True)
    (home / "logs" / "run-1.log").write_text(f"fitting\nno room for {PERSON}, skipped\ndone\n", encoding="utf-8")
    return ids


def eraser(platform: Platform, **settings: Any) -> Eraser:
    """Return an eraser for whom every blob is old enough."""
    settings.setdefault("grace_s", 0)
    stores = (platform.home, platform.ledger, platform.blobs, platform.tables, platform.online)
    return Eraser(*stores, actor="user/dpo", clock=platform.clock, settings=PrivacySettings(**settings))


def places_with(home: Path, value: str = PERSON) -> list[str]:
    """Return the files that hold a value, as bytes, base64, or inside Parquet and Arrow."""
    raw = value.encode()
    forms = [raw, base64.b64encode(raw)[:-4], orjson.dumps(value)[1:-1], value.encode("utf-16-le")]
    found = []
    for path in sorted(p for p in home.rglob("*") if p.is_file()):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            continue  # whoever closes a database last takes its -shm and -wal away
        texts = _decoded(data)
        if any(form in data for form in forms) or any(re.search(re.escape(value), text) for text in texts):
            found.append(path.relative_to(home).as_posix())
    return found


def _decoded(data: bytes) -> list[str]:
    try:
        if data.startswith(b"PAR1"):
            return [pl.read_parquet(io.BytesIO(data)).write_json()]
        if data.startswith(b"ARROW1"):
            return [pl.read_ipc(io.BytesIO(data)).write_json()]
    except pl.exceptions.PolarsError:
        return []
    if data.startswith(b"FBPF"):
        return [zlib.decompress(data[5:]).decode(errors="replace")]
    return []


def _features(platform: Platform) -> None:
    for view in (habits, visits):
        frame = platform.frame("people")
        StoredViews(platform.ledger, platform.tables).refresh(view, "people", actor="user/a")
        spec = view.spec(frame.collect_schema())
        platform.declare("feature-view", view.name, dataset="people", definition=spec.to_dict())
        for row in view.compute(frame).collect().to_dicts():
            key = spec.key_of(row[name] for name in spec.entity)
            assert key is not None
            platform.online.put(spec.stored_as, [(key, OnlineValue(row["at"], {n: row[n] for n in spec.features}))])
        log = Log(platform.home / "streams" / "pushes" / spec.stored_as, "api")
        for email in (PERSON, OTHER):
            row = {"email": email, "shop": "south", "at": NOW + timedelta(days=9), "doubled": 1, "twice": 2}
            wanted = (*spec.entity, spec.event_time, *spec.features)
            push(spec, [{name: row[name] for name in wanted}], platform.online, log)
        log.close()


def _traffic(home: Path) -> dict[str, Any]:
    log = PredictionLog(home / "traffic", "data_plane", masks={"masked": frozenset({"email"})})
    single, batch, masked = new_ids(1), new_ids(3), new_ids(2)
    base = {"revision": 1, "variant": "champion", "version": "m@1", "at": NOW}
    log.append_wait(PredictionBatch("open", ids=single, inputs={"email": [PERSON]}, outputs={"p": [1]}, **base))
    inputs = {"email": [OTHER, PERSON, "c@example.org"], "n": [1, 2, 3]}
    log.append_wait(PredictionBatch("open", ids=batch, inputs=inputs, outputs={"p": [1, 2, 3]}, **base))
    keyed = {"keys": [PERSON, OTHER], "inputs": {"email": [PERSON, OTHER]}, "outputs": {"p": [1, 2]}}
    log.append_wait(PredictionBatch("masked", ids=masked, **keyed, **base))
    log.close()
    return {"person": [single[0], batch[1], masked[0]], "others": [batch[0], batch[2], masked[1]]}


def _runs(platform: Platform) -> None:
    blobs, frame = platform.blobs, people(300)
    csv = io.BytesIO()
    frame.write_csv(csv)
    files = {
        "rows.parquet": _parquet(frame),
        "rows.csv": csv.getvalue(),
        "notes.txt": f"written to {PERSON} today".encode(),
        "log.txt": f"step saw {PERSON}\n".encode(),
        "answer.json": orjson.dumps([{"email": PERSON, "x": 1}, {"email": OTHER, "x": 2}]),
    }
    results = [
        store(frame, blobs, "step"),
        store(frame.head(2), blobs, "step"),
        store({"best": PERSON, "auc": 0.8}, blobs, "step"),
        store((PERSON, np.arange(3)), blobs, "step"),
        store({"auc": 0.7}, blobs, "step"),
    ]
    with platform.ledger.write("user/a") as world:
        run = world.runs.start("step", "load", params={"email": PERSON, "depth": 3, "who": f"for {PERSON}"})
        for path, data in files.items():
            world.runs.add_artifact(run.id, Artifact(path, blobs.put(data), len(data)))
        kept = {"outputs": [stored.to_dict() for stored in results]}
        world.runs.finish(run.id, "failed", error=f"cannot reach {PERSON}", result=kept)


def _model(platform: Platform, trained_on: Any) -> None:
    example = people(3).select("email", "age")
    manifest = bundle.save(platform.blobs, answer, example=example, flavor="python")
    platform.declare("model", "m", dataset="people")
    with platform.ledger.write("user/a") as world:
        world.versions.publish(
            "model",
            "m",
            manifest.digest,
            metadata={"trained_on": str(trained_on), "signature": manifest.signature.to_dict()},
            made_from=[(trained_on, "trained on")],
        )


def _parquet(frame: pl.DataFrame) -> bytes:
    stream = io.BytesIO()
    frame.write_parquet(stream)
    return stream.getvalue()
