"""What the demo shows: stages as they happen, figures with intervals, the lineage of one prediction, where to look."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flyball.demo.job import Job
from flyball.demo.replay import Replayed
from flyball.errors import InvalidInput
from flyball.evaluation.evaluate import answers_for
from flyball.ledger.refs import Ref
from flyball.platform import Platform
from flyball.serving.evidence import answers_of
from flyball.stats.intervals import interval
from flyball.stats.metrics import metric

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Printer", "Quality", "lineage_of", "quality_of", "relative", "summary"]

Interval = list[float]


class Printer:
    """Prints stages with the seconds since the start; in colour on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self._console: Any = None
        if sys.stdout.isatty():
            from rich.console import Console

            self._console = Console(highlight=False, soft_wrap=True)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.began

    def stage(self, name: str, text: str) -> None:
        """Print a line of a stage."""
        if self._console is None:
            print(f"{self.seconds:5.1f} s  {name:<11} {text}", flush=True)
            return
        from rich.markup import escape

        colour = {"drift": "yellow", "alert": "yellow", "fault": "red", "error": "red", "promoted": "green"}
        style = colour.get(name, "cyan")
        self._console.print(f"[dim]{self.seconds:5.1f} s[/]  [{style}]{name:<11}[/] {escape(text)}")

    def block(self, title: str, text: str) -> None:
        """Print a block of text as it is, under its title."""
        print(f"\n{title}\n{text}" if title else f"\n{text}", flush=True)


@dataclass(frozen=True)
class Quality:
    """The metric on four stretches of the replay, each [low, value, high], with the answers that it rests on.

    before: until the stated request. during: from there on, answered by the old champion. after: answered by the new
    champion since it was promoted. after_old: what the old champion scores on the rows of `after`. Where nothing was
    promoted, `during` and `after` are the same rows, and `after_old` is `after`.
    """

    metric: str
    before: Interval | None
    during: Interval | None
    after: Interval | None
    after_old: Interval | None
    rows: Mapping[str, int]
    verdict: str = "no evidence"  # of the new champion against the old on the rows of `after`

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def quality_of(platform: Platform, job: Job, state: Replayed, old: str, new: str, split: int) -> Quality:
    """Return the figures; `old` and `new` are the champions before and after, `split` the stated request."""
    import polars as pl

    from flyball.stats.comparison import compare

    rows = platform.traffic.frame(job.name)
    if rows.is_empty():
        return Quality(job.metric, None, None, None, None, {})
    numbers = pl.Series("number", [state.number_of.get(i, -1) for i in rows["id"].to_list()], pl.Int64)
    rows = rows.with_columns(numbers).filter(pl.col("label").is_not_null(), pl.col("number") >= 0)
    later = rows.filter(pl.col("number") >= split)
    parts = {"before": rows.filter(pl.col("number") < split, pl.col("version") == old)}
    if new == old:
        parts |= {"during": later, "after": later}
    else:
        parts["during"] = later.filter(pl.col("version") == old)
        parts["after"] = rows.filter((pl.col("version") == new) & (pl.col("variant") == "champion"))
    found = {name: _interval(job.metric, part) for name, part in parts.items()}
    again, verdict = found["after"], "no evidence"
    after = parts["after"]
    if new != old and after.height:
        truth = after["label"].cast(pl.Float64).to_numpy()
        score = _answers_again(platform, job, old, after)
        again = _as_list(job.metric, truth, score)
        answers = answers_of(metric(job.metric), after)
        assert answers is not None
        verdict = compare(metric(job.metric), truth, answers, score).verdict
    counts = {name: part.height for name, part in parts.items()}
    return Quality(job.metric, found["before"], found["during"], found["after"], again, counts, verdict)


def summary(quality: Quality, old: str, new: str) -> str:
    """Return the figures as a table."""
    told = [
        ("before the change", old, quality.before, quality.rows.get("before", 0)),
        ("during", old, quality.during, quality.rows.get("during", 0)),
        ("after", new, quality.after, quality.rows.get("after", 0)),
        ("after, by the old champion", old, quality.after_old, quality.rows.get("after", 0)),
    ]
    name = quality.metric
    lines = [f"{'':<28}{'answered by':<14}{name:>7}  {'95 % interval':<18}{'labelled answers':>17}"]
    for what, version, found, rows in told:
        shown = "      –" if found is None else f"{found[1]:7.3f}"
        between = "" if found is None else f"[{found[0]:.3f}, {found[2]:.3f}]"
        lines.append(f"{what:<28}{version:<14}{shown}  {between:<18}{rows:>17,}")
    return "\n".join(lines)


