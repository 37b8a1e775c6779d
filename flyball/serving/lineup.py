"""The models in memory: a snapshot with its bundles loaded, warmed up and ready to be swapped in.

`prepare` runs on a worker thread while the old lineup serves. A deployment whose bundle will not load keeps its old
variants, and says why; the others go on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from flyball.errors import FlyballError, InvalidInput, NotFound, did_you_mean, listed
from flyball.features.functions import FunctionSpec
from flyball.features.requests import OnRequest
from flyball.features.served import Feature, LoadedFunction, ServedFeatures, read_feature
from flyball.models.bundle import LoadedModel
from flyball.models.fields import Field
from flyball.models.signature import Signature
from flyball.serving.contextual import Chooser
from flyball.serving.keys import Callers
from flyball.serving.routines import RoutineModel
from flyball.serving.snapshot import Routine, ServedDeployment, Snapshot, Variant

__all__ = ["Lineup", "Refusal", "Served", "ServedVariant", "prepare"]

_log = logging.getLogger("flyball.serving")


@dataclass(frozen=True)
class ServedVariant:
    """A variant with its model.

    Attributes:
        request: the inputs that a request gives: those of the model that are no features. None: it gives none.
        looked_up: the inputs that views and request-time functions give. None: there are none.
        features: those views and functions, in the order of the deployment. None: there are none.
        extra: names that a request may give though this model has no such input: keys of views, fields of functions,
            and inputs of the deployment's other variants, so that a canary may need other fields than the champion.
    """

    variant: Variant
    model: LoadedModel
    request: Signature | None
    looked_up: Signature | None
    features: ServedFeatures | None
    extra: frozenset[str] = frozenset()

    @property
    def keys(self) -> list[str]:
        """The fields of a request by which features are looked up and computed."""
        return [] if self.features is None else list(self.features.fields)

    @property
    def is_joinable(self) -> bool:
        """Whether rows of several requests may share a call: not when a tensor's first size is fixed."""
        fields = (*self.model.signature.inputs, *self.model.signature.outputs)
        return all(f.shape is None or (len(f.shape) > 0 and f.shape[0] == -1) for f in fields)


@dataclass(frozen=True)
class Served:
    """One deployment as it is served; `variants` and `mirrors` are in the order of the snapshot."""

    name: str
    deployment: ServedDeployment
    variants: tuple[ServedVariant, ...]
    mirrors: tuple[ServedVariant, ...] = ()

    @cached_property
    def by_name(self) -> Mapping[str, ServedVariant]:
        """The variants by their names."""
        return {v.variant.name: v for v in self.variants}

    @cached_property
    def chooser(self) -> Chooser | None:
        """What draws a variant by context, where the deployment does so."""
        found = self.deployment.contextual
        return None if found is None else Chooser(found)

    @cached_property
    def tensors(self) -> frozenset[str]:
        """The inputs of the variants that are tensors rather than columns."""
        return frozenset(f.name for v in self.variants for f in v.model.signature.inputs if f.shape is not None)

    def of_version(self, version: str) -> ServedVariant:
        """Return the variant that serves a version: `late@2`, or `2` where only one model is served.

        Raises:
            NotFound: none of the variants does; never another version instead.
        """
        for v in self.variants:
            own = v.variant.version.partition("+")[0]  # of a routine, the deployment's own model's
            if version in (v.variant.version, own, own.rpartition("@")[2]):
                return v
        known = [v.variant.version for v in self.variants]
        raise NotFound(f'{self.name} does not serve the version "{version[:80]}" (served: {listed(known)})')


@dataclass(frozen=True)
class Refusal:
    """Why a deployment is not served as wanted."""

    revision: int
    message: str
    variant: str | None = None  # whose bundle would not load, where it was one


