"""A home full of real data for the tests of the data pages: flights, weather, digits, hospitals, ratings, labels."""

from __future__ import annotations

import contextlib
import gzip
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pages_home import HOSTILE, Server

from flyball.clock import SYSTEM
from flyball.data.datasets import ContractBroken
from flyball.data.files import Files
from flyball.data.inference import infer_contract
from flyball.platform import Platform
from flyball.testing.clock import FakeClock
from flyball.wire.openlineage.receiving import receive

FLIGHTS_CONTRACT: dict[str, Any] = {
    "apiVersion": "v3.1.0", "kind": "DataContract", "id": "flights", "version": "2.1.0", "status": "active",
    "schema": [{"name": "flights", "properties": [
        {"name": "flight_id", "logicalType": "integer", "required": True, "unique": True},
        {"name": "carrier", "logicalType": "string", "required": True, "logicalTypeOptions": {"maxLength": 2}},
        {"name": "origin", "logicalType": "string", "quality": [
            {"type": "library", "metric": "invalidValues", "arguments": {"validValues": ["EWR", "JFK", "LGA"]},
             "mustBe": 0}]},
        {"name": "distance", "logicalType": "integer", "logicalTypeOptions": {"minimum": 1, "maximum": 6000}},
        {"name": "dep_delay", "logicalType": "number", "logicalTypeOptions": {"minimum": -120, "maximum": 1500}},
        {"name": "tailnum", "logicalType": "string", "classification": "confidential",
         "quality": [{"type": "library", "metric": "nullValues", "mustBeLessThan": 5, "unit": "percent",
                      "severity": "warning"}]},
    ], "quality": [{"type": "library", "metric": "rowCount", "mustBeGreaterThan": 100}]}],
}  # fmt: skip
WEATHER = "SELECT f.origin, f.dest, a.name AS airline, f.arr_delay - f.dep_delay AS made_up FROM flights f "
QUERY = WEATHER + "JOIN airlines a ON f.carrier = a.carrier WHERE f.arr_delay IS NOT NULL"
WORDS = ["Grüße.txt", "日本語.txt", "late.txt"]


class DataHome:
    """A platform whose clock is moved by hand, so that batches lie days apart."""

    def __init__(self, home: Path, shared_data: Path) -> None:
        self.clock = FakeClock(SYSTEM.now() - timedelta(days=21))
        self.platform = Platform.open(home, clock=self.clock)
        self.shared = shared_data

    def days(self, count: float) -> None:
        self.clock.advance(count * 86_400)

    def close(self) -> None:
        self.platform.close()


def furnish(home: DataHome, folder: Path) -> None:
    """Fill a home; `folder` takes the text files that are published as data."""
    at, shared = home.platform, home.shared
    flights = pl.read_parquet(shared / "nycflights13" / "flights.parquet").sort("flight_id")
    at.declare(
        "Dataset", "flights", contract=FLIGHTS_CONTRACT, event_time="sched_dep_ts", known_at="arr_ts",
        target="arr_delay", entity=["tailnum"], key=["flight_id"], owner="team/flights", domain="operations",
        tags=["gold", "flights"], description="Every flight that left New York in 2013. " + HOSTILE,
        columns={"tailnum": {"description": "the aircraft"}, "arr_delay": {"description": "minutes; early is less"}},
        source={"files": str(shared / "nycflights13" / "flights.parquet")},
    )  # fmt: skip
    at.declare("Dataset", "airlines", domain="operations", owner="team/flights", tags=["gold"], key=["carrier"])
    at.publish("airlines", str(shared / "nycflights13" / "airlines.csv"), note="from the bureau")
    at.publish("flights", flights.slice(0, 20_000), note="winter")
    home.days(2)
    at.publish("flights", flights.slice(20_000, 6_000), mode="append")
    home.days(3)
    bad = flights.slice(26_000, 1_500).with_columns(
        distance=pl.when(pl.int_range(pl.len()) % 7 == 0).then(-pl.col("distance")).otherwise("distance"),
        origin=pl.when(pl.int_range(pl.len()) % 50 == 0).then(pl.lit("ZZZ")).otherwise("origin"),
    )
    for change in (bad, bad.head(300), bad.tail(200)):
        with contextlib.suppress(ContractBroken):
            at.publish("flights", change, mode="append")
        home.days(1)
    at.fix("flights", 2, {"distance": pl.col("distance").abs(), "origin": pl.lit("EWR")}, mode="append")
    at.drop("flights", 3, "an export that was cut off")
    home.days(2)
    warmer = flights.slice(0, 20_000).with_columns(dep_delay=pl.col("dep_delay") + 30).head(19_500)
    at.publish("flights", warmer.with_columns(gate=pl.lit("A1"), distance=pl.col("distance").cast(pl.Float64)))
    home.days(1)
    at.declare("Dataset", "recovered", description="how many minutes were made up in the air", domain="operations")
    at.publish("recovered", QUERY)
    _weather(home)
    _hospital(home)
    _files(home, folder)
    _ratings(home)
    _products(home)
    _labels(home)
    _users(home)


