"""How values read on a page: three significant digits, units, relative times, the shape of a state, an address.

The templates use these as filters and functions (`render.py` registers them); `static/fb-format.js` writes the same
figures where a script draws them. Pure functions: a page computes nothing, and neither do they beyond wording.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from flyball.ledger.refs import Ref, ref

__all__ = [
    "STATE_TONES",
    "arms",
    "as_ref",
    "bytes_text",
    "count_text",
    "diff_lines",
    "duration_text",
    "interval_texts",
    "link",
    "number_text",
    "percent_text",
    "ref_label",
    "ref_url",
    "relative_time",
    "spark_path",
    "state_tone",
]

MISSING = "–"

# Tone → the words that have it. A tone fixes colour and shape; a word that stands nowhere is `unknown`, which is grey:
# a state nobody has classified must never look healthy.
_WORDS = {
    "ok": """healthy, ready, succeeded, finished, passed, fresh, serving, active, promoted, resolved, approved, better,
        ok, steady, available, cached, settled, published, watching, alive, champion, not worse, kept, fixed, same""",
    "busy": """running, started, starting, progressing, rolling out, training, materialising, canary, checking,
        evaluating, retraining, deploying, challenger, incubating, added""",
    "warn": """waiting, queued, pending, blocked, approval needed, degraded, drifting, stale, held, holding, late,
        quarantined, moved on, no evidence, retrying, warning, exceeded, split, released, deprecated, removed, shifted,
        another, other type, changed, unresolved, not shown, looks personal, open, loosened""",
    "bad": """failed, unhealthy, firing, decayed, disagrees, rolled back, breached, error, refused, worse, corrupt,
        unavailable, missing, rejected, dead, lost, broken""",
    "off": """stopped, paused, cancelled, canceled, archived, skipped, silenced, retired, deleted, disabled, expired,
        dropped, proposed, hidden, withdrawn, reported""",
}
STATE_TONES = {tone: tuple(word.strip() for word in words.split(",")) for tone, words in _WORDS.items()}
_TONE_BY_WORD = {word: tone for tone, words in STATE_TONES.items() for word in words}

_PAGES = {
    "run": "/runs",
    "experiment": "/experiments",
    "dataset": "/data",
    "data": "/data",
    "data-product": "/data/products",
    "labels": "/data/labels",
    "feature-view": "/features",
    "feature": "/features",
    "feature-service": "/feature-services",
    "pipeline": "/pipelines",
    "trigger": "/pipelines/triggers",
    "model": "/models",
    "deployment": "/deployments",
    "monitor": "/monitors",
    "alert": "/monitors/alerts",
    "event": "/journal",
    "prediction": "/predictions",
    "user": "/settings/people",
}


# Below /data these are pages of their own; a dataset that is called so stands at /datasets.
_TAKEN = frozenset({"products", "labels"})


def state_tone(word: str) -> str:
    """Return `ok`, `busy`, `warn`, `bad`, `off` or `unknown` for a state's word, whatever its case."""
    return _TONE_BY_WORD.get(word.strip().lower().replace("_", " ").replace("-", " "), "unknown")


def number_text(value: float | None, digits: int = 3) -> str:
    """Return a number with `digits` significant digits, whole numbers with all of theirs.

    >>> number_text(0.71234), number_text(48210), number_text(0.0000412), number_text(1234567.8), number_text(None)
    ('0.712', '48,210', '4.12e-5', '1,230,000', '–')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return _fixed(value, _decimals(value, digits))


def interval_texts(value: float | None, low: float, high: float, digits: int = 3) -> tuple[str, str, str]:
    """Return value, low and high, all with as many decimals as the value: `('0.712', '0.701', '0.723')`."""
    size = value if value else max(abs(low), abs(high))
    decimals = _decimals(size, digits)
    return (MISSING if value is None else _fixed(value, decimals), _fixed(low, decimals), _fixed(high, decimals))


def _decimals(value: float, digits: int) -> int:
    """Decimals that leave `digits` significant ones; below zero it rounds to tens, hundreds and so on."""
    if not value:
        return digits - 1
    rounded = float(f"{abs(value):.{digits - 1}e}")  # 0.9999 is shown as 1.00 and not as 1.000
    return digits - 1 - math.floor(math.log10(rounded))


def _fixed(value: float, decimals: int) -> str:
    if value and abs(value) < 1e-4:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{mantissa}e{int(exponent)}".replace("-", "−", 1 if value < 0 else 0)
    return f"{round(value, decimals):,.{max(decimals, 0)}f}".replace("-", "−")


def count_text(value: int | None) -> str:
    """Return a count for a narrow place: `940`, `48.2k`, `1.23M`, `5.1G`."""
    if value is None:
        return MISSING
    if abs(value) < 10_000:
        return f"{value:,}"
    size = float(value)
    for unit in ("k", "M", "G"):
        size /= 1000
        if abs(size) < 999.5 or unit == "G":
            return f"{size:.3g}{unit}"
    return str(value)


def bytes_text(size_bytes: int | None) -> str:
    """Return a size in decimal units, as disks and networks count: `812 B`, `4.1 MB`."""
    if size_bytes is None:
        return MISSING
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 999.5 or unit == "TB":
            break
        size /= 1000
    return f"{size:.3g} {unit}"


def percent_text(share: float | None) -> str:
    """Return a share between 0 and 1 as a percentage with at most three digits: `70 %`, `33.3 %`."""
    return MISSING if share is None else f"{share * 100:.3g} %"


def duration_text(seconds: float | None) -> str:
    """Return a span in its two largest units: `41 ms`, `8.2 s`, `4 min 10 s`, `2 h 5 min`, `3 d 4 h`."""
    if seconds is None:
        return MISSING
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 59.95:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    for size, unit, smaller, small_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {small_unit}" if rest else "")
    return f"{whole} s"


# From how many seconds on, counted in units of how many seconds, called what. Months begin at two of them.
_AGES = (
    (31_556_952, 31_556_952, "y"),
    (5_259_492, 2_629_746, "mo"),
    (86_400, 86_400, "d"),
    (3_600, 3_600, "h"),
    (60, 60, "min"),
    (1, 1, "s"),
)


def relative_time(instant: datetime, now: datetime) -> str:
    """Return how long ago (or how soon) an instant is: `just now`, `3 min ago`, `in 2 h`, `5 d ago`, `4 mo ago`."""
    seconds = (now - instant).total_seconds()
    span = abs(seconds)
    if span < 10:
        return "just now"
    size, unit = next((size, unit) for least, size, unit in _AGES if span >= least)
    text = f"{int(span // size)} {unit}"
    return f"{text} ago" if seconds > 0 else f"in {text}"


def exact_time(instant: datetime) -> str:
    """Return the instant in UTC as the title of a time that no script has yet put into the reader's zone."""
    return instant.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def as_ref(reference: Ref | str) -> Ref:
    """Return a reference given as one or as text (`model/late@2`)."""
    return reference if isinstance(reference, Ref) else ref(reference)


