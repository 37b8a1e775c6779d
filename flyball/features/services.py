"""Feature services: which views a model uses, pinned to what they were, so that serving cannot drift from training.

`pinned` is a plain value that travels with a model; `check_pinned` says at training, loading or deploying whether the
views at hand are still those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flyball.errors import Conflict, InvalidInput, did_you_mean, listed
from flyball.features import kinds
from flyball.features.specs import ViewSpec
from flyball.features.views import FeatureView
from flyball.ledger.refs import check_name

__all__ = ["FeatureService", "check_pinned", "check_usable", "pinned_specs"]

_FORMAT = 1


@dataclass(frozen=True)
class FeatureService:
    """A name and the views behind it, in the order in which a model sees their features."""

    name: str
    views: tuple[FeatureView, ...]
    owner: str | None = None
    description: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)
        names = [view.name for view in self.views]
        twice = next((name for name in names if names.count(name) > 1), None)
        if not names or twice is not None:
            what = "no view" if twice is None else f"the view {twice} twice"
            raise InvalidInput(f"the feature service {self.name} has {what}; give it views, each once")

    def pinned(self) -> dict[str, Any]:
        """Return what a model was trained on as plain JSON values: each view's description, version and digest.

        Raises:
            InvalidInput: a view was not computed yet, so that its features are not known.
        """
        views = [{"digest": view.digest, "definition": view.spec().to_dict()} for view in self.views]
        return {"format": _FORMAT, "service": self.name, "views": views}

    def spec(self) -> dict[str, Any]:
        """Return the spec of the resource `feature-service/<name>`."""
        views = [{"view": view.name, "version": view.version, "digest": view.digest} for view in self.views]
        return {"description": self.description, "owner": self.owner, "views": views}


def pinned_specs(pinned: Mapping[str, Any]) -> list[ViewSpec]:
    """Return the descriptions of the views that a model was trained on. Raises InvalidInput on anything else."""
    if pinned.get("format") != _FORMAT or not isinstance(pinned.get("views"), list):
        raise InvalidInput(
            f"this is no pinned feature service of format {_FORMAT} (it has {listed(pinned)}); "
            "register the model again with what FeatureService.pinned() returns"
        )
    return [ViewSpec.from_dict(view["definition"]) for view in pinned["views"]]


def check_pinned(pinned: Mapping[str, Any], views: Sequence[FeatureView]) -> None:
    """Raise Conflict unless `views` holds every view of a pinned service as it was then.

    Raises:
        InvalidInput: `pinned` is nothing that `FeatureService.pinned` returned.
        Conflict: a view is missing, has another version, or computes something else; says which.
    """
    by_name = {view.name: view for view in views}
    for spec, entry in zip(pinned_specs(pinned), pinned["views"], strict=True):
        what = f"the model was trained on {spec.stored_as} (service {pinned.get('service')})"
        view = by_name.get(spec.name)
        if view is None:
            raise Conflict(f"{what}, which is not here{did_you_mean(spec.name, by_name)} (here: {listed(by_name)})")
        if view.version != spec.version:
            raise Conflict(f"{what}, but here is {view.name}@{view.version}; train again, or serve the version pinned")
        if view.digest != entry["digest"]:
            raise Conflict(
                f"{what} as it was at {str(entry['digest'])[:12]}, but its definition has changed since "
                f"({view.digest[:12]}); raise its version and train again, or put the definition back"
            )


def check_usable(name: str, declared: kinds.FeatureView) -> str | None:
    """Return a warning for whoever makes a training set with a deprecated view, None for an active one.

    Raises:
        InvalidInput: the view is retired.
    """
    if declared.retired is None:
        return None
    why, instead = declared.retired.reason, declared.retired.successor
    use = f"; use {instead} instead" if instead else ""
    if declared.status == "retired":
        raise InvalidInput(f"the view {name} is retired and not for new training sets: {why}{use}")
    return f"the view {name} is deprecated: {why}{use}"
