"""What a client of MLflow does with an access key and without one; started by the tests like `perform.py`.

    python with_keys.py ADDRESS SECRET VIEWERS_SECRET

Prints a line of JSON: what it was told, and how long each refusal took.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def main(address: str, secret: str, viewers: str) -> None:
    os.environ |= {"MLFLOW_TRACKING_URI": address, "GIT_PYTHON_REFRESH": "quiet", "MLFLOW_DISABLE_TELEMETRY": "true"}
    import mlflow
    from mlflow import MlflowClient

    told: dict[str, Any] = {"took_s": 0.0}

    def refused(name: str, **environment: str) -> None:
        _be(**environment)
        acts = {
            "create": lambda: MlflowClient(address).create_experiment(name),
            "log": lambda: MlflowClient(address).log_metric(run, "refused", 1.0),
            "search": lambda: MlflowClient(address).search_experiments(),
            "upload": lambda: MlflowClient(address).log_text(run, "x", "refused.txt"),
            "list": lambda: mlflow.artifacts.list_artifacts(run_id=run),
            "register": lambda: MlflowClient(address).create_registered_model(name),
        }
        for act, do in acts.items():
            begun = time.monotonic()
            try:
                do()
                told[f"{name} {act}"] = "done"
            except Exception as error:
                told[f"{name} {act}"] = f"{getattr(error, 'error_code', '')} {error}"
            told["took_s"] = max(told["took_s"], time.monotonic() - begun)

    _be(MLFLOW_TRACKING_TOKEN=secret)
    with mlflow.start_run() as active:
        run = active.info.run_id
        mlflow.log_metric("auc", 0.75, step=1)
        mlflow.log_text("x" * 100_000, "notes.txt")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(mlflow.artifacts.download_artifacts(run_id=run, artifact_path="notes.txt", dst_path=folder))
        told["size"] = path.stat().st_size
    told["user"] = MlflowClient(address).get_run(run).info.user_id
    _be(MLFLOW_TRACKING_USERNAME="anybody", MLFLOW_TRACKING_PASSWORD=secret)
    told["auc"] = MlflowClient(address).get_run(run).data.metrics["auc"]
    refused("keyless")
    refused("wrong", MLFLOW_TRACKING_TOKEN="fb_wrong")
    refused("viewer", MLFLOW_TRACKING_TOKEN=viewers)
    print("\n" + json.dumps(told), flush=True)


def _be(**environment: str) -> None:
    for name in ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        os.environ.pop(name, None)
    os.environ |= environment


if __name__ == "__main__":
    main(*sys.argv[1:])