def ref_url(reference: Ref | str) -> str:
    """Return the page of whatever is referred to; a kind without pages of its own is shown by its lineage.

    >>> ref_url("model/late@2"), ref_url("run/41f3a2b1"), ref_url("policy/production")
    ('/models/late/2', '/runs/41f3a2b1', '/lineage/policy/production')
    """
    named = as_ref(reference)
    if named.kind == "quarantine":  # batches that were kept aside stand beside the dataset's good versions
        return "/quarantine/" + quote(str(named).partition("/")[2], safe="@")
    if named.kind == "controller":
        return "/journal?actor=" + quote(str(named), safe="")
    if named.kind not in _PAGES:
        return "/lineage/" + quote(str(named), safe="/@")
    version = "" if named.version is None else f"/{quote(named.version)}"
    if named.kind == "dataset" and named.name in _TAKEN:
        return f"/datasets/{quote(named.name)}{version}"
    return f"{_PAGES[named.kind]}/{quote(named.name)}{version}"


def ref_label(reference: Ref | str) -> str:
    """Return a reference as it reads in a sentence: `late@2`, `run 41f3a2b1`, `deployment/late`, `alice`."""
    named = as_ref(reference)
    return named.name if named.kind in ("user", "role") else named.short


def link(url: str, **changes: object) -> str:
    """Return `url` with query parameters set, or removed where the new value is None.

    >>> link("/runs?sort=-auc&page=3", sort="auc", page=None)
    '/runs?sort=auc'
    """
    parts = urlsplit(url)
    kept = [(key, value) for key, value in parse_qsl(parts.query, keep_blank_values=True) if key not in changes]
    query = urlencode(kept + [(key, str(value)) for key, value in changes.items() if value is not None])
    return parts._replace(query=query).geturl()


def arms(names: Iterable[str], champion: str | None = None) -> dict[str, int]:
    """Return the colour number of each variant: 0 for the champion, 1 to 7 for the others, in the order of their names.

    Call it once a page and hand the numbers to every chart, so that a variant has one colour all over the page.
    """
    others = sorted(set(names) - {champion})
    numbered = {name: 1 + position % 7 for position, name in enumerate(others)}
    return numbered if champion is None else {champion: 0, **numbered}


def spark_path(values: Sequence[float | None], width: float = 100, height: float = 24) -> str:
    """Return the SVG path of a small curve through `values` (n numbers; None leaves a gap) in a box of that size."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    if not known:
        return ""
    low, high = min(known), max(known)
    scale = (height - 4) / (high - low) if high > low else 0.0
    step = width / max(len(values) - 1, 1)
    path, pen_down = [], False
    for position, value in enumerate(values):
        if value is None or not math.isfinite(value):
            pen_down = False
            continue
        y = height - 2 - (value - low) * scale if scale else height / 2
        path.append(f"{'L' if pen_down else 'M'}{position * step:.4g} {y:.4g}")
        pen_down = True
    return "".join(path)


def diff_lines(before: Any, after: Any, context: int = 3) -> list[tuple[str, str]]:
    """Return (sign, text) for each line of a difference: `+` added, `-` removed, space kept, `…` lines left out.

    Texts are compared by line; anything else as the YAML that a user would have written.
    """
    old, new = ((value if isinstance(value, str) else _yaml(value)).splitlines() for value in (before, after))
    marked: list[tuple[str, str]] = []
    for line in list(difflib.unified_diff(old, new, lineterm="", n=context))[2:]:
        if not line.startswith("@@"):
            marked.append((line[0], line[1:]))
        elif marked:
            marked.append(("…", ""))
    return marked


def _yaml(value: Mapping[str, Any] | Sequence[Any] | None) -> str:
    import yaml  # here because most pages show no difference and a first paint should not wait for it

    return "" if value is None else str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100))
