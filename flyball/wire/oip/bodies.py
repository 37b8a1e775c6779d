"""Bodies of requests as they were before the client compressed them, and the fields of plain JSON requests."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from flyball.clock import parse_instant
from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.serving.questions import Question
from flyball.tracking.predictions import Label
from flyball.wire.oip.refusals import TooLarge, UnknownCoding

__all__ = ["accepted_coding", "compressed", "decompressed", "labels_of", "question_of"]

_NEVER = re.compile(rb"q\s*=\s*0(\.0*)?")
_PREDICT_FIELDS = ("records", "columns", "key", "at", "variant", "version", "explain", "approximate")
_LABEL_FIELDS = ("id", "prediction_id", "label", "at", "source")


def decompressed(body: bytes, coding: bytes, limit_bytes: int) -> bytes:
    """Return a body without its Content-Encoding (RFC 9110 §8.4.1); `deflate` is zlib, or raw as some clients send it.

    Raises:
        TooLarge: more than `limit_bytes` came out; nothing beyond that was kept in memory.
        UnknownCoding, InvalidInput: it is compressed otherwise, or damaged.
    """
    name = coding.strip().lower()
    if name in (b"", b"identity"):
        return body
    if name not in (b"gzip", b"x-gzip", b"deflate"):
        raise UnknownCoding(f"the content coding {coding[:40].decode('latin-1')!r} is not known; send gzip or deflate")
    windows = 31 if name != b"deflate" else 15 if body[:1] and body[0] & 0x0F == 8 else -15
    found: list[bytes] = []
    room = limit_bytes
    try:
        while body:  # gzip may have several members
            inflater = zlib.decompressobj(windows)
            part = inflater.decompress(body, room + 1)
            room -= len(part)
            if room < 0:
                raise TooLarge(f"the body has more than {limit_bytes} bytes when decompressed; send it in parts")
            found.append(part)
            if not inflater.eof:
                raise InvalidInput(f"the {name.decode()} body ends too early; send all of it")
            body = inflater.unused_data if windows == 31 else b""
    except zlib.error as error:
        raise InvalidInput(f"the body is not {name.decode()}: {error}") from None
    return b"".join(found)


def accepted_coding(accepted: bytes) -> str | None:
    """Return gzip or deflate as an Accept-Encoding header allows (RFC 9110 §12.5.3), None for neither."""
    allowed = set()
    for part in accepted.lower().split(b","):
        coding, *parameters = (piece.strip() for piece in part.split(b";"))
        if not any(_NEVER.fullmatch(parameter) for parameter in parameters):
            allowed.add(coding)
    return "gzip" if b"gzip" in allowed else "deflate" if b"deflate" in allowed else None


def compressed(body: bytes, coding: str) -> bytes:
    """Return a body in the content coding gzip or deflate, quickly rather than small."""
    return gzip.compress(body, 1, mtime=0) if coding == "gzip" else zlib.compress(body, 1)


def question_of(deployment: str, body: bytes) -> Question:
    """Read a request for predictions: `{"records": […]}`, `{"columns": {…}}`, a list of records, or one record.

    With `records` or `columns` may stand `key` (routes all rows), `at` (RFC 3339: whose features), `variant`,
    `version`, `explain`, `approximate`.

    Raises:
        InvalidInput: it is none of these.
    """
    document = _json(body)
    if isinstance(document, list):
        return Question(deployment, records=document)
    if not isinstance(document, dict):
        raise InvalidInput('the request is neither an object nor a list; send {"records": [{…}]} or one record')
    if "records" not in document and "columns" not in document:
        return Question(deployment, records=[document])
    _only(document, _PREDICT_FIELDS, "the request")
    if "records" in document and "columns" in document:
        raise InvalidInput("the request has both records and columns; send one of them")
    if "columns" in document and not isinstance(document["columns"], dict):
        raise InvalidInput("the columns are not an object; send {name: [values]}")
    key = document.get("key")
    if isinstance(key, bool) or not isinstance(key, str | int | None):
        raise InvalidInput('"key" is neither text nor a whole number')
    return Question(
        deployment,
        records=document.get("records", None if "columns" in document else []),
        columns=document.get("columns"),
        key=None if key is None else str(key),
        variant=_text(document, "variant"),
        version=_text(document, "version"),
        at=_instant(document),
        explain=_yes(document, "explain"),
        is_approximate=_yes(document, "approximate"),
    )


def labels_of(body: bytes, now: datetime) -> list[Label]:
    """Read labels: `{"id": …, "label": …, "at"?, "source"?}`, or a list of these, alone or as `{"labels": […]}`.

    Raises:
        InvalidInput: one of them is wrong; then none is taken.
    """
    document = _json(body)
    if isinstance(document, dict) and "labels" in document:
        _only(document, ("labels",), "the request")
        document = document["labels"]
    given: Sequence[Any] = document if isinstance(document, list) else [document]
    if not given:
        raise InvalidInput("there are no labels in the request; expected at least one")
    return [_label(row, value, now) for row, value in enumerate(given)]


def _label(row: int, value: object, now: datetime) -> Label:
    if not isinstance(value, dict):
        raise InvalidInput(f'label {row} is not an object; send {{"id": …, "label": …}}')
    _only(value, _LABEL_FIELDS, f"label {row}")
    if "label" not in value or ("id" in value) == ("prediction_id" in value):
        raise InvalidInput(f'label {row} needs "label" and the prediction\'s "id"')
    identity = value.get("id", value.get("prediction_id"))
    if not isinstance(identity, str):
        raise InvalidInput(f'the id of label {row} is not a text; send the "id" that came with the prediction')
    return Label(identity, value["label"], _instant(value) or now, _text(value, "source") or "")


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the request is not JSON: {error}") from None


def _only(document: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for name in document:
        if name not in known:
            raise InvalidInput(
                f'{where} has an unknown field "{name[:60]}"{did_you_mean(name, known)} (known: {listed(known)})'
            )


def _text(document: Mapping[str, Any], name: str) -> str | None:
    value = document.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidInput(f'"{name}" is not a text')
    return value


def _yes(document: Mapping[str, Any], name: str) -> bool:
    value = document.get(name, False)
    if not isinstance(value, bool):
        raise InvalidInput(f'"{name}" is neither true nor false')
    return value


def _instant(document: Mapping[str, Any]) -> datetime | None:
    text = _text(document, "at")
    return None if text is None else parse_instant(text)
