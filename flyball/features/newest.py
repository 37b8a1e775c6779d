"""The newest row of each entity, in the order in which online stores write fastest, whatever the size of the view.

Materialisation writes what this yields, so that an entity is written once, beside its neighbours. Rows come in the
order of time; what has been seen is kept as one row an entity, sorted by place, and goes to temporary files when it
outgrows a bound. The files are merged block by block at the end, and in between when they are many: an external merge
sort in which rows that are not the newest fall away (D. Knuth, *The Art of Computer Programming* 3, §5.4).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import polars as pl

from flyball.errors import Unavailable
from flyball.features.encoding import places
from flyball.features.runs import Read, Run, Tally, merged, reader_of
from flyball.features.specs import ViewSpec

__all__ = ["ORDER", "newest_in_order"]

ORDER = 1  # of what is yielded; raised whenever it changes, since who goes on after a crash counts rows of it
_PLACE = "__place"
_HELD_CELLS = 3_000_000  # some 24 MB, of which there are three copies for a moment
_MERGED_CELLS = 400_000  # of a block
_MOST_FILES = 8  # before they are merged into one; at least ten thousand rows of each are held then
_GROUP_ROWS = 16_384  # of a temporary file, the least that is read of it


def newest_in_order(frames: Iterable[pl.DataFrame], spec: ViewSpec, folder: Path) -> Iterator[pl.DataFrame]:
    """Yield the newest row of each entity, each once, in frames of any length.

    Of rows of one entity the later event stays, of the same event the later arrival, of the same arrival the one that
    came last. The order is that of `encoding.places`, then of the entities; it depends on the rows alone.

    Args:
        frames: the view's rows in the form of `FeatureView.check`, without nulls in entity and times.
        spec: the view's description.
        folder: where temporary files may be; what is written is at most some times the newest rows.

    Raises:
        Unavailable: the disk of the temporary files is full.
    """
    files = _Files(spec, folder)
    held: list[pl.DataFrame] = []
    for frame in frames:
        if not frame.height:
            continue
        held.append(_newest(_placed(frame, spec), spec))
        if sum(map(_cells, held)) > _HELD_CELLS:
            held = [_newest(pl.concat(held), spec)]
            if _cells(held[0]) > _HELD_CELLS // 2:  # fewer: most rows were not the newest, so that there is room again
                files.add(held)
                held = []
    if not files.runs:
        if held:
            yield _newest(pl.concat(held), spec).drop(_PLACE)
        return
    if held:
        files.add([_newest(pl.concat(held), spec)])
    del held
    for frame in files.merged():
        yield frame.drop(_PLACE)


class _Files:
    """Sorted files, those of earlier rows first."""

    def __init__(self, spec: ViewSpec, folder: Path) -> None:
        self._spec, self._folder, self._made = spec, folder, 0
        self.runs: list[tuple[Read, int, Run]] = []
        self._paths: list[Path] = []

    def add(self, frames: Iterable[pl.DataFrame]) -> None:
        """Keep frames that follow one another in the order of places."""
        if len(self.runs) == _MOST_FILES:
            whole = self._write(self.merged())
            before, self._paths, self.runs = self._paths, [], []
            self._enter(*whole)
            for path in before:
                path.unlink()
        self._enter(*self._write(frames))

    def merged(self) -> Iterator[pl.DataFrame]:
        """Yield the newest row of each entity in all files."""
        width = len(self._spec.features) + len(self._spec.entity) + 3
        for block in merged(self.runs, _PLACE, None, at_once=_MERGED_CELLS // width):
            yield _newest(block.frame, self._spec)

    def _enter(self, paths: list[Path], run: Run) -> None:
        self._paths += paths
        self.runs.append((reader_of(pl.scan_parquet(paths)), 0, run))

    def _write(self, frames: Iterable[pl.DataFrame]) -> tuple[list[Path], Run]:
        tally, paths = Tally(_PLACE), list[Path]()
        for frame in tally.over(frames):
            path = self._folder / f"{self._made:06d}.parquet"
            self._made += 1
            try:
                frame.write_parquet(path, compression="uncompressed", statistics=False, row_group_size=_GROUP_ROWS)
            except (OSError, pl.exceptions.PolarsError) as error:
                if getattr(error, "errno", None) == errno.ENOSPC or f"(os error {errno.ENOSPC})" in str(error):
                    raise Unavailable(
                        f"the disk of temporary files, {self._folder.parent}, is full; make room there or name another "
                        "folder in TMPDIR"
                    ) from error
                raise
            paths.append(path)
        run = tally.run(None)
        assert run is not None
        return paths, run


def _placed(frame: pl.DataFrame, spec: ViewSpec) -> pl.DataFrame:
    """Return rows with their places; of texts, whose places take time, the newest rows only."""
    if not all(frame.schema[name].is_integer() for name in spec.entity):
        order = [spec.event_time, *([spec.known_at] if spec.known_at else [])]
        if len(order) > 1 or not frame[spec.event_time].is_sorted():
            frame = frame.sort(order, maintain_order=True)
        frame = frame.unique(list(spec.entity), keep="last", maintain_order=True)
    return frame.with_columns(places(frame, spec.entity).alias(_PLACE))


def _newest(frame: pl.DataFrame, spec: ViewSpec) -> pl.DataFrame:
    """Return the newest row of each entity in the order of places, of equal places in that of the entities."""
    at = frame[_PLACE].to_numpy()
    order = np.argsort(at, kind="stable")  # quick where it is sorted already or consists of sorted pieces
    at = at[order]
    is_last = np.append(at[1:] != at[:-1], True)
    if is_last.all():
        return frame if bool((np.diff(order) == 1).all()) else frame[order]
    times = [spec.known_at, spec.event_time] if spec.known_at else [spec.event_time]
    order = np.lexsort((*(frame[name].to_physical().to_numpy() for name in times), frame[_PLACE].to_numpy()))
    is_other = _changes(frame.select(spec.entity)[order])
    if (is_other & ~is_last).any():  # two entities at one place
        frame = frame.sort([_PLACE, *spec.entity, *reversed(times)], maintain_order=True)
        return frame.filter(pl.Series(_changes(frame.select(_PLACE, *spec.entity))))
    return frame.select(pl.all().gather(order[is_last]))


def _changes(frame: pl.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return of each row whether the next one is another; true of the last."""
    unlike = frame.select(pl.any_horizontal(pl.all() != pl.all().shift(-1)).fill_null(True)).to_series()
    return unlike.to_numpy()


def _cells(frame: pl.DataFrame) -> int:
    return frame.height * frame.width
