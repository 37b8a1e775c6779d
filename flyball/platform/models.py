"""What is made: versions and aliases; models registered, loaded, agreed to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flyball.errors import Forbidden, InvalidInput, listed
from flyball.ledger.refs import Ref, ref
from flyball.ledger.versions import AliasChange, Version

if TYPE_CHECKING:
    from flyball.models.bundle import LoadedModel

from flyball.platform.artifacts import ArtifactActs, Place

__all__ = ["ModelActs"]

_LARGEST_MODEL = 8 << 30  # of a folder that a client of MLflow logged, in bytes


class ModelActs(ArtifactActs):
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

        known = {"permit": permit, "datasets": self.datasets, **options}
        return register(self.ledger, self.blobs, name, model, actor=self.actor, **known)

    def load(self, target: str | Ref) -> LoadedModel:
        """Load a model version, its digests and whom it is signed by verified.

        Raises:
            NotFound, Corrupt, MissingExtra: it cannot be.
            Forbidden: this home does not trust it, see `models.trust`.
            InvalidInput: a client of MLflow logged it in a form that is not read, see `models.mlmodel`.
        """
        from flyball.models import bundle
        from flyball.models.trust import Trust

        found = ref(str(target)) if "/" in str(target) else ref(str(target), "model")
        made = self.version(found if found.version else f"{found}@champion")
        return bundle.load(self.blobs, self.bundled(made).digest, Trust(self.home))

    def bundled(self, made: Version, *, as_it_is: bool = False) -> Version:
        """Return a model version with its bundle; one that a client of MLflow made gets it when it is first needed.

        From then on the version's digest is the bundle's, and its metadata say what registering would have.

        Args:
            as_it_is: keep a folder that may not be loaded as it is, without loading it, for somebody to sign.

        Raises:
            InvalidInput: its files are not kept here, or are no model that can be served.
            Forbidden: its model is a pickle.
            Corrupt, StepFailed, Incompatible, MissingExtra: it cannot be loaded.
        """
        location = made.metadata.get("location")
        if made.kind != "model" or "flavor" in made.metadata or not isinstance(location, str):
            return made
        from flyball.models import mlmodel

        self._may("bundle")
        facts = {"name": made.name, "run": made.run}
        folder = self._folder(self.place_at(location))
        try:
            found = mlmodel.convert(self.blobs, folder, facts)
        except Forbidden:
            if not as_it_is:
                raise
            found = mlmodel.keep(self.blobs, folder, facts)
        told = {
            "flavor": found.manifest["flavor"],
            "signature": found.manifest["signature"],
            "size_bytes": found.size_bytes,
        }
        with self._writing("bundle") as world:
            now = world.versions.get("model", made.name, made.number)
            if "flavor" in now.metadata:
                return now  # somebody else was quicker
            detail = {"flavor": told["flavor"], "logged by": f"MLflow {found.manifest['metadata']['mlflow']['client']}"}
            return world.versions.rewrite(
                "model", made.name, made.number, found.digest, {**now.metadata, **told}, action="bundled", detail=detail
            )

    def _folder(self, place: Place) -> dict[str, bytes]:
        """Return the files below a place, by their path in it. Raises InvalidInput: they are too large together."""
        files: dict[str, bytes] = {}
        size, after = 0, ""
        cut = len(place.path) + 1 if place.path else 0
        while True:
            with self._reading() as world:
                page = world.artifacts.below(place.owner, place.path, limit=1000, after=after)
            for one in page:
                size += one.size_bytes
                if size > _LARGEST_MODEL:
                    raise InvalidInput(f"the files of the model have more than {_LARGEST_MODEL} bytes together")
                files[one.path[cut:]] = self.blobs.get(one.digest)
            if len(page) < 1000:
                return files
            after = page[-1].path
