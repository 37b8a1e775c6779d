"""The job on a user's own table: half of it teaches, the other half is replayed in time order.

With a time column every other day teaches; without one the order of the rows means nothing, so they are shuffled and
every other row teaches. What cannot be an input, or must not be one because it holds the answer, is left out by name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from flyball.data.inference import infer_contract
from flyball.data.sources import open_source
from flyball.demo.columns import inputs_of, tells_the_target
from flyball.demo.job import Job, Misuse, Sizes, Stream, Tick
from flyball.demo.mirror import choose_mirror
from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.evaluation.evaluate import task_of

__all__ = ["table_job"]

_METRICS = {"binary": ("auc", 0.52), "multiclass": ("accuracy", 0.0), "regression": ("r2", 0.0)}
_TICK_ROWS = 16
_TOLD_TICKS = 6  # after which the truth is told, where the table does not say when it became known
_MOST_REPLAYED = 30_000  # more would not fit a minute
_MOST_LEARNT = 200_000
_FEWEST_DAYS = 16  # below this, days cannot take turns


def table_job(
    data: str | Path,
    *,
    target: str,
    time: str | None = None,
    label_time: str | None = None,
    entity: str | None = None,
    fault: bool = True,
    seed: int = 0,
) -> Job:
    """Return the job on a file.

    Raises:
        Misuse: a column that was named is not there, or was named twice.
        NotFound, InvalidInput: the file is missing, empty, not a table, not UTF-8; the target has one value only; a
            time cannot be read; there are too few rows.
    """
    path = Path(data)
    frame = open_source(path).collect()
    roles = {"--target": target, "--time": time, "--label-time": label_time, "--entity": entity}
    _check(path, frame, {k: v for k, v in roles.items() if v is not None})
    for name in filter(None, (time, label_time)):
        frame = frame.with_columns(_instants(path, frame[name]))
    frame, task, notes = _with_target(path, frame.filter(pl.col(target).is_not_null()), target)
    metric, least = _METRICS[task]
    taken = [c for c in (target, time, label_time, entity) if c is not None]
    frame, inputs, left_out = inputs_of(frame, target, taken)
    notes += left_out
    if not inputs:
        raise InvalidInput(f"{path} has no column besides {listed(taken)} that a model could learn from")
    notes += tells_the_target(frame, target, task, inputs)
    learnt, replayed, test, how = _halves(frame, time, seed)
    learnt, replayed, thinned = _thinned(learnt, replayed)
    sizes = Sizes.of(replayed.height)
    task_of(learnt[target].to_numpy())
    wrong, why_not = None, ""
    if fault:
        wrong, why_not = choose_mirror(learnt, replayed, test, target, inputs, time, metric, sizes)
        notes.append(why_not)
    dataset, name = _name(path.stem), _name(target)
    return Job(
        name=name,
        dataset=dataset,
        title=f"predict {target} of {path.name}, a {task} task judged by {metric} ({how}{thinned})",
        rows=learnt.select(*taken, *inputs),
        spec={
            "target": target,
            **({"event_time": time} if time else {}),
            **({"label_time": label_time} if label_time else {}),
            **({"entity": [entity]} if entity else {}),
            "description": f"rows of {path.name}",
        },
        contract=_contract(learnt.select(*taken, *inputs), dataset, entity),
        inputs=tuple(inputs),
        test=test,
        metric=metric,
        least=least,
        stream=_stream(replayed, target, inputs, time, label_time, entity),
        sizes=sizes,
        slices=tuple(c for c in inputs if learnt[c].dtype == pl.String and learnt[c].n_unique() <= 20)[:3],
        fault=wrong,
        notes=tuple(notes),
        is_strict=False,
    )


def _check(path: Path, frame: pl.DataFrame, roles: dict[str, str]) -> None:
    for option, column in roles.items():
        if column not in frame.columns:
            near = did_you_mean(column, frame.columns)
            raise Misuse(f'{path} has no column "{column}", given by {option}{near} (it has: {listed(frame.columns)})')
    repeated = next((c for c in roles.values() if list(roles.values()).count(c) > 1), None)
    if repeated is not None:
        options = listed(option for option, column in roles.items() if column == repeated)
        raise Misuse(f'the column "{repeated}" was given by {options}; a column has one part to play')


def _instants(path: Path, column: pl.Series) -> pl.Series:
    """Return a column of dates or times; texts are read as such."""
    if column.dtype.is_temporal() and column.dtype not in (pl.Time, pl.Duration):
        found = column
    elif column.dtype == pl.String:
        try:
            found = column.str.to_datetime(time_unit="us", strict=True)
        except pl.exceptions.PolarsError:
            sample = next((v for v in column.to_list() if v is not None), "")
            raise InvalidInput(
                f'"{column.name}" of {path} holds texts such as {str(sample)[:40]!r} that are no times; '
                "expected 2013-05-03 or 2013-05-03T14:00:00Z"
            ) from None
    else:
        raise InvalidInput(f'"{column.name}" of {path} is {column.dtype}; expected dates or times')
    if found.null_count():
        missing = found.null_count()
        raise InvalidInput(f'"{column.name}" of {path} is missing in {missing:,} rows; expected a time in each')
    return found


def _with_target(path: Path, frame: pl.DataFrame, target: str) -> tuple[pl.DataFrame, str, list[str]]:
    """Return the rows with a target of numbers, its task, and what was changed in it."""
    if not frame.height:
        raise InvalidInput(f'the target "{target}" of {path} is missing in all rows')
    column = frame[target]
    if column.dtype == pl.Boolean:
        column = column.cast(pl.Int64)
    task = task_of(column.to_numpy())
    notes = []
    is_named = not column.dtype.is_integer() or (task == "binary" and set(column.unique()) != {0, 1})
    if task != "regression" and is_named:
        classes = sorted(column.unique().to_list())
        column = column.replace_strict(classes, list(range(len(classes))), return_dtype=pl.Int64)
        said = ", ".join(f"{number} for {value}" for number, value in enumerate(classes[:6]))
        notes.append(f"the classes of {target} are numbered: {said}{' …' if len(classes) > 6 else ''}")
    if task != "regression":
        column = column.cast(pl.Int64)
    return frame.with_columns(column.alias(target)), task, notes


def _halves(frame: pl.DataFrame, time: str | None, seed: int) -> tuple[pl.DataFrame, pl.DataFrame, pl.Expr, str]:
    """Return the rows that teach, those that are replayed, which of the first judge, and how this was done."""
    if time is None:
        shuffled = frame.sample(fraction=1.0, shuffle=True, seed=seed)
        number = pl.int_range(pl.len())
        how = "without --time the order of the rows means nothing: shuffled, every other row teaches"
        return shuffled.filter(number % 2 == 0), shuffled.filter(number % 2 == 1), number % 4 == 3, how
    ordered = frame.sort(time, maintain_order=True)
    day = pl.col(time).cast(pl.Date)
    days = ordered.select(day.unique().sort()).to_series()
    if days.len() < _FEWEST_DAYS:
        number = pl.int_range(pl.len())
        how = f"{days.len()} days are too few to take turns: every other row teaches"
        return ordered.filter(number % 2 == 0), ordered.filter(number % 2 == 1), number % 4 == 3, how
    teaching = days.gather_every(2, offset=seed % 2)
    judging = teaching.gather_every(4, offset=3)
    is_teaching = day.is_in(teaching.implode())
    how = "every other day teaches, the days between are replayed in time order"
    return ordered.filter(is_teaching), ordered.filter(~is_teaching), day.is_in(judging.implode()), how


def _thinned(learnt: pl.DataFrame, replayed: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, str]:
    of_learnt = -(-learnt.height // _MOST_LEARNT)
    of_replayed = -(-replayed.height // _MOST_REPLAYED)
    said = f", one row in {of_learnt} to learn from" if of_learnt > 1 else ""
    said += f", one row in {of_replayed} of the replayed" if of_replayed > 1 else ""
    return learnt.gather_every(of_learnt), replayed.gather_every(of_replayed), said


def _stream(
    rows: pl.DataFrame, target: str, inputs: Sequence[str], time: str | None, label_time: str | None, entity: str | None
) -> Stream:
    starts = list(range(0, rows.height, _TICK_ROWS))
    shown = rows[time].cast(pl.String).to_list() if time else [""] * rows.height
    ticks = [Tick(a, min(a + _TICK_ROWS, rows.height), None, str(shown[a])[:19]) for a in starts]
    told = [number // _TICK_ROWS + _TOLD_TICKS for number in range(rows.height)]
    if time is not None and label_time is not None:
        instants = rows[time].cast(pl.Datetime("us")).gather(starts)
        found = instants.search_sorted(rows[label_time].cast(pl.Datetime("us")), side="left").to_list()
        told = [max(tick, number // _TICK_ROWS + 1) for number, tick in enumerate(found)]
    keys = rows[entity].cast(pl.String).to_list() if entity else None
    return Stream(rows.select(inputs).to_dicts(), rows[target].to_list(), told, ticks, keys)


def _contract(rows: pl.DataFrame, name: str, entity: str | None) -> str:
    document: dict[str, Any] = infer_contract(rows, name)
    for column in document["schema"][0]["properties"]:
        if column["name"] == entity:
            # Rows that come back from production are labelled answers: whom they were about is not in the log.
            for rule in ("required", "unique", "quality", "logicalTypeOptions"):
                column.pop(rule, None)
    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110))


def _name(text: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_.\-]+", "_", text).strip("._-")[:60]
    return name or "table"
