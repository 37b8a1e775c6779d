"""The sweep of a home: what was deleted long enough ago goes for good, with its bytes."""

from __future__ import annotations

import re
import threading
from functools import partial
from typing import TYPE_CHECKING

import orjson

from flyball import settings
from flyball.governance.identity import Principal
from flyball.platform.artifacts import ArtifactActs

if TYPE_CHECKING:
    from flyball.ledger.removal import Tombstone
    from flyball.tracking.sweep_timer import SweepTimer
    from flyball.tracking.sweeping import Swept

__all__ = ["SweepActs"]

_MOST = 10_000_000  # versions of models: all of them
_NAMED_OWNER = re.compile(rb"(?:runs:/|models:/|/|\")((?:m-)?[0-9a-f]{32})(?=[/\"])")


class SweepActs(ArtifactActs):
    """The sweep."""

    def sweep(
        self,
        older_than: str | None = None,
        *,
        dry_run: bool = True,
        most: int | None = None,
        stopping: threading.Event | None = None,
    ) -> Swept:
        """Remove for good what was deleted longer ago than it is kept, or only list it; see `tracking.sweeping`.

        Args:
            older_than: how long deleted things are kept, such as `30d`, where no tag of their experiment says; default:
                the setting.
            most: how many things and traces go; `is_more` says that some are left.
            stopping: ends the sweep early when it is set.

        Raises:
            InvalidInput: it is no duration.
            Unavailable: another sweep is at work.
        """
        from flyball.data.rewriting import references
        from flyball.tracking.sweeping import Sweeper, SweepSettings, retention_of

        self._may("read" if dry_run else "erase")
        chosen = settings.load(SweepSettings, "sweep", self.home)
        said = ("[sweep] retention", chosen.retention) if older_than is None else ("older_than", older_than)
        sweeper = Sweeper(
            self.ledger,
            None if dry_run else self.recorder,
            self.blobs,
            self.uploads,
            partial(references, self.ledger, self.tables, self.blobs),
            self._owners_in_use(),
            retention=retention_of(said[1], said[0]),
            settings=chosen,
            clock=self.clock,
            stopping=stopping,
        )
        return sweeper.run(dry_run=dry_run, most=most)

    def sweeping_timer(self) -> SweepTimer:
        """Return what sweeps by itself, while this control plane is the one that acts."""
        from flyball.tracking.sweep_timer import SweepTimer
        from flyball.tracking.sweeping import SweepSettings

        chosen = settings.load(SweepSettings, "sweep", self.home)
        acting = self.as_(Principal("controller/sweep", "admin"))
        return SweepTimer(
            lambda most, stopping: acting.sweep(dry_run=False, most=most, stopping=stopping), chosen.every, self.clock
        )

    def tombstone(self, ref: str) -> Tombstone | None:
        """Return what is left of a thing that was removed for good; None: it was not."""
        with self._reading() as world:
            return world.removal.tombstone(ref)

    def _owners_in_use(self) -> dict[str, str]:
        """Return the runs and logged models whose files a version of a model is made of, with which version.

        A version that a client of MLflow registered keeps where its files are (`runs:/…`, `models:/m-…`, a path of the
        artifact proxy) in what it says of itself; they are not copied.
        """
        found: dict[str, str] = {}
        with self._reading() as world:
            for version in world.versions.all("model", limit=_MOST):
                said = {key: version.metadata.get(key) for key in ("source", "location", "model_id")}
                for owner in _NAMED_OWNER.findall(orjson.dumps(said)):
                    found[owner.decode()] = str(version.ref)
        return found
