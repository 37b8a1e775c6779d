"""Files that a run or a logged model left: a tree of paths for each owner, and the blob of each file.

An owner is a run by its id, a logged model by its id (`m-…`), or nobody: files that a client put at a path of the
artifact proxy which is neither's. Whichever way a file came, it stands here once and is seen from everywhere.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

from flyball.errors import InvalidInput
from flyball.ledger.runs import Artifact

__all__ = ["NOBODY", "Artifacts", "Entry", "Without", "check_path", "location_of", "proxied"]

NOBODY = ""
"""The owner of files at paths that belong to no run and no logged model."""

Without = Callable[[str, str], bool]
"""Whether the file of an owner at a path is left out."""

_LONGEST_BYTES = 1024  # of a whole path, as S3 has it; an index of PostgreSQL takes 2,700
_LONGEST_NAME_BYTES = 255  # of one name in it, as file systems have it: it shall be possible to download
_DECODINGS = 10


class Entry(NamedTuple):
    """What a folder holds: a file, or another folder (which has no digest, and no size)."""

    name: str
    is_folder: bool
    digest: str = ""
    size_bytes: int = 0


class Artifacts(Protocol):
    """Keeps the files of all owners. Paths are as `check_path` returns them; the folder "" is the whole tree."""

    def keep(self, owner: str, artifact: Artifact) -> None:
        """Record a file; the same path again replaces it.

        Raises:
            Conflict: the path is a folder, or one of its folders is a file.
        """
        ...

    def get(self, owner: str, path: str) -> Artifact | None:
        """Return a file, None when there is none at the path."""
        ...

    def listing(self, owner: str, folder: str = "") -> list[Entry]:
        """Return what is directly in a folder, by name; a folder in it costs the same however much it holds."""
        ...

    def below(self, owner: str, folder: str = "", limit: int = 1000, after: str = "") -> list[Artifact]:
        """Return the files in a folder and all its folders, by path, a page at a time."""
        ...

    def remove(self, owner: str, path: str = "") -> int:
        """Forget the file at a path, or all files below it; return how many. The blobs are the sweep's."""
        ...

    def size(self, owner: str) -> tuple[int, int]:
        """Return how many files an owner has, and their bytes."""
        ...

    def location(self, owner: str) -> str | None:
        """Return the address of an owner's tree, as MLflow's clients write it; None: there is no such owner.

        It is `<the experiment's location>/<run>/artifacts`, of a logged model `…/models/<m-…>/artifacts`.
        """
        ...

    def experiments(self) -> list[str]:
        """Return the ids of experiments whose runs or logged models have files."""
        ...

    def owners(self, experiment: str) -> list[str]:
        """Return the runs and logged models of an experiment that have files."""
        ...

    def digests(self, without: Without | None = None) -> Iterator[tuple[str, str]]:
        """Yield owner and digest of every file; of those that `without` holds of (owner, path), nothing."""
        ...

    def owners_of_models(self) -> list[str]:
        """Return the logged models that have files, also those that are not there themselves."""
        ...


def check_path(path: str, *, is_folder: bool = False) -> str:
    r"""Return a path within an owner's tree: names joined by `/`, without empty names and `.`.

    Names are kept letter by letter: capitals and the forms of Unicode tell files apart, as on Linux. What leads out of
    the tree is refused however it is disguised: `..` plain, percent-encoded any number of times or in compatibility
    characters, absolute paths, drives, backslashes, other schemes, control characters.

    Args:
        is_folder: whether the path may be empty (the whole tree) or end in `/`.

    Raises:
        InvalidInput: it is no such path, or longer than 1,024 bytes, or a name than 255.

    >>> check_path("plots//./roc curve.svg")
    'plots/roc curve.svg'
    """
    form, plain = path, unicodedata.normalize("NFKC", path)
    for _ in range(_DECODINGS):
        for seen in (form, plain):
            if _leads_out(seen):
                raise InvalidInput("Invalid path")
        decoded = unquote(form, errors="strict") if "%" in form else form
        if decoded == form:
            break
        form, plain = decoded, unicodedata.normalize("NFKC", decoded)
    else:
        raise InvalidInput("Invalid path")
    names = [name for name in path.split("/") if name not in ("", ".")]
    kept = "/".join(names)
    if not is_folder and (not kept or path.endswith(("/", "/."))):
        raise InvalidInput("Invalid path")
    encoded = kept.encode()
    if len(encoded) > _LONGEST_BYTES or any(len(name.encode()) > _LONGEST_NAME_BYTES for name in names):
        raise InvalidInput(
            f"Invalid path: it has {len(encoded):,} bytes; a path has at most {_LONGEST_BYTES:,}, a name in it "
            f"{_LONGEST_NAME_BYTES}"
        )
    return kept


def location_of(experiment: str, location: str | None, owner: str) -> str:
    """Return the address of the tree of a run or logged model in an experiment with this location (None: the default).

    >>> location_of("0", None, "m-1")
    'mlflow-artifacts:/0/models/m-1/artifacts'
    """
    base = (location or f"{_SCHEME}:/{experiment}").rstrip("/")
    head, mark, query = base.partition("?")  # parameters of a store stay behind the path
    return f"{head}/{'models/' if owner.startswith('m-') else ''}{owner}/artifacts{mark}{query}"


def proxied(location: str) -> str | None:
    """Return the path at the artifact proxy that an address names; None: it is no address of the proxy.

    >>> proxied("mlflow-artifacts:/0/41f3/artifacts")
    '0/41f3/artifacts'
    """
    parts = urlsplit(location)
    if parts.scheme == _SCHEME:
        return parts.path.strip("/")
    _, mark, path = parts.path.partition("/mlflow-artifacts/artifacts")
    return path.strip("/") if parts.scheme in ("http", "https") and mark else None


_SCHEME = "mlflow-artifacts"
_OUT = re.compile(
    r"""
    ^/ | (?:^|/)(?:[A-Za-z]|file): | :// | \\ | \# # absolute, a drive, another scheme, a fragment
    | (?:^|/)\s*\.\.\s*(?:/|$)                     # to the parent
    | [\x00-\x1f\x7f\ud800-\udfff]                 # of no use but to smuggle; lone surrogates are no UTF-8
    """,
    re.VERBOSE | re.IGNORECASE,
)


def _leads_out(path: str) -> bool:
    return _OUT.search(path) is not None