@dataclass(frozen=True)
class Lineup:
    """Everything that is served, and for each name that is not as wanted, why."""

    generation: int | None = None
    served: Mapping[str, Served] = field(default_factory=dict)
    errors: Mapping[str, Refusal] = field(default_factory=dict)
    models: Mapping[str, LoadedModel] = field(default_factory=dict)  # by bundle's digest
    features: Mapping[str, Feature] = field(default_factory=dict)  # what the feature server answers, by name
    services: Mapping[str, Sequence[str]] = field(default_factory=dict)  # feature service → names of its features
    feature_errors: Mapping[str, str] = field(default_factory=dict)  # of a declared feature that cannot be served: why
    functions: Mapping[FunctionSpec, OnRequest] = field(default_factory=dict)  # those that are loaded
    callers: Callers = field(default_factory=Callers, compare=False)  # who may ask

    def find(self, name: str) -> Served:
        """Return a deployment. Raises NotFound, with the reason when it was refused."""
        found = self.served.get(name)
        if found is not None:
            return found
        if name in self.errors:
            raise NotFound(f"deployment/{name} is not served: {self.errors[name].message}")
        near = did_you_mean(name, self.served)
        raise NotFound(f'no deployment is called "{name[:80]}"{near} (served: {listed(sorted(self.served))})')


LoadFunction = Callable[[FunctionSpec], OnRequest]


def prepare(
    snapshot: Snapshot,
    previous: Lineup,
    load: Callable[[str], LoadedModel],
    load_function: LoadFunction | None = None,
) -> Lineup:
    """Return the lineup of a snapshot. Models that are in memory are kept; new ones are loaded and warmed up.

    Args:
        load: bundle's digest → model. What it raises refuses the deployments that need that bundle, nothing else.
        load_function: description → request-time function; the same holds for it.
    """
    functions: dict[FunctionSpec, OnRequest] = {}

    def function_of(spec: FunctionSpec) -> OnRequest:
        if spec not in functions:
            known = previous.functions.get(spec)
            if known is None and load_function is None:
                raise InvalidInput(f"the function {spec.name} cannot be run here; open the engine on its home")
            functions[spec] = known or load_function(spec)  # type: ignore[misc]
        return functions[spec]

    models: dict[str, LoadedModel] = {}
    served: dict[str, Served] = {}
    errors: dict[str, Refusal] = {}
    for name, deployment in snapshot.deployments.items():
        refused: str | None = None
        try:
            for variant in (*deployment.variants, *deployment.mirrors):
                refused = variant.name
                if variant.bundle not in models:
                    models[variant.bundle] = previous.models.get(variant.bundle) or _warm(load(variant.bundle))
            refused = None
            for part in deployment.routine.parts if deployment.routine is not None else ():
                if part.bundle not in models:
                    models[part.bundle] = previous.models.get(part.bundle) or _warm(load(part.bundle))
            served[name] = _serve(name, deployment, models, function_of)
        except Exception as error:
            message = str(error)
            if not isinstance(error, FlyballError):
                _log.exception("deployment/%s could not be loaded", name)
                message = f"its model could not be loaded ({type(error).__name__}: {message[:300]})"
            errors[name] = Refusal(deployment.revision, message, refused)
            if name in previous.served:
                served[name] = previous.served[name]
    used = {digest for s in served.values() for digest in _bundles(s.deployment)}
    kept = {digest: model for digest, model in {**previous.models, **models}.items() if digest in used}
    features, feature_errors = _features(snapshot, function_of)
    return Lineup(snapshot.generation, served, errors, kept, features, snapshot.services, feature_errors, functions)


def _features(snapshot: Snapshot, load: LoadFunction) -> tuple[dict[str, Feature], dict[str, str]]:
    """Return what the feature server answers, and why not, where one of the declared features cannot be served."""
    found: dict[str, Feature] = {}
    errors: dict[str, str] = {}
    for name, document in snapshot.features.items():
        try:
            found[name] = read_feature(document, load)
        except Exception as error:
            if not isinstance(error, FlyballError):
                _log.exception("the feature view %s could not be taken up", name)
            errors[name] = (
                str(error) if isinstance(error, FlyballError) else f"its description is wrong ({error!r:.200})"
            )
    return found, errors


