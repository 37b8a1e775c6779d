"""The Jinja environment of the pages: escaping on, the formats as filters, and the headers that pages are sent with.

The web application makes one environment (`environment()`) and renders every page with it; `render_block` renders one
block of a page where htmx asks for a part. Nothing here asks the platform: values come in, text goes out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from flyball.clock import SYSTEM, Clock
from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.web import formats
from flyball.web.assets import asset

__all__ = [
    "CONTENT_SECURITY_POLICY",
    "NAVIGATION",
    "PAGE_HEADERS",
    "Destination",
    "environment",
    "json_for_script",
    "render",
    "render_block",
]

# Nothing inline and nothing from another host runs or styles: a name that somebody else chose (a run, a column, a tag)
# can then do no more harm than look odd. Data blocks (`<script type="application/json">`) are not executed and so stay
# allowed. `data:` and nonces are not needed by anything in the package.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "font-src 'self'",
        "connect-src 'self'",
        "manifest-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)

PAGE_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Content-Type": "text/html; charset=utf-8",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    # A page shows what its reader may see at this moment; a stored copy would outlive the permission.
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Destination:
    """An entry of the left navigation: `key` is the letter that follows `g`."""

    id: str
    label: str
    href: str
    icon: str
    key: str


NAVIGATION = (
    Destination("overview", "Overview", "/", "overview", "o"),
    Destination("runs", "Runs", "/runs", "run", "r"),
    Destination("traces", "Traces", "/traces", "thing", "t"),
    Destination("data", "Data", "/data", "dataset", "d"),
    Destination("features", "Features", "/features", "feature-view", "f"),
    Destination("pipelines", "Pipelines", "/pipelines", "pipeline", "p"),
    Destination("models", "Models", "/models", "model", "m"),
    Destination("approvals", "Approvals", "/approvals", "user", "a"),
    Destination("deployments", "Deployments", "/deployments", "deployment", "e"),
    Destination("monitors", "Monitors", "/monitors", "monitor", "w"),
    Destination("journal", "Journal", "/journal", "journal", "j"),
    Destination("settings", "Settings", "/settings", "settings", "s"),
)

_ICONS = frozenset(icon.icon for icon in NAVIGATION) | {
    "trigger",
    "alert",
    "environment",
    "policy",
    "user",
    "quarantine",
    "labels",
    "data-product",
    "external",
}


def environment(clock: Clock = SYSTEM, loader: jinja2.BaseLoader | None = None) -> jinja2.Environment:
    """Return the environment that every page is rendered with; a name that a template misspells is an error.

    `loader` is asked after the package's own templates (an extension's pages; the tests' gallery).
    """
    own = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    pages = jinja2.Environment(
        loader=own if loader is None else jinja2.ChoiceLoader([own, loader]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )

    def ago(instant: datetime) -> str:
        return formats.relative_time(instant, clock.now())

    pages.filters.update(
        number=formats.number_text,
        count=formats.count_text,
        bytes=formats.bytes_text,
        percent=formats.percent_text,
        duration=formats.duration_text,
        ago=ago,
        exact=formats.exact_time,
        script_json=json_for_script,
        pretty_json=pretty_json,
    )
    pages.globals.update(
        arms=formats.arms,
        asset=asset,
        diff_lines=formats.diff_lines,
        interval_texts=formats.interval_texts,
        kind_icon=_kind_icon,
        link=formats.link,
        navigation=NAVIGATION,
        as_ref=formats.as_ref,
        ref_label=formats.ref_label,
        ref_url=formats.ref_url,
        spark_path=formats.spark_path,
        state_tone=formats.state_tone,
    )
    return pages


def render(pages: jinja2.Environment, template: str, **values: Any) -> str:
    """Return a whole page; send it with `PAGE_HEADERS`.

    Raises:
        jinja2.UndefinedError: the template uses a value that was not given.
    """
    return pages.get_template(template).render(**values)


def render_block(pages: jinja2.Environment, template: str, block: str, **values: Any) -> str:
    """Return one block of a page, for a request of htmx that wants a part of it.

    Raises:
        InvalidInput: the template has no such block.
    """
    source = pages.get_template(template)
    if block not in source.blocks:
        raise InvalidInput(
            f'template {template} has no block "{block}"{did_you_mean(block, source.blocks)}; '
            f"it has {listed(source.blocks)}"
        )
    return "".join(source.blocks[block](source.new_context(values)))


def json_for_script(value: Any) -> Markup:
    """Return `value` as JSON that can stand inside `<script type="application/json">` whatever its texts hold.

    Times become RFC 3339, other objects their text; NaN and infinities, which JSON lacks, become null.
    """
    text = json.dumps(_plain(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    # `</script>` and `<!--` end or change a script element whatever its type (HTML, 13.2.5.4 and on).
    safe = text.replace("<", "\\u003c").replace(">", "\\u003e")
    return Markup(safe)


def pretty_json(value: Any) -> str:
    """Return `value` as JSON indented by two, for people."""
    return json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    """Return `value` in JSON's own types."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else None  # false for NaN and both infinities
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # a numpy scalar or array
        return _plain(value.tolist())
    return str(value)


def _kind_icon(kind: str) -> str:
    if kind in ("feature", "feature-service"):
        return "feature-view"
    return kind if kind in _ICONS else "thing"
