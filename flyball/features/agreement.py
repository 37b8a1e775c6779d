"""Do online and offline agree: for a sample of entities, is what look-ups find what the stored rows say.

`agreement` compares, `online_health` tells how old and how empty the online values are. Both read a bounded sample and
return small values, made for a monitor's result and for a page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from flyball.errors import InvalidInput
from flyball.features.encoding import encoded_keys
from flyball.features.lookup import look_up
from flyball.features.offline import StoredView
from flyball.features.stored_joins import join_stored
from flyball.stats.intervals import Interval, wilson
from flyball.storage.online import OnlineStore
from flyball.storage.tables import TableStore

__all__ = ["Agreement", "FeatureAgreement", "agreement", "sampled_entities"]

_Z = 1.959963984540054  # of 95 %, two-sided
_EXAMPLES = 5
_QUANTILES = (0.5, 0.9, 0.99, 1.0)
_AT = "__at"


@dataclass(frozen=True)
class FeatureAgreement:
    """How one feature agrees over the sampled entities.

    Attributes:
        agree: share of entities whose online value equals the offline one, both missing counts; 95 % Wilson interval.
        online_nulls, offline_nulls: share of entities without a value.
        examples: at most five differences: entity, online and offline value.
    """

    agree: Interval
    online_nulls: float
    offline_nulls: float
    examples: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Agreement:
    """How a view's online values agree with its stored rows, as of an instant.

    Values are compared whatever their age and without defaults, so that a value that is too old to be used still counts
    as equal; how many are too old is said apart.

    Attributes:
        view: `previous_leg@1`.
        now: as of when.
        entities: how many were compared.
        agree: share of them of which every feature agrees; 95 % Wilson interval.
        features: by name.
        ages_s: quantiles of the age of the online values: `p50`, `p90`, `p99`, `max`; empty when there is none.
        found: share of the entities that have an online value.
        too_old: share of them whose online value is older than the view's time to live, so that no look-up uses it.
        only_online, only_offline: share of those that only one side knows.
        online_entities: how many entities the online store holds.
    """

    view: str
    now: datetime
    entities: int
    agree: Interval
    features: Mapping[str, FeatureAgreement]
    ages_s: Mapping[str, float] = field(default_factory=dict)
    found: float = 0.0
    too_old: float = 0.0
    only_online: float = 0.0
    only_offline: float = 0.0
    online_entities: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; instants as RFC 3339."""
        return {**asdict(self), "now": self.now.isoformat()}


def sampled_entities(stored: StoredView, tables: TableStore, sample: int, seed: int = 0) -> pl.DataFrame:
    """Return some of a stored view's entities, each once, drawn by the hash of their key: the same for the same seed.

    Every entity is as likely as any other, however many rows it has. Reads the key columns of the whole view, block by
    block, and holds twice the sample.
    """
    if isinstance(sample, bool) or sample < 1:
        raise InvalidInput(f"a sample of {sample!r} entities compares nothing; expected a whole number from 1")
    keys = list(stored.spec.entity)
    scan, kept = tables.scan(stored.table).select(keys), pl.DataFrame()
    for start in range(0, stored.rows, 1_000_000):
        part = scan.slice(start, 1_000_000).collect().unique()
        part = part.with_columns(pl.struct(keys).hash(seed).alias("__hash"))
        kept = pl.concat([kept, part.bottom_k(sample, by="__hash")]).unique(keys).bottom_k(sample, by="__hash")
    return kept.sort(keys).select(keys) if kept.width else scan.clear().collect()


def agreement(
    stored: StoredView,
    tables: TableStore,
    store: OnlineStore,
    now: datetime,
    *,
    sample: int = 1_000,
    seed: int = 0,
    tolerance: float = 1e-9,
) -> Agreement:
    """Compare what a look-up finds for a sample of entities with the newest stored row of each, both as of `now`.

    Args:
        stored: the view's rows; pushes that were not folded in yet are differences.
        now: with a zone; rows from after it, or arrived after it, count on neither side.
        sample: how many entities; all when there are fewer.
        tolerance: how far floats may differ, relatively.

    Raises:
        InvalidInput: `now` has no zone, the sample is not positive, or the view has no rows.
        Corrupt: an online value cannot be read back.
    """
    if now.tzinfo is None:
        raise InvalidInput(f"the time {now.isoformat()} has no zone; give it one")
    ttl_s = math.inf if stored.spec.ttl_s is None else stored.spec.ttl_s
    spec = replace(stored.spec, ttl_s=None, defaults={})
    entities = sampled_entities(stored, tables, sample, seed)
    if not entities.height:
        raise InvalidInput(f"the view {spec.stored_as} has no stored rows, so there is nothing to compare")
    asked = entities.with_columns(pl.lit(now).dt.convert_time_zone("UTC").cast(pl.Datetime("us", "UTC")).alias(_AT))
    offline = join_stored(asked, _AT, replace(stored, spec=spec), tables, age=True)
    online = look_up(store, [spec], {name: entities[name].to_list() for name in spec.entity}, now, ages=True)
    ages = np.array([math.nan if age is None else age for age in online[spec.age_column]])
    has_online, has_offline = ~np.isnan(ages), offline[spec.age_column].is_not_null().to_numpy()
    names = encoded_keys(entities, spec.entity)
    same_everywhere = np.ones(entities.height, dtype=bool)
    features = {}
    for name in spec.features:
        ours, theirs = online[name], offline[name].to_list()
        same = np.array([_same(a, b, tolerance) for a, b in zip(ours, theirs, strict=True)])
        same_everywhere &= same
        differ = np.flatnonzero(~same)[:_EXAMPLES]
        features[name] = FeatureAgreement(
            _share(same),
            sum(value is None for value in ours) / len(ours),
            sum(value is None for value in theirs) / len(theirs),
            tuple({"entity": names[i], "online": _plain(ours[i]), "offline": _plain(theirs[i])} for i in differ),
        )
    return Agreement(
        spec.stored_as,
        now,
        entities.height,
        _share(same_everywhere),
        features,
        _quantiles(ages[has_online]),
        float(has_online.mean()),
        float((ages > ttl_s).mean()),
        float((has_online & ~has_offline).mean()),
        float((has_offline & ~has_online).mean()),
        store.count(spec.stored_as),
    )


def _share(same: np.ndarray[Any, np.dtype[np.bool_]]) -> Interval:
    share = float(same.mean())
    low, high = wilson(share, len(same), _Z)
    return Interval(low, share, high, 0.95, "wilson")


def _quantiles(ages: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float]:
    if not len(ages):
        return {}
    found = np.quantile(ages, _QUANTILES).tolist()
    return dict(zip(("p50", "p90", "p99", "max"), found, strict=True))


def _same(online: Any, offline: Any, tolerance: float) -> bool:
    if isinstance(online, float) or isinstance(offline, float):
        if online is None or offline is None:
            return online is offline
        return math.isclose(online, offline, rel_tol=tolerance, abs_tol=0.0)
    return bool(online == offline)


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
