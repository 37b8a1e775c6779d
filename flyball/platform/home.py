"""One home: opening it, its backends, and who acts on it. All acts of the platform stand on this.

Only this package chooses backends.
"""

from __future__ import annotations

import importlib
import json
import os
import secrets
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from flyball import settings
from flyball.clock import SYSTEM, Clock
from flyball.errors import Forbidden, Incompatible, InvalidInput, NotFound
from flyball.governance.identity import NOBODY, Principal, local_user, who_asks
from flyball.ledger import Fence, Ledger, Transaction, kinds
from flyball.ledger.refs import Ref, ref
from flyball.platform.authority import MAY

if TYPE_CHECKING:
    from flyball.data.datasets import Datasets
    from flyball.data.labels.sets import LabelSets
    from flyball.data.products.managing import Products
    from flyball.data.quarantine import Quarantine
    from flyball.data.usage import Usage
    from flyball.ledger.versions import Version
    from flyball.monitoring.results import Results
    from flyball.privacy.guard import Guard
    from flyball.storage.blobs import BlobStore
    from flyball.storage.online import OnlineStore
    from flyball.storage.tables import TableStore
    from flyball.tracking.live import LiveTraffic
    from flyball.tracking.recording import Recorder

__all__ = ["KIND_MODULES", "Home"]

HOME_FORMAT = 1

_SHARING = threading.Lock()  # of making what is shared

KIND_MODULES = (
    "flyball.data.kinds",
    "flyball.delivery.kinds",
    "flyball.features.kinds",
    "flyball.governance.kinds",
    "flyball.models.kinds",
    "flyball.monitoring.kinds",
    "flyball.pipelines.kinds",
    "flyball.serving.kinds",
)


