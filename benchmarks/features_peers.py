"""What Feast does in `features_training`: scripts for the peer's own environment, see `peers`."""

from __future__ import annotations

__all__ = ["FEAST_JOIN", "FEAST_MATERIALISE"]

FEAST_JOIN = """
import json, sys, time
from datetime import timedelta
from pathlib import Path
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64, Int64
folder, rows = Path(sys.argv[1]), int(sys.argv[2])
online = {"type": "sqlite", "path": str(folder / "feast.db")}
config = RepoConfig(
    project="bench", provider="local", registry=str(folder / "registry.db"), offline_store={"type": "duckdb"},
    online_store=online, entity_key_serialization_version=3,
)
store = FeatureStore(config=config)
entity = Entity(name="key", join_keys=["key"], value_type=ValueType.INT64)
views = []
for n, days in enumerate((1, 7, 30)):
    source = FileSource(
        path=str(folder / f"feast{n}.parquet"), timestamp_field="event", created_timestamp_column="known"
    )
    schema = [Field(name="key", dtype=Int64), *[Field(name=f"f{n}_{i}", dtype=Float64) for i in range(3)]]
    ttl = timedelta(days=days)
    views.append(FeatureView(name=f"v{n}", entities=[entity], ttl=ttl, source=source, schema=schema))
store.apply([entity, *views])
asked = pd.read_parquet(folder / "rows.parquet").head(rows).rename(columns={"asked_at": "event_timestamp"})
features = [f"v{n}:f{n}_{i}" for n in range(3) for i in range(3)]
wall, cpu = time.perf_counter(), time.process_time()
made = store.get_historical_features(entity_df=asked, features=features).to_df()
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
made.rename(columns={"event_timestamp": "asked_at"}).to_parquet(folder / "feast.parquet")
peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1e6
print(json.dumps({"s": wall, "CPU s": cpu, "GB": peak}))
"""

FEAST_MATERIALISE = """
import json, sys, time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64, Int64
folder = Path(sys.argv[1])
online = {"type": "sqlite", "path": str(folder / "feast-online.db")}
config = RepoConfig(
    project="bench", provider="local", registry=str(folder / "registry-online.db"), offline_store={"type": "duckdb"},
    online_store=online, entity_key_serialization_version=3,
)
store = FeatureStore(config=config)
entity = Entity(name="key", join_keys=["key"], value_type=ValueType.INT64)
source = FileSource(path=str(folder / "values.parquet"), timestamp_field="at")
schema = [Field(name="key", dtype=Int64), *[Field(name=f"f{i}", dtype=Float64) for i in range(10)]]
view = FeatureView(name="values", entities=[entity], ttl=timedelta(days=9), source=source, schema=schema)
store.apply([entity, view])
now = datetime(2021, 1, 1, tzinfo=timezone.utc)
started = time.perf_counter()
store.materialize(now - timedelta(days=1), now + timedelta(days=1))
spent = time.perf_counter() - started
peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1e3
print(json.dumps({"s": spent, "MB": peak}))
"""
