"""Sending recorded requests to a server, and making two servers' answers comparable: ids, times and random names
differ between them and stand as their names in braces; what has no order is sorted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["Answer", "Send", "play"]

Answer = dict[str, Any]  # status, body: a document or text
Send = Callable[[str, str, list[tuple[str, str]], bytes | None, dict[str, str]], tuple[int, str]]

_TIMES = frozenset({"creation_time", "last_update_time", "creation_timestamp_ms", "last_updated_timestamp_ms"}) | {
    "end_time",
    "creation_timestamp",
    "last_updated_timestamp",
}
_LONG_AGO = 1_750_000_000_000  # milliseconds; times that the requests say are before it
_WRITTEN_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}")
_UNSORTED = frozenset({"data", "experiment", "info", "latest_versions"}) | {  # in which lists of tags have no order
    "model_version", "model_versions", "registered_model", "registered_models"
}  # fmt: skip
_RANDOM_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")
_ID = re.compile(r"(?<![0-9a-f])(?:[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?![0-9a-f])")


def play(send: Send, steps: list[dict[str, Any]]) -> Iterator[Answer]:
    """Send the requests of one scenario one after the other; return the answers, comparable.

    Args:
        send: takes method, path, query, body and headers; returns status and body.
        steps: as `asked_of_runs.py` writes them.
    """
    known: dict[str, str] = {}
    names: dict[str, str] = {}  # of ids that answers gave
    for step in steps:
        headers, body = {}, None
        if "body" in step or "raw" in step:
            kind = step.get("kind", "application/json")
            headers = {"content-type": kind} if kind else {}
            text = step["raw"] if "raw" in step else "" if step["body"] is None else json.dumps(step["body"])
            body = _filled(text, known).encode()
        headers |= {name: _filled(value, known) for name, value in step.get("headers", {}).items()}
        query = [(key, _filled(value, known)) for key, value in step.get("query", [])]
        status, text = send(step["verb"], _filled(step["path"], known), query, body, headers)
        document = _document(text)
        for name, path in step["keep"].items():
            found = _at(document, path)
            if found is not None:
                known[name] = found
                if _ID.fullmatch(found):
                    names[found] = f"{{{name} {len(names)}}}"
        yield {"status": status, "body": _comparable(document, names)}


def _filled(text: str, known: Mapping[str, str]) -> str:
    for name, value in known.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def _document(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _at(document: Any, path: str) -> Any:
    for part in path.split("."):
        document = document.get(part) if isinstance(document, dict) else None
    return document


def _comparable(found: Any, names: Mapping[str, str], key: str = "", inside: str = "") -> Any:
    if isinstance(found, dict):
        return {k: _comparable(v, names, k, key) for k, v in found.items()}
    if isinstance(found, list):
        kept = [_comparable(item, names, key, key) for item in found]
        if inside in _UNSORTED or key == "dataset_summaries":
            return sorted(kept, key=lambda item: json.dumps(item, sort_keys=True))
        return kept
    if isinstance(found, str):
        text = _ID.sub(lambda match: names.get(match[0], "{id}" if len(set(match[0])) > 2 else match[0]), found)
        text = _WRITTEN_TIME.sub("{time}", text)
        return "{random name}" if _RANDOM_NAME.fullmatch(text) else text
    if isinstance(found, float) and found != found:
        return "NaN"
    return "{time}" if key in _TIMES and isinstance(found, int) and found > _LONG_AGO else found
