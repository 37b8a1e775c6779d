"""Runs that were written elsewhere, as they are found in folders and files: read, checked, never executed.

    reading     files of a folder that nobody vouches for
    stored      what all stores yield: experiments, runs, models
    offline     folders of `fb.run(offline=…)`
    mlruns      folders of MLflow's file store
    sqlite      databases of MLflow's SQL store, and the folders of files beside them

Nothing outside the folders that the caller names is read, whatever a store says of itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flyball.errors import InvalidInput, NotFound
from flyball.tracking.stores.stored import Store

__all__ = ["open_store"]

_SQLITE = b"SQLite format 3\x00"


def open_store(path: Path, artifacts: Sequence[Path] = ()) -> Store:
    """Return what is at a path: a run or runs written offline, a folder of MLflow's, or a database of MLflow's.

    Args:
        artifacts: folders in which files of runs may be looked for, besides the store itself.

    Raises:
        NotFound: there is nothing.
        InvalidInput: it is none of these.
    """
    from flyball.tracking.offline import RUN
    from flyball.tracking.stores.mlruns import FileStore
    from flyball.tracking.stores.offline import OfflineStore
    from flyball.tracking.stores.sqlite import SqliteStore

    if not path.exists():
        raise NotFound(f"there is no file or folder {path}")
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(_SQLITE)) == _SQLITE:
                return SqliteStore(path, artifacts)
        raise InvalidInput(f"{path} is no SQLite database; expected one of MLflow's, or a folder of runs")
    if (path / RUN).is_file():
        return OfflineStore([path])
    folders = sorted(child for child in path.iterdir() if child.is_dir() and not child.is_symlink())
    runs = [child for child in folders if (child / RUN).is_file()]
    if runs:
        return OfflineStore(runs)
    if any((child / "meta.yaml").is_file() for child in folders) or (path / "models").is_dir():
        return FileStore(path, artifacts)
    if (path / "mlruns").is_dir() and not (path / "mlruns").is_symlink():
        return FileStore(path / "mlruns", [path, *artifacts])
    if not folders:
        return OfflineStore([])
    raise InvalidInput(
        f"{path} holds neither runs written offline (…/run.json) nor experiments of MLflow (…/meta.yaml)"
    )