def _weather(home: DataHome) -> None:
    at = home.platform
    weather = pl.read_parquet(home.shared / "nycflights13" / "weather.parquet")
    contract = infer_contract(weather, name="weather")
    origin = next(p for p in contract["schema"][0]["properties"] if p["name"] == "origin")
    origin["quality"] = [{"type": "library", "metric": "invalidValues", "mustBe": 0,
                          "arguments": {"validValues": ["EWR", "JFK", "LGA"]}}]  # fmt: skip
    at.declare("Dataset", "weather", contract=contract, domain="weather", owner="user/ada", on_failure="split",
               event_time="time_hour", tags=["hourly"])  # fmt: skip
    third = weather.height // 3
    at.publish("weather", weather.head(third))
    home.days(1)
    lost = pl.when(pl.int_range(pl.len()) < 40).then(pl.lit("XXX")).otherwise("origin").alias("origin")
    at.publish("weather", weather.slice(third, third).with_columns(lost))


def _hospital(home: DataHome) -> None:
    at, folder = home.platform, home.shared / "dirty" / "hospital"
    clean, dirty = (pl.read_csv(folder / f"{n}.csv", infer_schema_length=0) for n in ("clean", "dirty"))
    contract = infer_contract(clean, name="hospital")
    for item in contract["schema"][0]["properties"]:
        for rule in item.get("quality", []):
            rule.pop("severity", None)  # what was only never seen otherwise warns; here it shall fail
    at.declare("Dataset", "hospital", contract=contract, domain="health", owner="team/health", tags=["public"])
    at.publish("hospital", clean)
    home.days(1)
    with contextlib.suppress(ContractBroken):
        at.publish("hospital", dirty)