def lineage_of(platform: Platform, job: Job, version: str) -> str:
    """Return one prediction's lineage as a tree: what was asked and looked up, by which model, made from what."""
    import polars as pl

    rows = platform.traffic.frame(job.name).filter(pl.col("version") == version, pl.col("label").is_not_null())
    if rows.is_empty():
        return f"no labelled answer of {version} is known"
    row = rows.tail(1).to_dicts()[0]
    kinds = ("input.", "feature.", "output.")
    parts = {kind: {k.removeprefix(kind): v for k, v in row.items() if k.startswith(kind)} for kind in kinds}
    lines = [
        f"prediction {row['id']} of deployment/{job.name}, revision {row['revision']}, {row['variant']}",
        f"├─ asked       {_shown(parts['input.'])}",
    ]
    for view in job.views:
        spec = view.spec()
        values = {name: parts["feature."].get(name) for name in spec.features}
        lines.append(f"├─ looked up   {_shown(values)}  by {', '.join(view.entity)} (feature-view/{view.name})")
    lines += [f"├─ answered    {_shown(parts['output.'])}; the truth was {row['label']}", "└─ by"]
    target = Ref("model", *version.split("@", 1))
    graph = platform.lineage(target, "upstream")
    sources: dict[str, list[tuple[str, str]]] = {}
    for edge in graph.edges:
        sources.setdefault(edge.target, []).append((edge.source, edge.role))
    lines += _tree(platform, str(target), "", sources, (), set())
    return "\n".join(lines)


def relative(path: Path) -> str:
    """Return a path as one would type it here."""
    found = os.path.relpath(path)
    return str(path) if found.startswith("..") else found


def _tree(
    platform: Platform,
    node: str,
    role: str,
    sources: Mapping[str, Sequence[tuple[str, str]]],
    path: tuple[str, ...],
    seen: set[str],
) -> list[str]:
    """Return a node and what it was made from, indented; what was told before is not told again."""
    told = f"{'   ' * (len(path) + 1)}{_described(platform, node)}" + (f"  ({role})" if role else "")
    above = [(source, how) for source, how in sources.get(node, ()) if source not in (*path, node)]
    if node in seen:
        return [f"{told}, as above"] if above else [told]
    seen.add(node)
    lines = [told]
    for source, how in above:
        lines += _tree(platform, source, how, sources, (*path, node), seen)
    return lines


def _described(platform: Platform, node: str) -> str:
    """Return a reference with what the ledger knows of it in a few words."""
    kind = node.partition("/")[0]
    if kind == "run":
        run = platform.run(node)
        of = f" of {run.of}" if run.of else f" {run.name}"
        return f"run {run.id[:8]}{of}, Python {run.environment.get('python', '?')}"
    if kind in ("dataset", "model", "quarantine") and "@" in node:
        version = platform.version(node)
        facts = [f"{version.metadata['rows']:,} rows"] if "rows" in version.metadata else []
        facts += [str(version.metadata["note"])] if version.metadata.get("note") else []
        digest = version.digest.removeprefix("sha256:")[:12]
        return f"{node} sha256 {digest}" + (f": {'; '.join(facts)}" if facts else "")
    return node


def _shown(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())


def _interval(metric_name: str, rows: pl.DataFrame) -> Interval | None:
    import polars as pl

    answers = answers_of(metric(metric_name), rows)
    if answers is None or rows.is_empty():
        return None
    return _as_list(metric_name, rows["label"].cast(pl.Float64, strict=False).to_numpy(), answers)


def _as_list(metric_name: str, truth: np.ndarray[Any, Any], answers: np.ndarray[Any, Any]) -> Interval | None:
    try:
        found = interval(metric_name, truth, answers)
    except InvalidInput:
        return None
    return [found.low, found.value, found.high]


def _answers_again(platform: Platform, job: Job, version: str, rows: pl.DataFrame) -> np.ndarray[Any, Any]:
    """Return what a version answers to logged rows: the inputs as received and as looked up."""
    model = platform.load(version)
    columns = {}
    for field in model.signature.inputs:
        name = next(p + field.name for p in ("feature.", "input.") if p + field.name in rows.columns)
        columns[field.name] = rows[name].to_list()
    return answers_for(metric(job.metric), model.predict(model.signature.columns_from(columns)))
