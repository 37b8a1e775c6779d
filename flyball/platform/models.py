"""What is made: versions and aliases; models registered, loaded, agreed to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flyball.errors import Forbidden, listed
from flyball.ledger.refs import Ref, ref
from flyball.ledger.versions import AliasChange, Version

if TYPE_CHECKING:
    from flyball.models.bundle import LoadedModel

from flyball.platform.home import Home

__all__ = ["ModelActs"]


class ModelActs(Home):
    """What is made: versions and aliases; models registered, loaded, agreed to."""

    def versions(self, kind: str, name: str | None = None, limit: int = 1000) -> list[Version]:
        """Return versions, newest first."""
        with self._reading() as world:
            found = world.versions.all(kind, name, limit)
        return [self._seen(version) for version in found]

    def version(self, target: str | Ref) -> Version:
        """Return one version: `model/late@champion`, `dataset/flights@12`. Raises NotFound."""
        found = ref(str(target))
        with self._reading() as world:
            version = world.versions.get(found.kind, found.name, found.version or "latest")
        return self._seen(version)

    def aliases(self, kind: str, name: str, at: datetime | None = None) -> dict[str, int]:
        """Return where each alias points, or pointed at an instant."""
        with self._reading() as world:
            return world.versions.aliases(kind, name, at)

    def alias_changes(self, kind: str, name: str) -> list[AliasChange]:
        """Return every change of a name's aliases, oldest first."""
        with self._reading() as world:
            return world.versions.alias_history(kind, name)

    def register(self, name: str, model: Any, **options: Any) -> Version:
        """Publish a model's next version; see `training.registering.register`. Raises Forbidden where policies do."""
        from flyball.training.registering import register

        self._may("register")

        def permit(inputs: Sequence[str], learnt_from: Sequence[Ref]) -> None:
            broken = self.guard.judge(name, inputs, learnt_from)
            if broken:
                raise Forbidden(f"model/{name} may not be registered: {listed(broken, 5)}")

        return register(self.ledger, self.blobs, name, model, actor=self.actor, permit=permit, **options)

    def load(self, target: str | Ref) -> LoadedModel:
        """Load a model version, its digests verified. Raises NotFound, Corrupt, MissingExtra."""
        from flyball.models import bundle

        found = ref(str(target)) if "/" in str(target) else ref(str(target), "model")
        return bundle.load(self.blobs, self.version(found if found.version else f"{found}@champion").digest)

    def approve(self, target: str | Ref) -> Version:
        """Agree to a model version that waits for a person. Raises NotFound."""
        from flyball.delivery.promotion import approve

        found = ref(str(target)) if "/" in str(target) else ref(str(target), "model")
        with self._writing("approve") as world:
            version = world.versions.get("model", found.name, found.version or "latest")
            approve(version, world)
        return version
