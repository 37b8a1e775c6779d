"""CSV's text as blocks of whole records, each checked: as many fields as the header has, quotes where they belong.

The check is arithmetic over all bytes of a block at once (which separators and line ends stand outside quotes), so it
costs less than parsing; Polars parses afterwards what is known to be sound. Called by `_csv`.

The rules are those of RFC 4180, with LF as well as CRLF: a field with a separator, a line break or a quote stands in
quotes, and a quote in it is doubled. Blank lines are no records, but where there is one column only, and they are
empty values of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyball.errors import InvalidInput

if TYPE_CHECKING:
    import numpy as np

__all__ = ["sound", "whole_records"]

_LONGEST_BYTES = 64 * 1024 * 1024  # of one record: beyond, a quote was most likely left open
_LF, _CR, _QUOTE = 10, 13, 34


def whole_records(path: Path, blocks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield (number of its first line, whole records) from blocks of text; the last record may lack its line end.

    Raises:
        InvalidInput: a quote is never closed.
    """
    line, rest = 1, b""
    for block in blocks:
        text = rest + block
        end = _last_record_end(text)
        if end:
            yield line, text[:end]
            line += text.count(b"\n", 0, end)
        rest = text[end:]
        if len(rest) > _LONGEST_BYTES:
            raise _unclosed(path, line, rest)
    if rest:
        if rest.count(b'"') % 2:
            raise _unclosed(path, line, rest)
        yield line, rest + b"\n"


def sound(path: Path, line: int, records: bytes, width: int, separator: str) -> bytes:
    """Return the records without blank lines.

    Raises:
        InvalidInput: a record has more or fewer fields than `width`, or a quote stands in the middle of a field; the
            message names its line, counted from `line`.
    """
    import numpy as np

    data = np.frombuffer(records, np.uint8)
    ends, separators = data == _LF, data == ord(separator)
    if b'"' in records:
        inside = _inside(data)
        _refuse_stray_quotes(path, line, data, inside, ord(separator))
        ends &= ~inside
        separators &= ~inside
    at = np.flatnonzero(ends)
    starts = np.concatenate(([0], at[:-1] + 1))
    fields = np.diff(np.searchsorted(np.flatnonzero(separators), at), prepend=0) + 1
    wrong = np.flatnonzero(fields != width)
    if width == 1 and not len(wrong):
        return records
    lengths = at - starts
    is_blank = (lengths == 0) | ((lengths == 1) & (data[starts] == _CR))
    for record in wrong:
        if not is_blank[record]:
            where = line + records.count(b"\n", 0, int(starts[record]))
            count = int(fields[record])
            raise InvalidInput(
                f"line {where} of {path} has {count} field{'s' * (count != 1)}, the header has {width}; "
                "quote values that contain the separator, and give every record all its fields"
            )
    if not is_blank.any() or width == 1:
        return records
    keep = np.ones(len(data), bool)
    for record in np.flatnonzero(is_blank):
        keep[starts[record] : at[record] + 1] = False
    return data[keep].tobytes()


def _last_record_end(text: bytes) -> int:
    if b'"' not in text:
        return text.rfind(b"\n") + 1
    import numpy as np

    data = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero((data == _LF) & ~_inside(data))
    return int(ends[-1]) + 1 if len(ends) else 0


def _inside(data: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return for each byte whether it stands in quotes; an opening quote does, a closing one does not."""
    import numpy as np

    # The count wraps around at 256, which keeps whether it is odd.
    odd: np.ndarray[Any, np.dtype[np.bool_]] = (np.add.accumulate(data == _QUOTE, dtype=np.uint8) & 1).astype(bool)
    return odd


def _refuse_stray_quotes(
    path: Path,
    line: int,
    data: np.ndarray[Any, np.dtype[np.uint8]],
    inside: np.ndarray[Any, np.dtype[np.bool_]],
    separator: int,
) -> None:
    import numpy as np

    quotes = np.flatnonzero(data == _QUOTE)
    opening = quotes[inside[quotes]]
    closing = quotes[~inside[quotes]]
    before = data[np.maximum(opening - 1, 0)]
    good_start = (opening == 0) | np.isin(before, (_LF, separator, _QUOTE))
    after = data[np.minimum(closing + 1, len(data) - 1)]
    good_end = (closing == len(data) - 1) | np.isin(after, (_LF, _CR, separator, _QUOTE))
    stray = np.concatenate((opening[~good_start], closing[~good_end]))
    if len(stray):
        where = line + int(np.count_nonzero(data[: int(stray.min())] == _LF))
        raise InvalidInput(
            f"line {where} of {path} has a quote in the middle of a field; put the field in quotes and double the "
            'quotes in it ("5"" pipe")'
        )


def _unclosed(path: Path, line: int, rest: bytes) -> InvalidInput:
    where = line + rest.count(b"\n", 0, rest.rfind(b'"') if rest.count(b'"') % 2 else 0)
    return InvalidInput(f"a quote that opens in line {where} of {path} is never closed; close it, or double it")
