"""What a file is and what it looks like: format by its first bytes, size, brightness, length, language.

Pure functions of bytes; `files` calls them. Whatever cannot be opened is described as such and never an exception: a
broken image among a million is a row with a `problem`, which a contract can forbid.
"""

from __future__ import annotations

import io
import warnings
import wave
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from flyball.errors import MissingExtra

if TYPE_CHECKING:
    import polars as pl

__all__ = ["FACTS", "describe", "described_texts", "language_of", "media_type_of"]

# What `describe` tells, beside the media type; null where it does not apply.
FACTS: Mapping[str, str] = {
    "width": "Int64",  # pixels
    "height": "Int64",  # pixels
    "mode": "String",  # of an image: L, RGB, RGBA, P, …
    "brightness": "Float64",  # mean luma, 0 black to 1 white
    "contrast": "Float64",  # standard deviation of the luma
    "characters": "Int64",
    "words": "Int64",
    "lines": "Int64",
    "language": "String",  # ISO 639-1
    "duration_s": "Float64",
    "sample_rate": "Int64",  # samples a second
    "channels": "Int64",
    "problem": "String",
}

_MAGIC: tuple[tuple[bytes, int, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", 0, "image/png"),
    (b"\xff\xd8\xff", 0, "image/jpeg"),
    (b"GIF8", 0, "image/gif"),
    (b"BM", 0, "image/bmp"),
    (b"II*\x00", 0, "image/tiff"),
    (b"MM\x00*", 0, "image/tiff"),
    (b"WEBP", 8, "image/webp"),
    (b"WAVE", 8, "audio/wav"),
    (b"ID3", 0, "audio/mpeg"),
    (b"fLaC", 0, "audio/flac"),
    (b"OggS", 0, "audio/ogg"),
    (b"ftyp", 4, "video/mp4"),
    (b"%PDF-", 0, "application/pdf"),
    (b"PK\x03\x04", 0, "application/zip"),
    (b"\x1f\x8b", 0, "application/gzip"),
    (b"PAR1", 0, "application/vnd.apache.parquet"),
)
_MOST_PIXELS = 100_000_000  # an image that says it is larger is not opened: a small file may unpack to gigabytes
_MOST_TEXT = 1_000_000  # bytes from which a language is guessed
_LEAST_TEXT = 20  # characters below which a guess would be noise


class _Image(NamedTuple):
    width: int
    height: int
    mode: str
    brightness: float
    contrast: float


def media_type_of(head: bytes) -> str:
    """Return the media type by the first 64 bytes or more: never by the name, which anyone can give."""
    for magic, at, word in _MAGIC:
        if head[at : at + len(magic)] == magic:
            return word
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "text/plain"
    if b"\x00" in head[:4096]:
        return "application/octet-stream"
    try:
        text = head[:4096].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start < len(head[:4096]) - 4:  # not merely cut in the middle of a character
            return "application/octet-stream"
        text = head[: error.start].decode("utf-8-sig")
    return "application/json" if text.lstrip()[:1] in ("{", "[") else "text/plain"


def describe(data: bytes) -> dict[str, Any]:
    """Return `media_type` and the `FACTS` of a file's bytes.

    Raises:
        MissingExtra: it is an image or a text, and what describes those is not installed.
    """
    found: dict[str, Any] = {"media_type": media_type_of(data[:4200]), **dict.fromkeys(FACTS)}
    kind = found["media_type"].partition("/")[0]
    teller: Callable[[bytes], dict[str, Any]] | None = {"image": _image, "text": _text}.get(kind)
    if found["media_type"] == "audio/wav":
        teller = _wav
    if found["media_type"] == "application/json":
        teller = _text
    if not data:
        found["problem"] = "the file is empty"
    elif teller is not None:
        try:
            found.update(teller(data))
        except MissingExtra:
            raise
        except Exception as error:  # whatever a decoder says to hostile bytes
            found["problem"] = f"{kind} cannot be read: {str(error)[:120] or type(error).__name__}"
    return found


def language_of(texts: Iterable[str | None]) -> list[str | None]:
    """Return the language of each text as an ISO 639-1 code; None for no text or one too short to tell.

    Raises:
        MissingExtra: `flyball[text]` is not installed.
    """
    classify = _classifier()
    return [None if text is None or len(text.strip()) < _LEAST_TEXT else classify(text[:_MOST_TEXT]) for text in texts]


def described_texts(frame: pl.LazyFrame, columns: Iterable[str]) -> pl.LazyFrame:
    """Return a table with `<column>_characters`, `_words` and `_language` beside each text column, lazily."""
    import polars as pl

    added = []
    for column in columns:
        value = pl.col(column)
        added += [
            value.str.len_chars().cast(pl.Int64).alias(f"{column}_characters"),
            value.str.count_matches(r"\S+").cast(pl.Int64).alias(f"{column}_words"),
            value.map_batches(
                lambda texts: pl.Series(language_of(texts.to_list()), dtype=pl.String), return_dtype=pl.String
            ).alias(f"{column}_language"),
        ]
    return frame.with_columns(added)


def _image(data: bytes) -> dict[str, Any]:
    try:
        from PIL import Image, ImageStat
    except ImportError as error:
        raise MissingExtra("Pillow", "images", "describing images") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of size: ours comes first
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise ValueError(f"it has {image.width} × {image.height} pixels; at most {_MOST_PIXELS} are opened")
            mode, size = image.mode, (image.width, image.height)
            image.draft("L", (512, 512))  # a JPEG need not be unpacked whole to know how bright it is
            luma = ImageStat.Stat(image.convert("L"))
    return _Image(*size, mode, luma.mean[0] / 255, luma.stddev[0] / 255)._asdict()


def _text(data: bytes) -> dict[str, Any]:
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    text = data.decode(encoding)
    return {
        "characters": len(text),
        "words": len(text.split()),
        "lines": len(text.splitlines()),
        "language": language_of([text])[0],
    }


def _wav(data: bytes) -> dict[str, Any]:
    with wave.open(io.BytesIO(data)) as sound:
        rate = sound.getframerate()
        return {
            "duration_s": sound.getnframes() / rate,
            "sample_rate": rate,
            "channels": sound.getnchannels(),
        }


@cache
def _classifier() -> Callable[[str], str]:
    try:
        import py3langid
    except ImportError as error:
        raise MissingExtra("py3langid", "text", "telling the language of texts") from error
    return lambda text: str(py3langid.classify(text)[0])
