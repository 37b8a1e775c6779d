"""What a run logs besides numbers, as the bytes of a file: tables and figures.

Libraries that draw are recognised by what their figures can do, and never imported from here.
"""

from __future__ import annotations

import io
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import orjson

from flyball.data.sources._memory import open_table
from flyball.errors import InvalidInput, listed

if TYPE_CHECKING:
    import polars as pl

__all__ = ["figure_file", "table_file"]

_MOST_JSON_ROWS = 100_000  # a page reads the whole file
_STARTS = {
    b"\x89PNG": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"GIF8": ".gif",
    b"%PDF": ".pdf",
    b"<svg": ".svg",
    b"<?xml": ".svg",
}
_DRAWN = (".png", ".jpg", ".jpeg", ".svg", ".pdf", ".webp")
_PAGES = (".html", ".htm")


def table_file(name: str, frame: Any) -> tuple[str, bytes]:
    """Return the path and the bytes of a table: `.parquet` when the name says so, else `.json` as MLflow's tables.

    Args:
        name: `predictions`, `eval/predictions.json`, `predictions.parquet`.
        frame: a Polars, pandas or Arrow frame, records, or `{column: values}`.

    Raises:
        InvalidInput: it is no table, the name has another suffix, or JSON would have more than 100,000 rows.
    """
    rows: pl.DataFrame = open_table(frame).collect()
    suffix = PurePosixPath(name).suffix.lower()
    if suffix == ".parquet":
        kept = io.BytesIO()
        rows.write_parquet(kept)
        return name, kept.getvalue()
    if suffix not in ("", ".json"):
        raise InvalidInput(
            f"a table is kept as .json or .parquet, not as {suffix}; name it {name.removesuffix(suffix)}.json"
        )
    if rows.height > _MOST_JSON_ROWS:
        raise InvalidInput(
            f"the table has {rows.height:,} rows; as JSON it may have {_MOST_JSON_ROWS:,}: name it {name}.parquet"
        )
    split = {"columns": rows.columns, "data": [list(row) for row in rows.iter_rows()]}
    data = orjson.dumps(split, default=str, option=orjson.OPT_SERIALIZE_NUMPY)
    return (name if suffix else f"{name}.json"), data


def figure_file(name: str, figure: Any) -> tuple[str, bytes]:
    """Return the path and the bytes of a figure; the name's suffix says the format.

    Args:
        name: `roc.png`; without a suffix matplotlib's become `.png`, Plotly's `.html`, bytes what they begin as.
        figure: a figure (or axes) of matplotlib, a figure of Plotly, an image of Pillow, or bytes.

    Raises:
        InvalidInput: it is none of these, or cannot be written in this format.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if isinstance(figure, bytes | bytearray):
        begun = next((found for start, found in _STARTS.items() if bytes(figure[:200]).lstrip().startswith(start)), "")
        if not suffix and not begun:
            raise InvalidInput(
                f"the format of {name!r} cannot be told from its bytes; name it with a suffix, {name}.png"
            )
        return name if suffix else name + begun, bytes(figure)
    if hasattr(figure, "to_html") and hasattr(figure, "to_plotly_json"):
        return _plotly(name, suffix, figure)
    drawn: Any = figure if hasattr(figure, "savefig") else getattr(figure, "figure", None)  # axes know their figure
    if drawn is not None and hasattr(drawn, "savefig"):
        kept = io.BytesIO()
        _written(name, lambda: drawn.savefig(kept, format=(suffix or ".png")[1:], bbox_inches="tight"))
        return name if suffix else f"{name}.png", kept.getvalue()
    if hasattr(figure, "save") and hasattr(figure, "getbands"):  # Pillow
        kept = io.BytesIO()
        form = {".jpg": "JPEG", "": "PNG"}.get(suffix, suffix[1:].upper())
        _written(name, lambda: figure.save(kept, format=form))
        return name if suffix else f"{name}.png", kept.getvalue()
    raise InvalidInput(
        f"a {type(figure).__name__} is no figure; give one of matplotlib or Plotly, an image of Pillow, or bytes"
    )


def _plotly(name: str, suffix: str, figure: Any) -> tuple[str, bytes]:
    if suffix in ("", *_PAGES):
        # with the library in it, since a page that is looked at later may have no network
        return (name if suffix else f"{name}.html"), figure.to_html(include_plotlyjs=True).encode()
    if suffix == ".json":
        return name, figure.to_json().encode()
    if suffix in _DRAWN:
        return name, bytes(_written(name, lambda: figure.to_image(format=suffix[1:])))
    raise InvalidInput(f"Plotly writes no {suffix}; expected {listed(['.html', '.json', *_DRAWN], 12)}")


def _written(name: str, write: Any) -> Any:
    try:
        return write()
    except (ValueError, KeyError, ImportError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InvalidInput(f"the figure {name!r} cannot be written: {reason}") from error
