"""What became of a dataset's batches, newest first or over time: the word for its state, its marks, its chart.

A batch is a published version, or one that was kept aside; how it stood is told by its contract's report.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flyball.ledger.refs import Ref
from flyball.ledger.versions import Version
from flyball.platform import Platform
from flyball.web.formats import ref_url, state_tone

__all__ = ["Batch", "batches_of", "chart", "newest", "page_of", "standing", "verdict"]

_LOOKED_AT = 60  # batches of either sort that a history shows


@dataclass(frozen=True)
class Batch:
    """One batch: what it became, the verdict on it in a word, and how many of its rows broke a rule."""

    version: Version
    word: str
    failed: int | None
    share: float | None

    @property
    def ref(self) -> Ref:
        return self.version.ref

    @property
    def tone(self) -> str:
        return state_tone(self.word)

    @property
    def warnings(self) -> int:
        """How many rules warned."""
        return sum(not r["passed"] and r["severity"] == "warning" for r in _report(self.version).get("results", ()))


def batches_of(platform: Platform, name: str, limit: int = _LOOKED_AT) -> list[Batch]:
    """Return a dataset's newest batches, oldest first: its versions, and what was kept aside whole."""
    made = platform.versions("dataset", name, limit=limit)
    split = {str(v.metadata.get("quarantined", {}).get("version")) for v in made}
    aside = [v for v in platform.versions("quarantine", name, limit=limit) if str(v.ref) not in split]
    # Where one of the two lists was cut, what is older in the other would look as if nothing had been kept aside.
    since = max((found[-1].created_at for found in (made, aside) if len(found) == limit), default=None)
    both = [v for v in (*made, *aside) if since is None or v.created_at >= since]
    return [_batch(v) for v in sorted(both, key=lambda v: (v.created_at, v.event or 0))][-limit:]


def verdict(version: Version) -> str:
    """Return what its contract said of a version, in a word; what nobody checked is `not checked`."""
    if version.kind == "quarantine":
        return str((version.metadata.get("quarantine") or {}).get("state", "held"))
    report = _report(version)
    if not report:
        return "not checked"
    if version.metadata.get("quarantined"):
        return "split"
    return "passed" if report.get("passed") else "released"


def standing(batches: Sequence[Batch]) -> str:
    """Return the state of a dataset in a word: the verdict on its newest batch, `declared` without any."""
    if not batches:
        return "declared"
    word = batches[-1].word
    return {"held": "quarantined"}.get(word, word)


def newest(batches: Sequence[Batch]) -> Version | None:
    """Return the newest published version among the batches."""
    return next((b.version for b in reversed(batches) if b.version.kind == "dataset"), None)


def page_of(
    platform: Platform, kind: str, name: str, before: int | None, size: int
) -> tuple[list[Version], int | None]:
    """Return a page of versions, newest first, those below `before`, and below which number the next page goes on.

    Versions are numbered without gaps, so each is got by its number, however many there are.
    """
    if before is None:
        found = platform.versions(kind, name, limit=size)
    else:
        numbers = range(before - 1, max(before - 1 - size, 0), -1)
        found = [platform.version(Ref(kind, name, str(number))) for number in numbers]
    last = found[-1].number if found else 1
    return found, last if last > 1 else None


def chart(batches: Iterable[Batch]) -> dict[str, Any]:
    """Return `<fb-line>`'s data: the share of rows that broke a rule, batch by batch, each batch a mark."""
    found = list(batches)
    checked = [b for b in found if b.share is not None]
    events = [
        {"at": b.version.created_at.timestamp(), "label": f"{b.ref.short} {b.word}", "reason": _reason(b),
         "tone": b.tone, "href": ref_url(b.ref)}
        for b in found
        if b.word != "passed"
    ]  # fmt: skip
    series = {
        "name": "rows that broke a rule", "arm": 1, "xs": [b.version.created_at.timestamp() for b in checked],
        "ys": [100 * (b.share or 0.0) for b in checked],
    }  # fmt: skip
    return {"unit": "%", "zero": True, "series": [series], "events": events, "empty": "No batch was checked yet."}


def _batch(version: Version) -> Batch:
    report = _report(version)
    rows, failed = report.get("rows"), report.get("rows_failed")
    share = failed / rows if rows and failed is not None else 0.0 if report else None
    return Batch(version, verdict(version), failed, share)


def _reason(batch: Batch) -> str:
    broken = [
        r["id"] for r in _report(batch.version).get("results", ()) if not r["passed"] and r["severity"] == "error"
    ]
    if not _report(batch.version):
        return "no contract guarded it"
    more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
    return f"{', '.join(broken[:3])}{more}: {batch.failed or 0:,} rows"


def _report(version: Version) -> Mapping[str, Any]:
    return version.metadata.get("contract") or {}
