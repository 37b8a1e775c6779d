"""What is done for privacy: erase a subject, keep retention, and the guard that stands in the path of rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from flyball import settings
from flyball.platform.home import Home

if TYPE_CHECKING:
    from flyball.ledger.versions import Version
    from flyball.privacy.erasure import Erased, Eraser
    from flyball.privacy.retention import Expired

__all__ = ["PrivacyActs"]


class PrivacyActs(Home):
    """What is done for privacy."""

    def subjects(self) -> dict[str, list[str]]:
        """Return the columns that datasets declare as their subject, each with the datasets."""
        from flyball.privacy.erasure import declared_subjects

        self._may("read")
        return declared_subjects(self.ledger)

    def erase(self, value: int | str, columns: Iterable[str], *, dry_run: bool = False) -> Erased:
        """Take a subject out of every place of the home; see `privacy.erasure`. Raises InvalidInput, Unavailable."""
        self._may("erase")
        self.usage.flush()  # what is counted in memory would be written after everything was cleaned
        return self._eraser().erase(value, columns, dry_run=dry_run)

    def resume_erasures(self) -> list[Erased]:
        """Carry out to the end the erasures that were interrupted."""
        self._may("erase")
        return self._eraser().resume()

    def certificates(self) -> list[Version]:
        """Return the versions that hold certificates of erasure, newest first."""
        self._may("read")
        return self._eraser().certificates()

    def certificate(self, name: str) -> dict[str, Any]:
        """Return a certificate by the beginning of its name, verified. Raises NotFound, Corrupt."""
        self._may("read")
        return self._eraser().show(name)

    def allow_again(self, value: int | str, columns: Iterable[str]) -> int:
        """Let an erased subject's rows be published again. Raises NotFound."""
        self._may("erase")
        return self._eraser().allow_again(value, columns)

    def retention(self, *, dry_run: bool = True) -> list[Expired]:
        """Take out the rows that are older than they may be, or only count them; a report for each dataset."""
        from flyball.privacy.erasure import PrivacySettings
        from flyball.privacy.retention import Retention

        self._may("read" if dry_run else "erase")
        chosen = settings.load(PrivacySettings, "privacy", self.home)
        stores = (self.home, self.ledger, self.blobs, self.tables, self.online)
        work = Retention(*stores, self.guard, actor=self.actor, clock=self.clock, wait_s=chosen.wait_s)
        return work.run(dry_run=dry_run)

    def _eraser(self) -> Eraser:
        from flyball.privacy.erasure import Eraser, PrivacySettings

        chosen = settings.load(PrivacySettings, "privacy", self.home)
        stores = (self.home, self.ledger, self.blobs, self.tables, self.online)
        return Eraser(*stores, actor=self.actor, clock=self.clock, settings=chosen)
