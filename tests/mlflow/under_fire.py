"""Many client processes that log at once, and write down what the server has acknowledged.

    python under_fire.py ADDRESS FOLDER PROCESSES POINTS

Each process has a run, logs points of it one request after the other, and after each answer adds a line to a file of
its own in FOLDER. MLflow is imported once; the processes are forks.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main(address: str, folder: str, processes: str, points: str) -> None:
    os.environ |= {"MLFLOW_TRACKING_URI": address, "GIT_PYTHON_REFRESH": "quiet", "MLFLOW_DISABLE_TELEMETRY": "true"}
    os.environ |= {"MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "7"}
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    children = []
    for number in range(int(processes)):
        child = os.fork()
        if child:
            children.append(child)
            continue
        code = 1
        try:
            client = MlflowClient(address)
            run = client.create_run("0", tags={"number": str(number)}).info.run_id
            with (Path(folder) / f"{number}-{run}").open("a") as told:
                for step in range(int(points)):
                    if step % 5 == 4:
                        batch = [Metric(key, step + 0.5, 1000 + step, step) for key in ("loss", "auc")]
                        client.log_batch(run, batch, [Param(f"p{step}", str(step))])
                    else:
                        client.log_metric(run, "loss", step + 0.5, 1000 + step, step)
                    told.write(f"{step}\n")
                    told.flush()
            client.set_terminated(run)
            code = 0
        finally:
            os._exit(code)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    sys.exit(max(codes))


if __name__ == "__main__":
    main(*sys.argv[1:])
