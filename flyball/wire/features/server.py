"""HTTP to features and back.

    POST features         {"features": ["previous_leg", …] or "service": "late", "entities": {"tailnum": ["N13914"]},
                           "at"?: instant, "ages"?: bool} → {"features": {name: [values]}, "ages"?: {view: [seconds]}}
    GET  features         what there is: each feature's fields and names; services
    GET  features/NAME    ?tailnum=N13914[&at=…][&ages=true] → the same for one entity

Errors are `{"error": "…"}`, as for predictions. It answers what the snapshot has; the control plane may be dead. To
push values is the control plane's, which knows who may.
"""

from __future__ import annotations

from typing import Any

import orjson

from flyball.clock import Clock
from flyball.errors import InvalidInput, NotFound, Unavailable, did_you_mean, listed
from flyball.features.served import Feature, LoadedFunction, ServedFeatures
from flyball.serving.engine import Engine
from flyball.serving.lineup import Lineup
from flyball.wire.features.requests import Wanted, parse_body, parse_query

__all__ = ["FeatureServer"]

_MOST_SETS = 256


class FeatureServer:
    """Answers requests for features from an engine's lineup and store."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._lineup: Lineup | None = None
        self._sets: dict[tuple[str, ...], ServedFeatures] = {}

    def post(self, body: bytes) -> bytes:
        """Answer a POST. Raises as `get`."""
        return self._answer(parse_body(body))

    def get(self, name: str, query: bytes) -> bytes:
        """Answer a GET for one entity.

        Raises:
            InvalidInput: the request is wrong; says how.
            NotFound: no such feature or service.
            StepFailed: a request-time function failed.
            Corrupt, Unavailable: the online store cannot be read.
        """
        return self._answer(parse_query((name,), query))

    def listing(self) -> bytes:
        """Return what there is."""
        lineup = self._engine.lineup
        features = {name: _described(feature) for name, feature in sorted(lineup.features.items())}
        services = {name: list(names) for name, names in sorted(lineup.services.items())}
        return orjson.dumps({"features": features, "services": services, "refused": dict(lineup.feature_errors)})

    def _answer(self, wanted: Wanted) -> bytes:
        features = self._set(wanted)
        unknown = [name for name in wanted.entities if name not in features.fields]
        if unknown:
            raise InvalidInput(
                f'"{unknown[0][:60]}" is no key of what is asked for{did_you_mean(unknown[0], features.fields)} '
                f"(needed: {listed(features.fields)})"
            )
        engine = self._engine
        found: dict[str, Any] = features.look_up(
            engine.online,
            wanted.entities,
            wanted.at or self._clock.now(),
            wanted.rows,
            ages=wanted.ages,
            freshness=engine.freshness,
        )
        if not wanted.ages:
            return orjson.dumps({"features": found}, option=orjson.OPT_UTC_Z)
        ages = {view.name: found.pop(view.age_column) for view in features.views}
        return orjson.dumps({"features": found, "ages": ages}, option=orjson.OPT_UTC_Z)

    def _set(self, wanted: Wanted) -> ServedFeatures:
        """Return the features that are asked for, put together once for each lineup."""
        lineup = self._engine.lineup
        if lineup is not self._lineup:
            self._lineup, self._sets = lineup, {}
        names = wanted.features
        if wanted.service is not None:
            found = lineup.services.get(wanted.service)
            if found is None:
                near = did_you_mean(wanted.service, lineup.services)
                known = listed(sorted(lineup.services))
                raise NotFound(f'no feature service is called "{wanted.service[:80]}"{near} (there are: {known})')
            names = tuple(found)
        chosen = self._sets.get(names)
        if chosen is None:
            chosen = ServedFeatures([_feature(lineup, name) for name in names])
            if len(self._sets) < _MOST_SETS:
                self._sets[names] = chosen
        return chosen


def _feature(lineup: Lineup, name: str) -> Feature:
    found = lineup.features.get(name)
    if found is not None:
        return found
    if name in lineup.feature_errors:
        raise Unavailable(f"the feature view {name} cannot be served: {lineup.feature_errors[name]}")
    near = did_you_mean(name, lineup.features)
    raise NotFound(f'no feature view is called "{name[:80]}"{near} (there are: {listed(sorted(lineup.features))})')


def _described(feature: Feature) -> dict[str, Any]:
    if isinstance(feature, LoadedFunction):
        return {"fields": list(feature.spec.inputs), "features": list(feature.outputs)}
    return {"keys": list(feature.entity), "features": dict(feature.features), "ttl_s": feature.ttl_s}
