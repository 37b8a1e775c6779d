"""How commands print: tables and sections for people, one JSON document for programs, progress on stderr.

Names that somebody chose are never read as markup or as terminal control codes.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flyball.clock import SYSTEM

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["ago", "emit", "heading", "more", "note", "say", "state", "table", "working", "yaml_text"]

Cell = Any  # text, or rich's Text; None shows as a dash

_WIDE = 100_000  # a table that is not on a terminal is never cut
_SHOWN_AFTER_S = 2.0  # progress is shown on work that takes longer than this
_TONES = {
    "ok": ("●", "green"),
    "busy": ("◐", "cyan"),
    "warn": ("▲", "yellow"),
    "bad": ("✖", "red"),
    "off": ("○", "dim"),
    "unknown": ("·", "dim"),
}


def emit(document: Any) -> None:
    """Print a JSON document."""
    from flyball.wire.native.values import encode

    say(encode(document, indent=True).decode())


def say(text: str = "") -> None:
    """Print a line to stdout."""
    print(_clean(text))


def note(text: str) -> None:
    """Print a line that is not the answer: to stderr."""
    print(_clean(text), file=sys.stderr)


def heading(text: str) -> None:
    """Print the title of a section."""
    from rich.text import Text

    _console().print(Text(f"\n{_clean(text)}", "bold"))


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell]], empty: str = "nothing") -> None:
    """Print rows under column titles; `empty` is said when there are none."""
    from rich.table import Table
    from rich.text import Text

    found = [[c if isinstance(c, Text) else Text(_cell(c)) for c in row] for row in rows]
    if not found:
        note(empty)
        return
    console = _console()
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim" if console.is_terminal else "")
    for number, title in enumerate(columns):
        drawn.add_column(title.upper(), overflow="fold" if number == len(columns) - 1 else "ellipsis", no_wrap=False)
    for row in found:
        drawn.add_row(*row)
    with console.capture() as printed:
        console.print(drawn)
    print("\n".join(line.rstrip() for line in printed.get().splitlines()))


def state(word: str) -> Text:
    """Return a state with its shape and colour."""
    from rich.text import Text

    from flyball.web.formats import state_tone

    shape, colour = _TONES[state_tone(word)]
    return Text(f"{shape} {_clean(word)}", colour)


def ago(instant: datetime | None) -> str:
    """Return how long ago an instant was."""
    from flyball.web.formats import relative_time

    return relative_time(instant, SYSTEM.now()) if instant is not None else "–"


def more(next: str | int | None) -> None:
    """Say how the listing goes on."""
    if next is not None:
        note(f"there is more: --before {next}")


def yaml_text(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """Return a value as YAML."""
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110)).rstrip()


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show on a terminal's stderr what is being done and for how long, once it has taken two seconds."""
    if not sys.stderr.isatty():
        yield
        return
    shown: list[Any] = []
    is_over = False
    lock = threading.Lock()

    def show() -> None:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        progress = Progress(*columns, console=Console(stderr=True), transient=True)
        with lock:
            if not is_over:
                progress.start()
                progress.add_task(what, total=None)
                shown.append(progress)

    timer = threading.Timer(_SHOWN_AFTER_S, show)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        with lock:
            is_over = True
            for progress in shown:
                progress.stop()


def _console() -> Any:
    from rich.console import Console

    is_terminal = sys.stdout.isatty()
    return Console(width=None if is_terminal else _WIDE, highlight=False, markup=False, emoji=False, soft_wrap=False)


def _cell(value: Cell) -> str:
    return "–" if value is None or value == "" else _clean(str(value))


def _clean(text: str) -> str:
    """Return text without control codes (Unicode's Cc) but line ends and tabs."""
    return "".join(c if c in "\n\t" or not (ord(c) < 32 or 127 <= ord(c) < 160) else "�" for c in text)
