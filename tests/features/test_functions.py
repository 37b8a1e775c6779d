"""Request-time functions on their way to serving: kept in the home, checked when loaded, the same as in training."""

from __future__ import annotations

import importlib.util
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.errors import Corrupt, InvalidInput, NotFound, StepFailed
from flyball.features.functions import FOLDER, FunctionSpec, keep_function, load_function
from flyball.features.prepared import buckets, calendar, hashed, holidays
from flyball.features.requests import OnRequest, on_request
from flyball.features.served import LoadedFunction, ServedFeatures, read_feature
from flyball.features.specs import ViewSpec
from flyball.storage.online import OnlineValue
from flyball.storage.online.sqlite import SqliteOnline

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MODULE = '''
"""Features of flights."""
from __future__ import annotations
import dataclasses, math
from datetime import datetime

import flyball as fb
from flyball.features.requests import on_request

RUSH = (7, 8, 17)
LOADED = []
raise_at_import = fb  # not needed by anything


@dataclasses.dataclass
class Part:
    hour: int
    def is_rush(self) -> bool:
        return self.hour in RUSH


def part_of(at: datetime) -> Part:
    return Part(at.hour)


@on_request
def calendar(sched_dep_ts: datetime, distance: float | None = None) -> dict:
    """When it leaves."""
    part = part_of(sched_dep_ts)
    if distance is None:
        return {"hour": part.hour, "is_rush": part.is_rush(), "far": math.nan}
    return {"hour": part.hour, "is_rush": part.is_rush(), "far": math.sqrt(abs(distance))}


@on_request(returns={"ratio": float})
def ratio(distance: float, previous_delay: float | None) -> dict:
    return {"ratio": (previous_delay or 0.0) / distance}


@on_request
def computed(x: int) -> dict:
    return dict(y=x)


@on_request(returns={"y": int})
def leaves(x: int) -> dict:
    if x == 13:
        raise SystemExit(3)
    return {"y": x} if x < 50 else {"z": x}


if True:
    LOADED.append(1)
open(__file__ + ".ran", "a").write("x")
'''