class Home:
    """A home seen by one principal. Cheap to make for another principal: `home.as_(principal)`."""

    def __init__(self, home: Path, ledger: Ledger, principal: Principal, clock: Clock = SYSTEM) -> None:
        self.home = home
        self.ledger = ledger
        self.clock = clock
        self._principal = principal
        self._is_for_callers = False
        self._shared: dict[str, Any] = {}  # what all principals of this home have together

    @classmethod
    def open(
        cls,
        home: str | os.PathLike[str] | None = None,
        principal: Principal | None = None,
        clock: Clock = SYSTEM,
        *,
        create: bool = True,
    ) -> Self:
        """Open a home, creating it when it is not there.

        Raises:
            NotFound: it is not there and `create` is false.
            Incompatible: it was made by a newer release; nothing was touched.
            InvalidInput: the path is a file, or a setting is wrong.
        """
        path = cls.home_of(home, create=create)
        from flyball.ledger.sql import LedgerSettings, open_ledger

        for module in KIND_MODULES:
            importlib.import_module(module)
        ledger = open_ledger(path, settings.load(LedgerSettings, "ledger", path), clock)
        return cls(path, ledger, principal or local_user(), clock)

    @staticmethod
    def home_of(home: str | os.PathLike[str] | None = None, *, create: bool = True) -> Path:
        """Return the folder of a home, making it when allowed, without opening anything in it; raises as `open`."""
        path = settings.home_directory(home)
        _check_home(path, create=create)
        return path

    def close(self) -> None:
        """Close what is open."""
        if "usage" in self.__dict__:
            self.usage.close()
        if "writer" in self._shared:
            self._shared["writer"].close()
        self.ledger.close()

    def as_(self, principal: Principal) -> Self:
        """Return the same home as another principal sees it."""
        other = type(self)(self.home, self.ledger, principal, self.clock)
        other.__dict__.update({k: v for k, v in self.__dict__.items() if k not in other.__dict__})
        other._shared = self._shared
        return other

    def for_callers(self) -> Self:
        """Return the same home as each caller of a server sees it: `governance.identity.who_asks` says who that is."""
        other = self.as_(NOBODY)
        other._is_for_callers = True
        return other

    @property
    def principal(self) -> Principal:
        """Who acts."""
        return who_asks() if self._is_for_callers else self._principal

    @property
    def project(self) -> Path:
        """The folder that declarations' paths are relative to: what `flyball.json` says, else the home's parent."""
        marked = _home_facts(self.home).get("project")
        return Path(marked) if marked else self.home.parent

    def belongs_to(self, project: Path) -> None:
        """Remember the project's folder, where it is not the home's parent."""
        self._may("apply")
        if project.absolute() != self.project:
            _write_json(self.home / "flyball.json", {**_home_facts(self.home), "project": str(project.absolute())})

    @cached_property
    def blobs(self) -> BlobStore:
        from flyball.storage.blobs.files import FileBlobs

        return FileBlobs(self.home / "blobs")

    @cached_property
    def tables(self) -> TableStore:
        from flyball.data.profiles import PROFILER
        from flyball.storage.tables.parquet import ParquetTables

        return ParquetTables(self.blobs, PROFILER)

    @cached_property
    def online(self) -> OnlineStore:
        from flyball.storage.online.opening import open_online

        return open_online(self.home)

    @cached_property
    def guard(self) -> Guard:
        """The policies of this home in the path of rows; it asks who reads, so all principals share it."""
        from flyball.privacy.guard import Guard

        return Guard(self.home, self.ledger, self.project)

    @cached_property
    def datasets(self) -> Datasets:
        from flyball.data.datasets import Datasets
        from flyball.data.sources import SourceSettings

        return Datasets(
            self.ledger,
            self.tables,
            self.project,
            self.clock,
            admit=self.guard.admit,
            blobs=self.blobs,
            sources=settings.load(SourceSettings, "sources", self.home),
        )

    @cached_property
    def quarantine(self) -> Quarantine:
        from flyball.data.quarantine import Quarantine

        stores = (self.ledger, self.tables, self.blobs)
        kept, admit = self.datasets.agreements, self.guard.admit
        return Quarantine(*stores, kept.of, self.home / "doomed", clock=self.clock, resolve=kept.resolve, admit=admit)

    @cached_property
    def products(self) -> Products:
        from flyball.data.products.managing import Products

        return Products(self.ledger, self.tables, self.clock)

    @cached_property
    def label_sets(self) -> LabelSets:
        from flyball.data.labels.sets import LabelSets

        return LabelSets(self.ledger, self.tables, self.clock, admit=self.guard.admit)

    @cached_property
    def usage(self) -> Usage:
        """The note of who read what."""
        from flyball.data.usage import Usage, UsageSettings

        return Usage(self.home / "usage", settings.load(UsageSettings, "usage", self.home), self.clock)

    @property
    def recorder(self) -> Recorder:
        """Records runs in the name of whoever acts, through the one writer of this home. Raises Forbidden."""
        from flyball.tracking.recording import Recorder, Writer

        self._may("record")
        return Recorder(self._shared_once("writer", lambda: Writer(self.ledger)), self.actor)

    @cached_property
    def traffic(self) -> LiveTraffic:
        from flyball.tracking.live import LiveTraffic

        return LiveTraffic(self.home / "traffic", self.clock)

    @cached_property
    def monitor_results(self) -> Results:
        from flyball.monitoring.results import Results

        return Results(self.home / "streams")

    @property
    def actor(self) -> str:
        """Who acts, as the journal names them."""
        return self.principal.actor

    def _shared_once(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what all principals of this home have together, made by the first that asks."""
        if name not in self._shared:
            with _SHARING:
                if name not in self._shared:
                    self._shared[name] = make()
        return self._shared[name]

    def _may(self, act: str) -> None:
        role = MAY[act]
        if not self.principal.has(role):
            raise Forbidden(f"{self.principal.actor} is {self.principal.role} and may not {act}; that needs {role}")

    def _seen(self, version: Version) -> Version:
        """Return a version whose contract's report shows no value that whoever asks may not see."""
        from flyball.privacy.reports import columns_of, without

        kept = version.metadata.get("contract") if version.kind in ("dataset", "quarantine") else None
        report = kept or {}
        columns = columns_of(report)
        if not columns:
            return version
        found = self.guard.decision(version.name, columns, self.principal)
        hidden = (
            columns if not found.allowed else columns & {part for n in found.masks for part in (n, n.partition(".")[0])}
        )
        return (
            replace(version, metadata={**version.metadata, "contract": without(report, hidden)}) if hidden else version
        )

    def _reading(self) -> AbstractContextManager[Transaction]:
        self._may("read")
        return self.ledger.read()

    def _writing(
        self, act: str, cause: int | None = None, fence: Fence | None = None
    ) -> AbstractContextManager[Transaction]:
        self._may(act)
        return self.ledger.write(self.actor, cause, fence)

    def _ref(self, target: str | Ref) -> Ref:
        """Return a reference whose kind may be written as people write it: `Datasets/flights`, `deployment/late`."""
        text = str(target)
        kind, slash, rest = text.partition("/")
        if not slash:
            raise InvalidInput(f'"{text}" is not a reference; write it like deployment/late')
        return ref(f"{kind}/{rest}" if kind in ("run", "event") else f"{kinds.kind_of(kind).word}/{rest}")


def _check_home(home: Path, *, create: bool) -> None:
    """Make sure that `home` is a home that this release understands, making one when allowed."""
    found = _home_facts(home).get("format")
    if found is None and _has_other_files(home):
        found = _home_facts(home).get("format")  # another process may have made it since it was looked for
        if found is None:
            raise InvalidInput(f"{home} is not empty and not a Flyball home; choose another folder with --home")
    if found is None:
        if not create:
            raise NotFound(f"there is no Flyball home in {home}; make one with: flyball init, or name it with --home")
        home.mkdir(parents=True, exist_ok=True)
        _write_json(home / "flyball.json", {"format": HOME_FORMAT}, is_first=True)
    elif not isinstance(found, int) or found > HOME_FORMAT:
        raise Incompatible(
            f"the home {home} has format {found} of a newer Flyball; this one reads up to {HOME_FORMAT}. "
            "Nothing was changed; install the newer release"
        )


def _home_facts(home: Path) -> dict[str, Any]:
    try:
        facts = json.loads((home / "flyball.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except NotADirectoryError:
        raise InvalidInput(f"{home} is a file; a home is a folder") from None
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise InvalidInput(f"{home / 'flyball.json'} cannot be read: {error}") from error
    return facts if isinstance(facts, dict) else {}


def _has_other_files(home: Path) -> bool:
    """Whether something is in a folder that is not a home's, nor what another process is making it with."""
    if not home.is_dir() or (home / "flyball.toml").exists():
        return False
    return any(not path.name.startswith(".flyball.json.") for path in home.iterdir())


def _write_json(path: Path, document: Mapping[str, Any], *, is_first: bool = False) -> None:
    """Write a file whole; with `is_first` only if there is none, so that nothing written meanwhile is lost."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    partial.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    if not is_first:
        partial.replace(path)
        return
    try:
        os.link(partial, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links: the last who writes it first wins
        partial.replace(path)
    partial.unlink(missing_ok=True)