def _bundles(deployment: ServedDeployment) -> set[str]:
    parts = deployment.routine.parts if deployment.routine is not None else ()
    return {v.bundle for v in (*deployment.variants, *deployment.mirrors)} | {part.bundle for part in parts}


def _joined(
    variant: Variant, routine: Routine | None, models: Mapping[str, LoadedModel], load: LoadFunction
) -> tuple[Variant, LoadedModel]:
    """Return a variant and what answers for it: its model, or the routine that the model takes part in.

    The version then names all models, and the digest the whole routine: when a part changes, nothing of it may stay.
    """
    own = models[variant.bundle]
    if routine is None:
        return variant, own
    functions = [read_feature(document, load) for document in routine.post]
    if wrong := next((one.name for one in functions if not isinstance(one, LoadedFunction)), None):
        raise InvalidInput(f"{wrong} is a view; after a model stand request-time functions only")
    parts = [models[part.bundle] for part in routine.parts]
    joined = RoutineModel(
        routine, (variant.version, own), parts, [one for one in functions if isinstance(one, LoadedFunction)]
    )
    version = "+".join([variant.version, *(part.version for part in routine.parts)])
    return replace(variant, version=version, bundle=joined.digest()), _warm(joined)


def _warm(model: LoadedModel) -> LoadedModel:
    model.warm_up()
    return model


def _serve(name: str, deployment: ServedDeployment, models: Mapping[str, LoadedModel], load: LoadFunction) -> Served:
    features = tuple(read_feature(document, load) for document in deployment.features)
    by_feature = _by_feature(features)
    variants = [
        _variant(*_joined(v, deployment.routine, models, load), features, by_feature)
        for v in (*deployment.variants, *deployment.mirrors)
    ]
    allowed = set(ServedFeatures(features).fields) | ({deployment.key} if deployment.key else set())
    for v in variants:
        allowed |= {f.name for f in v.request.inputs} if v.request else set()
    completed = tuple(
        ServedVariant(
            v.variant,
            v.model,
            v.request,
            v.looked_up,
            v.features,
            frozenset(allowed - {f.name for f in (v.request.inputs if v.request else ())}),
        )
        for v in variants
    )
    count = len(deployment.variants)
    return Served(name, deployment, completed[:count], completed[count:])


def _by_feature(features: Sequence[Feature]) -> dict[str, Feature]:
    found: dict[str, Feature] = {}
    for feature in features:
        for name in _outputs(feature):
            if name in found:
                raise InvalidInput(
                    f'the feature "{name}" is in the views {found[name].name} and {feature.name}; '
                    "a deployment looks each feature up in one view"
                )
            found[name] = feature
    return found


def _outputs(feature: Feature) -> Sequence[str]:
    return feature.outputs if isinstance(feature, LoadedFunction) else tuple(feature.features)


def _variant(
    variant: Variant, model: LoadedModel, features: Sequence[Feature], by_feature: Mapping[str, Feature]
) -> ServedVariant:
    inputs = model.signature.inputs
    given = tuple(f for f in inputs if f.name not in by_feature)
    looked_up: tuple[Field, ...] = tuple(f for f in inputs if f.name in by_feature)
    needed = {by_feature[f.name].name for f in looked_up}
    for feature in features:  # a function may take what a view gives
        if isinstance(feature, LoadedFunction) and feature.name in needed:
            needed |= {by_feature[name].name for name in feature.spec.inputs if name in by_feature}
    chosen = [feature for feature in features if feature.name in needed]
    return ServedVariant(
        variant,
        model,
        Signature(given) if given else None,
        Signature(looked_up) if looked_up else None,
        ServedFeatures(chosen) if chosen else None,
    )