@pytest.fixture
def project(tmp_path: Path) -> ModuleType:
    """The module as training imports it."""
    path = tmp_path / "project" / "flight_features.py"
    path.parent.mkdir()
    path.write_text(MODULE)
    found = importlib.util.spec_from_file_location("flight_features", path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules["flight_features"] = module
    found.loader.exec_module(module)
    yield module  # type: ignore[misc]
    del sys.modules["flight_features"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_a_kept_function_is_the_one_that_training_ran_and_nothing_else_of_its_module(
    project: ModuleType, home: Path, tmp_path: Path
) -> None:
    spec = keep_function(project.calendar, home)
    assert (spec.name, spec.inputs, spec.optional) == ("calendar", ("sched_dep_ts", "distance"), ("distance",))
    assert spec.outputs == ("hour", "is_rush", "far")
    loaded = load_function(FunctionSpec.from_dict(spec.to_dict()), home)
    assert loaded is not project.calendar
    assert loaded.digest == project.calendar.digest
    kept = (home / FOLDER / spec.file).read_text()
    assert "RUSH" in kept and "part_of" in kept and "import dataclasses, math" in kept
    assert "import flyball as fb" not in kept and "LOADED" not in kept and "ratio" not in kept
    assert len((tmp_path / "project" / "flight_features.py.ran").read_text()) == 1
    assert keep_function(project.calendar, home) == spec
    assert len(list((home / FOLDER).iterdir())) == 1


records = st.lists(
    st.fixed_dictionaries(
        {
            "sched_dep_ts": st.none()
            | st.datetimes(datetime(1990, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)),
            "distance": st.none() | st.floats(-1e6, 1e6),
        }
    ),
    min_size=1,
    max_size=8,
)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> LoadedFunction:
    folder = tmp_path_factory.mktemp("functions")
    (folder / "features.py").write_text(MODULE)
    found = importlib.util.spec_from_file_location("kept_features", folder / "features.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules["kept_features"] = module
    found.loader.exec_module(module)
    spec = keep_function(module.calendar, folder)
    loaded = read_feature(spec.to_dict(), lambda s: load_function(s, folder))
    assert isinstance(loaded, LoadedFunction)
    return loaded


@settings(max_examples=60, deadline=None)
@given(rows=records, as_arrays=st.booleans())
def test_rows_served_are_what_a_table_gets_in_training(
    kept: LoadedFunction, rows: list[dict[str, Any]], as_arrays: bool
) -> None:
    trained: OnRequest = sys.modules["kept_features"].calendar
    types = {"hour": int, "is_rush": bool, "far": float}
    declared = OnRequest(trained.name, trained.function, trained.inputs, trained.defaults, types)
    frame = pl.DataFrame(rows, schema={"sched_dep_ts": pl.Datetime("us", "UTC"), "distance": pl.Float64})
    offline = declared.apply(frame.lazy()).collect().select(list(types)).to_dict(as_series=False)
    fields: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    if as_arrays:  # as the engine gives a model's inputs
        moments = [None if m is None else m.replace(tzinfo=None) for m in fields["sched_dep_ts"]]
        fields["sched_dep_ts"] = np.array(moments, "datetime64[us]")
        fields["distance"] = np.array([np.nan if d is None else d for d in fields["distance"]])
    else:
        fields["sched_dep_ts"] = [None if m is None else m.isoformat() for m in fields["sched_dep_ts"]]
    served = ServedFeatures([kept])
    assert served.fields == ("sched_dep_ts", "distance")
    online = served.look_up(None, fields, NOW, len(rows))  # type: ignore[arg-type]
    assert online == offline


def test_a_function_takes_what_a_view_gives(project: ModuleType, home: Path) -> None:
    store = SqliteOnline(home / "online.sqlite")
    view = ViewSpec("previous_leg", ("tailnum",), "at", {"previous_delay": "float64"})
    store.put(view.stored_as, [("N1", OnlineValue(NOW, {"previous_delay": 30.0}))])
    ratio = read_feature(keep_function(project.ratio, home).to_dict(), lambda s: load_function(s, home))
    served = ServedFeatures([view, ratio])
    assert (served.keys, served.fields) == (("tailnum",), ("tailnum", "distance"))
    fields = {"tailnum": ["N1", "N2"], "distance": np.array([60.0, 5.0])}
    found = served.look_up(store, fields, NOW + timedelta(1), 2, ages=True)
    assert found == {"previous_delay": [30.0, None], "previous_leg_age_s": [86400.0, None], "ratio": [0.5, 0.0]}


def test_a_row_on_which_a_function_fails_is_named(project: ModuleType, home: Path) -> None:
    def loaded(function: OnRequest) -> ServedFeatures:
        return ServedFeatures([read_feature(keep_function(function, home).to_dict(), lambda s: load_function(s, home))])

    ratio, leaves = loaded(project.ratio), loaded(project.leaves)
    with pytest.raises(StepFailed, match="row 1: the function ratio raised ZeroDivisionError"):
        ratio.look_up(None, {"distance": [1.0, 0.0], "previous_delay": [1.0, 1.0]}, NOW, 2)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match='row 0: "distance" given to ratio is a str; expected float'):
        ratio.look_up(None, {"distance": ["x"], "previous_delay": [1.0]}, NOW, 1)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match='the function ratio needs "previous_delay"'):
        ratio.look_up(None, {"distance": [1.0]}, NOW, 1)  # type: ignore[arg-type]
    with pytest.raises(StepFailed, match="row 1: the function leaves asked Python to exit"):
        leaves.look_up(None, {"x": [1, 13]}, NOW, 2)  # type: ignore[arg-type]
    with pytest.raises(StepFailed, match="row 0: the function leaves returned z; declared were y"):
        leaves.look_up(None, {"x": [50]}, NOW, 1)  # type: ignore[arg-type]


def test_what_cannot_be_kept_is_refused(project: ModuleType, home: Path) -> None:
    @on_request
    def inner(x: int) -> dict[str, int]:
        return {"y": x}

    with pytest.raises(InvalidInput, match="inner is defined inside a function; define it at the top of a file"):
        keep_function(inner, home)
    with pytest.raises(InvalidInput, match=r"what computed returns cannot be told .*@on_request\(returns="):
        keep_function(project.computed, home)
    space: dict[str, Any] = {}
    exec("from flyball.features.requests import on_request\n@on_request\ndef typed(x: int): return {'y': x}", space)
    with pytest.raises(InvalidInput, match="typed has no file"):
        keep_function(space["typed"], home)
    path = Path(project.__file__ or "")
    path.write_text(MODULE.replace("RUSH = (7, 8, 17)", "RUSH = (7, 8)"))
    with pytest.raises(Corrupt, match="calendar computes something else than when it was declared"):
        keep_function(project.calendar, home)
    path.write_text(MODULE.replace("import dataclasses, math", "import dataclasses, math, no_such_library"))
    with pytest.raises(StepFailed, match=r"cannot be imported where it is served .*no_such_library"):
        keep_function(project.calendar, home)


def test_only_the_files_that_were_kept_are_ever_run(project: ModuleType, home: Path, tmp_path: Path) -> None:
    spec = keep_function(project.calendar, home)
    (tmp_path / "evil_0123456789abcdef.py").write_text("raise SystemExit")
    for file in ("../../evil_0123456789abcdef.py", "/etc/passwd", str(tmp_path / "evil_0123456789abcdef.py"), ""):
        with pytest.raises(InvalidInput, match="which is none of"):
            load_function(FunctionSpec(**{**vars(spec), "file": file}), home)
    (home / FOLDER / "evil_0123456789abcdef.py").symlink_to(tmp_path / "evil_0123456789abcdef.py")
    with pytest.raises(InvalidInput, match="which is none of"):
        load_function(FunctionSpec(**{**vars(spec), "file": "evil_0123456789abcdef.py"}), home)
    with pytest.raises(Corrupt, match="computes something else"):
        load_function(FunctionSpec(**{**vars(spec), "digest": "0" * 64}), home)
    kept = home / FOLDER / spec.file
    kept.write_text(kept.read_text() + "\n")
    with pytest.raises(Corrupt, match="has changed since calendar was declared; declare the function again"):
        load_function(spec, home)
    kept.unlink()
    with pytest.raises(NotFound, match="there is no file"):
        load_function(spec, home)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fil": "x"}, 'unknown field "fil"; did you mean "file"'),
        ({"file": 3}, 'has 3 as its "file"; expected text'),
        ({"inputs": "x"}, "expected a list"),
    ],
)
def test_a_wrong_description_is_refused(project: ModuleType, home: Path, change: dict[str, Any], message: str) -> None:
    document = keep_function(project.calendar, home).to_dict() | change
    with pytest.raises(InvalidInput, match=message):
        FunctionSpec.from_dict(document)


