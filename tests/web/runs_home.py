"""A small home for the tests of the run pages: a sweep, curves, files of every sort, a nested run."""

from __future__ import annotations

import io
import json
import math
import random

import polars as pl
from PIL import Image

from flyball.ledger.experiments import InputDataset
from flyball.ledger.points import Point
from flyball.ledger.runs import Run
from flyball.platform import Platform

HOSTILE = "<script>document.title='taken'</script>\"'><img src=x onerror=alert(1)>"
SWEEP = 70
STEPS = 3_000
START_MS = 1_767_225_600_000


def furnish(platform: Platform) -> list[Run]:
    """Fill a home; return the runs of its sweep, in the order they started."""
    chance = random.Random(1)
    late = platform.create_experiment("late-arrivals", tags={"team": "ops", "mlflow.note.content": "# Why\n**late**"})
    recorder, sweep = platform.recorder, []
    for number in range(SWEEP):
        run = recorder.create_run(late.id, name=f"forest-{number}", user="alice").result()
        rate, depth = 10 ** chance.uniform(-4, -1), chance.choice(["4", "8", "12"])
        params = {"lr": str(rate), "depth": depth, "model name": f"res'{number % 3}", "seed": "7"}
        points = [Point("auc", 0.5 + number / 200, 0, START_MS), Point("loss", 1.0 / (number + 1), 0, START_MS)]
        recorder.log(run.id, points=points, params=params, tags={"team": f"t{number % 2}"}).result()
        recorder.update_run(run.id, status="succeeded" if number % 10 else "failed").result()
        sweep.append(platform.run(run.id))
    _curves_and_files(platform, sweep)
    with platform.start_run(HOSTILE, params={HOSTILE: HOSTILE}) as hostile:
        hostile.log({HOSTILE: math.nan})
    return [platform.run(run.id) for run in sweep]


def _curves_and_files(platform: Platform, sweep: list[Run]) -> None:
    recorder = platform.recorder
    for run in sweep[:3]:
        points = [Point("train/loss", math.exp(-step / 500), step, START_MS + 1000 * step) for step in range(STEPS)]
        recorder.log(run.id, points=points).result()
        root = platform.artifact_root(run.id).removeprefix("mlflow-artifacts:/")
        picture, table = io.BytesIO(), io.BytesIO()
        Image.new("RGB", (40, 30), (200, 30, 30)).save(picture, "PNG")
        pl.DataFrame({"who": [HOSTILE], "n": [1]}).write_parquet(table)
        for path, data in (
            ("plots/roc.png", picture.getvalue()),
            ("plots/false.png", b"<svg onload=alert(1)>"),
            ("tables/a.csv", f"who,n\n{HOSTILE},1\n".encode()),
            ("tables/a.parquet", table.getvalue()),
            ("tables/broken.parquet", b"PAR1 no"),
            ("config.json", json.dumps({"depth": [1, {"b": None}]}).encode()),
            ("report.md", f"# Report\n**fine** {HOSTILE}".encode()),
            ("page.html", b"<script>alert(1)</script>"),
            ("model.bin", b"\x00\x01"),
        ):
            platform.keep_bytes(f"{root}/{path}", data)
    flights = InputDataset("flights", "300830b9", "local", "{}")
    platform.log_inputs(sweep[0].id, [(flights, {"mlflow.data.context": "training"})])
    child = recorder.create_run(str(sweep[0].experiment), name="fold-1", tags={"mlflow.parentRunId": sweep[0].id})
    recorder.update_run(child.result().id, status="succeeded").result()