def _files(home: DataHome, folder: Path) -> None:
    at = home.platform
    raw = gzip.decompress((home.shared / "mnist_t10k" / "t10k-images-idx3-ubyte.gz").read_bytes())
    names = gzip.decompress((home.shared / "mnist_t10k" / "t10k-labels-idx1-ubyte.gz").read_bytes())
    pixels = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 28, 28)[:400]
    at.declare("Dataset", "digits", description="images of digits", domain="vision", tags=["images"], key=["path"])
    at.publish("digits", Files.of_images(pixels, list(np.frombuffer(names, np.uint8, offset=8)[:400])))
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in zip(
        WORDS, ("Der Flug nach Köln hat Verspätung.\n" * 9, "飛行機が遅れています。\n" * 4, HOSTILE), strict=True
    ):
        (folder / name).write_text(text, "utf-8")
    (folder / "page.html").write_text("<html><script>alert(1)</script></html>", "utf-8")
    (folder / "picture.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "utf-8")
    (folder / "bytes.bin").write_bytes(b"\x00\x01\x02")
    at.declare("Dataset", "notes", description="what pilots wrote", domain="operations", tags=["texts"])
    at.publish("notes", Files(folder))


def _ratings(home: DataHome) -> None:
    at = home.platform
    ratings = pl.read_csv(home.shared / "movielens_small" / "ratings.csv")
    at.declare("Dataset", "ratings", description="who liked which film", domain="films", purposes=["research"],
               key=["userId", "movieId"], owner="user/ada")  # fmt: skip
    at.publish("ratings", ratings)


def _products(home: DataHome) -> None:
    at = home.platform
    level = {"measure": "freshness", "at_most": "2d"}
    at.declare(
        "DataProduct", "departures", label="Departures of New York", owner="team/flights", domain="operations",
        purpose="To know which flight will be late.", limitations="2013 only.", tags=["gold"],
        outputs=[{"name": "flights", "version": "2", "dataset": "flights"}, {"name": "stream", "type": "topic"}],
        inputs=[{"name": "airlines", "dataset": "airlines"}],
        levels=[level, {"measure": "completeness", "at_least": 0.99}, {"measure": "row_count", "at_least": 1000}],
    )  # fmt: skip
    at.declare("DataProduct", "old-weather", owner="user/ada", domain="weather",
               outputs=[{"name": "weather", "dataset": "weather"}], levels=[{**level, "at_most": "9d"}])  # fmt: skip
    at.declare("DataProduct", "planned", domain="films", description="not made yet")
    for stage in ("incubating", "active"):
        at.advance_product("departures", stage)
        at.advance_product("old-weather", stage)
    at.declare("Model", "sky", dataset="weather", description="learns from the weather")
    at.advance_product("old-weather", "deprecated", reason="the station closes", replaced_by="dataset/flights")


def _labels(home: DataHome) -> None:
    at = home.platform
    at.declare("Labels", "digit-names", dataset="digits", key=["path"], values=[str(n) for n in range(10)], needed=2,
               description="what three people saw", owner="user/ada", domain="vision")  # fmt: skip
    shown = at.frame("digits").select("path", "label").head(120).collect()
    rows = []
    for at_row, (path, truth) in enumerate(shown.iter_rows()):
        for place, who in enumerate(("ada", "grace", "linus")):
            if at_row >= 80 and place == 2:
                continue
            said = str((int(truth) + 1) % 10) if (at_row * 7 + place * 3) % 11 == 0 else truth
            rows.append({"path": path, "label": said, "labeller": who})
    at.add_labels("digit-names", rows)


def _users(home: DataHome) -> None:
    """A policy, runs that read, what others emit, and names that are taken by the pages themselves."""
    at = home.platform
    mask = {"columns": ["tailnum"], "how": "redact"}
    at.declare("Policy", "tails", applies_to={"datasets": ["flights"]}, mask=[mask], description="nobody sees tails")
    at.declare("Dataset", "products", description="a table whose name is a page of ours", domain="shop")
    at.publish("products", pl.DataFrame({"größe": [1, 2, None], "名前": ["a", "b", "c"], "a b/c?d": [0.5, None, 1.5]}))
    at.declare("Dataset", "declared-only", description="nothing was published")
    with at.start_run("late-arrivals") as run:
        run.use(at.version("dataset/flights@1").ref)
    for version in ("flights@1", "flights@2", "airlines"):
        at.frame(version).head(1).collect()
    with at.recording() as world:
        for path in sorted((home.shared / "fixtures" / "openlineage" / "events").glob("*.json"))[:6]:
            found = json.loads(path.read_text())
            with contextlib.suppress(Exception):
                receive(found[0] if isinstance(found, list) else found, world, "flyball")
        receive(external(), world, "flyball")


def external() -> dict[str, Any]:
    """An event of another tool that read one of our versions and wrote a table of its own."""
    return {
        "eventType": "COMPLETE", "eventTime": "2026-02-01T10:00:00Z", "producer": "https://example.org/dbt",
        "schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent",
        "run": {"runId": "01902c1b-6b1a-7c7a-9b3a-5a1b2c3d4e5f"}, "job": {"namespace": "dbt", "name": "daily.report"},
        "inputs": [{"namespace": "flyball", "name": "dataset/flights"}],
        "outputs": [{"namespace": "postgres://db:5432", "name": "public.late_report",
                     "facets": {"schema": {"fields": [{"name": "carrier", "type": "text"}]}}}],
    }  # fmt: skip


@contextlib.contextmanager
def served_data(home: Path, shared_data: Path, *, full: bool = True) -> Iterator[tuple[DataHome, Server]]:
    """Open a home, furnish it or leave it empty, serve its pages, and close both."""
    it = DataHome(home, shared_data)
    if full:
        furnish(it, home.parent / "notes")
    server = Server(it.platform)
    try:
        yield it, server
    finally:
        server.close()
        it.close()
