"""Carry out the scenarios of one file with the MLflow client of the environment that this runs in.

    python perform.py scenarios/runs.py http://127.0.0.1:7070

It is started by the tests with the Python of a client's environment, where neither Flyball nor pytest is installed.
Prints a line of JSON for each function whose name begins with `check_`: its name, and the traceback where it failed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import traceback
import warnings
from pathlib import Path


def main(path: str, address: str) -> None:
    os.environ["MLFLOW_TRACKING_URI"] = address
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "1"
    os.environ["GIT_PYTHON_REFRESH"] = "quiet"
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    warnings.simplefilter("ignore")
    import mlflow

    mlflow.set_tracking_uri(address)
    spec = importlib.util.spec_from_file_location("scenarios", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, check in list(vars(module).items()):  # a warning adds a name
        if not name.startswith("check_"):
            continue
        mlflow.set_experiment(f"{Path(path).stem}-{name}-{mlflow.__version__}")
        try:
            check()
            failure = None
        except BaseException:
            failure = traceback.format_exc()
        while mlflow.active_run() is not None:
            mlflow.end_run()
        print("\n" + json.dumps({"name": name, "failure": failure}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