def test_two_features_of_one_name_are_refused(project: ModuleType, home: Path) -> None:
    view = ViewSpec("legs", ("tailnum",), "at", {"hour": "int64"})
    calendar = read_feature(keep_function(project.calendar, home).to_dict(), lambda s: load_function(s, home))
    with pytest.raises(InvalidInput, match='both legs and calendar have a feature "hour"'):
        ServedFeatures([view, calendar])


@pytest.mark.parametrize(
    ("ready_made", "record"),
    [
        (calendar("at", zone="America/New_York", parts=["hour", "weekday", "hour_sin", "is_weekend"], prefix="dep_"),
         {"at": "2026-07-04T02:30:00Z"}),
        (holidays("at", country="US", zone="America/New_York", years=(2025, 2026)), {"at": "2026-07-05T02:30:00Z"}),
        (buckets("it's", [0.0, 2.5]), {"it's": 2.5}),
        (hashed("carrier", 97, name="c"), {"carrier": "Ünited"}),
    ],
    ids=lambda value: getattr(value, "name", "record"),
)  # fmt: skip
def test_a_ready_made_function_is_kept_as_the_call_that_makes_it(
    ready_made: OnRequest, record: dict[str, Any], tmp_path: Path
) -> None:
    spec = keep_function(ready_made, tmp_path)
    assert keep_function(ready_made, tmp_path) == spec
    sys.modules.pop(f"flyball_function_{Path(spec.file).stem}")
    loaded = load_function(FunctionSpec.from_dict(spec.to_dict()), tmp_path)
    assert loaded is not ready_made and loaded.digest == ready_made.digest
    assert loaded.compute(record) == ready_made.compute(record) is not None
    assert "= holidays(" not in (tmp_path / FOLDER / spec.file).read_text()  # that would need its library
