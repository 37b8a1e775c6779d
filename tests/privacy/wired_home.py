"""A home made by the public API alone, with or without one person: what an erasure must end at is the home without."""

from __future__ import annotations

import contextlib
import sqlite3
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

import flyball as fb
from flyball.errors import InvalidInput
from flyball.platform import Platform
from tests.privacy.full_home import COLUMN, CONTRACT, OTHER, PERSON, places_with

START = datetime(2026, 1, 1, tzinfo=UTC)
NAMED = [COLUMN, "label"]  # where the person stands: in rows, and as the folder that files lie in
MANY = 40_000  # rows of which the store keeps a summary with each part


@fb.feature_view(entity="email", event_time="at", ttl="900d")
def spending(people: pl.LazyFrame) -> pl.LazyFrame:
    return people.select("email", "at", spent=pl.col("age") * 1.5)


def rows(count: int, start: int = 0, *, person: bool = True) -> pl.DataFrame:
    """Return rows of which every seventh is the person's, or those rows without them."""
    numbers = pl.Series("n", range(start, start + count))
    frame = pl.DataFrame({"n": numbers}).select(
        email=pl.when(pl.col("n") % 7 == 0)
        .then(pl.lit(PERSON))
        .otherwise(pl.concat_str(pl.lit("user"), pl.col("n") % 500, pl.lit("@example.org"))),
        age=(20 + pl.col("n") % 60).cast(pl.Int64),
        at=START + pl.duration(hours=pl.col("n") % 2_000),
        id=pl.col("n"),
    )
    return frame if person else frame.filter(pl.col("email") != PERSON)


def build(home: Path, *, person: bool = True) -> Platform:
    """Make the home; without the person everything else in it is the same."""
    (home.parent / "files").mkdir(parents=True, exist_ok=True)
    platform = Platform.open(home)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _datasets(platform, person)
        _files(platform, person)
        _features(platform, person)
    return platform


def _datasets(platform: Platform, person: bool) -> None:
    examples: dict[str, Any] = {**CONTRACT}
    if person:
        examples["description"] = {"purpose": f"asked for by {PERSON}"}
    schema = [{**examples["schema"][0], "properties": [*examples["schema"][0]["properties"], {"name": "id"}]}]
    declared: dict[str, Any] = {"subject": COLUMN, "event_time": "at", "key": ["id"], "on_failure": "split"}
    platform.declare("dataset", "people", **declared, contract={**examples, "schema": schema})
    platform.publish("people", rows(MANY, person=person), note=f"for {PERSON}" if person else "for")
    platform.declare("dataset", "people", **declared, contract={**CONTRACT, "schema": schema})
    platform.publish("people", rows(700, MANY, person=person), mode="append")
    changed = rows(70, 100, person=person).with_columns(age=pl.col("age") + 1)
    platform.publish("people", changed, mode="upsert")
    broken = rows(42, 60_000, person=person).with_columns(age=-pl.col("age"))
    platform.publish("people", pl.concat([rows(7, 70_000, person=person), broken]), mode="append")
    with contextlib.suppress(InvalidInput):
        platform.publish("people", broken.with_columns(age=pl.col("age").cast(pl.Float64) + 0.5), mode="append")
    platform.fix("people", 1, {"age": "abs(age)"})
    for name in ("copied", "renamed", "renamed_again", "totals"):
        platform.declare("dataset", name)
    where = f" where email <> 'nobody' or email = '{PERSON}'" if person else " where email <> 'nobody'"
    platform.publish("copied", f"select email, age from people{where}")
    platform.publish("renamed", "select email as contact, age as years from people")
    platform.publish("renamed_again", "select contact as who, years from renamed")
    platform.publish("totals", "select count(*) as people, avg(age) as age from people")
    platform.declare("labels", "trust", dataset="people", key=["email"], values=["yes", "no"], unknown_keys="keep")
    said = pl.DataFrame({"email": [PERSON, OTHER, "user1@example.org"], "label": ["yes", "no", "yes"]})
    said = said.with_columns(labelled_at=pl.lit(START), known_at=pl.lit(START))
    platform.add_labels("trust", said if person else said.filter(pl.col("email") != PERSON), labeller="user/a")
    platform.frame("people", purpose=f"a question of {PERSON}" if person else "a question")


def _files(platform: Platform, person: bool) -> None:
    root = platform.home.parent / "files"
    for who in ("anna", PERSON, "bob"):
        if person or who != PERSON:
            (root / who).mkdir()
            for number in range(3):
                text = f"letter {number} of {who} " + "word " * number
                (root / who / f"{number}.txt").write_text(text, encoding="utf-8")
    platform.declare("dataset", "letters", subject="label")
    platform.publish("letters", fb.files(root, label="folder"))
    (root / "bob" / "later.txt").write_text("one more of bob", encoding="utf-8")
    platform.publish("letters", fb.files(root, label="folder"))


def _features(platform: Platform, person: bool) -> None:
    platform.declare_view(spending)
    platform.materialise(spending)
    pushed = [(PERSON, 7.0), ("user1@example.org", 8.0), (OTHER, 9.0)]
    for number, (email, spent) in enumerate(pushed):
        if person or email != PERSON:
            at = START + timedelta(days=300, hours=number)
            platform.push(spending, {"email": email, "at": at, "spent": spent})
    platform.materialise(spending)


def holding(home: Path, value: str = PERSON) -> list[str]:
    """Return the places of a home that hold a value: files, what they pack, and what SQL finds in databases."""
    found = places_with(home, value)
    for path in sorted(p for p in home.rglob("*") if p.is_file()):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            continue  # as in `places_with`
        name = path.relative_to(home).as_posix()
        for packed in ("gzip", "zstd", "lz4"):
            with contextlib.suppress(OSError):
                if value.encode() in pa.CompressedInputStream(pa.BufferReader(data), packed).read():
                    found.append(f"{name} ({packed})")
        if data.startswith(b"SQLite format 3"):
            found += [f"{name}:{table}" for table in _tables_with(path, value)]
    return found


def _tables_with(path: Path, value: str) -> list[str]:
    found = []
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        tables = [row[0] for row in connection.execute("select name from sqlite_master where type = 'table'")]
        for table in tables:
            with contextlib.suppress(sqlite3.DatabaseError):
                for row in connection.execute(f'select * from "{table}"'):
                    if any(value in (c.decode(errors="replace") if isinstance(c, bytes) else str(c)) for c in row):
                        found.append(table)
                        break
    return found
