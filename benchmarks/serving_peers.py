"""Other model servers with the same models, each in an environment of its own: FastAPI, MLServer, MLflow.

A peer trains the models itself, from the rows that it is given, so that no pickle crosses versions; what it says about
one body is compared with what its own model says, before anything is timed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import python_of
from benchmarks.serving_load import free_port

__all__ = ["PEERS", "Peer", "body_of", "served", "train"]

_READY_LIMIT_S = 120.0
_THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # more make every one of them slower

_TRAIN = """
import json, sys
from pathlib import Path
import joblib, numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
folder, flavor = Path(sys.argv[1]), sys.argv[2]
rows, truth = np.load(folder / "rows.npy"), np.load(folder / "truth.npy")
models = {
    "m1": HistGradientBoostingClassifier(max_iter=100, random_state=7),
    "m2": make_pipeline(StandardScaler(), LogisticRegression()),
}
expected = {}
for name, model in models.items():
    model.fit(rows, truth)
    expected[name] = model.predict_proba(rows[:1])[0].tolist() + [int(model.predict(rows[:1])[0])]
    if flavor == "mlflow":
        import mlflow.sklearn
        mlflow.sklearn.save_model(model, str(folder / f"mlflow-{name}"), serialization_format="cloudpickle")
    else:
        joblib.dump(model, folder / f"{flavor}-{name}.joblib")
print(json.dumps(expected))
"""

_FASTAPI = """
import os
import joblib, numpy as np
from fastapi import FastAPI
from pydantic import BaseModel
model = joblib.load(os.environ["MODEL"])
app = FastAPI()
class Rows(BaseModel):
    rows: list[list[float]]
class Answer(BaseModel):
    prediction: list[int]
    probability: list[float]
@app.post("/predict")
async def predict(given: Rows) -> Answer:
    likely = model.predict_proba(np.array(given.rows))[:, 1]
    return Answer(prediction=(likely > 0.5).astype(int).tolist(), probability=likely.tolist())
@app.get("/ready")
async def ready() -> bool:
    return True
"""


@dataclass(frozen=True)
class Peer:
    """One server in one setting; `form` is the shape of its requests, `flavor` the environment that trained."""

    name: str
    flavor: str
    form: str
    workers: int = 0


PEERS = (
    Peer("FastAPI + uvicorn", "fastapi", "rows"),
    Peer("MLServer, no workers", "mlserver", "oip"),
    Peer("MLServer, 1 worker, batching", "mlserver", "oip", 1),
    Peer("mlflow models serve", "mlflow", "inputs"),
)


def train(flavor: str, folder: Path) -> dict[str, list[float]]:
    """Train m1 and m2 in a peer's environment; return by model what they answer to the first row."""
    command = [str(python_of(flavor)), "-c", _TRAIN, str(folder), flavor]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env={**os.environ, **_THREADS})
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["failed"])[-1][:200])
    found: dict[str, list[float]] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def body_of(rows: np.ndarray[Any, Any], form: str) -> bytes:
    """Return rows as the body of a peer's request."""
    if form == "rows":
        return json.dumps({"rows": rows.tolist()}).encode()
    if form == "inputs":
        return json.dumps({"inputs": rows.tolist()}).encode()
    tensor = {"name": "predict", "shape": list(rows.shape), "datatype": "FP64", "data": rows.ravel().tolist()}
    return json.dumps({"inputs": [tensor], "outputs": [{"name": "predict_proba"}]}).encode()


@contextmanager
def served(peer: Peer, model: str, folder: Path, expected: list[float]) -> Iterator[tuple[int, tuple[str, int], str]]:
    """Start a peer, prove that it answers as its model does, and yield its process, address and path; then stop it.

    Raises:
        RuntimeError: it does not become ready, or answers otherwise.
    """
    port = free_port()
    command, path, ready, extra = _command(peer, model, folder, port)
    with (folder / f"{peer.flavor}-{peer.workers}.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, env={**os.environ, **_THREADS, **extra}, start_new_session=True
        )
        try:
            _wait(process, f"http://127.0.0.1:{port}{ready}")
            first = np.round(np.load(folder / "rows.npy")[:1], 6)
            _prove(f"http://127.0.0.1:{port}{path}", body_of(first, peer.form), expected)
            yield process.pid, ("127.0.0.1", port), path
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def _command(peer: Peer, model: str, folder: Path, port: int) -> tuple[list[str], str, str, dict[str, str]]:
    python = python_of(peer.flavor)
    if peer.flavor == "fastapi":
        (folder / "served_by_fastapi.py").write_text(_FASTAPI)
        command = [str(python), "-m", "uvicorn", "served_by_fastapi:app", "--port", str(port), "--log-level", "error"]
        extra = {"MODEL": str(folder / f"fastapi-{model}.joblib")}
        return [*command, "--no-access-log"], "/predict", "/ready", extra
    if peer.flavor == "mlserver":
        at = folder / f"mlserver-{model}-{peer.workers}"
        at.mkdir(exist_ok=True)
        settings = {
            "http_port": port, "grpc_port": free_port(), "metrics_port": free_port(), "debug": False,
            "parallel_workers": peer.workers,
        }  # fmt: skip
        about = {
            "name": model,
            "implementation": "mlserver_sklearn.SKLearnModel",
            "parameters": {"uri": str(folder / f"mlserver-{model}.joblib")},
            "max_batch_size": 64,
            "max_batch_time": 0.001,
        }
        (at / "settings.json").write_text(json.dumps(settings))
        (at / "model-settings.json").write_text(json.dumps(about))
        command = [str(python.with_name("mlserver")), "start", str(at)]
        return command, f"/v2/models/{model}/infer", f"/v2/models/{model}/ready", {}
    path = str(folder / f"mlflow-{model}")
    command = [
        str(python.with_name("mlflow")),
        "models",
        "serve",
        "-m",
        path,
        "-p",
        str(port),
        "--env-manager",
        "local",
    ]
    extra = {"PATH": f"{python.parent}:{os.environ['PATH']}", "MLFLOW_MODELS_WORKERS": "1"}
    return command, "/invocations", "/ping", extra


def _wait(process: subprocess.Popen[bytes], address: str) -> None:
    until = time.monotonic() + _READY_LIMIT_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"it ended with {process.returncode} before it was ready")
        try:
            with urllib.request.urlopen(address, timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"it was not ready within {_READY_LIMIT_S:g} s")


def _prove(address: str, body: bytes, expected: list[float]) -> None:
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        document = json.loads(answer.read())
    label = round(expected[-1])
    if "outputs" in document:
        holds = np.allclose(document["outputs"][0]["data"], expected[:-1], atol=1e-3)
    elif "probability" in document:
        holds = bool(abs(document["probability"][0] - expected[1]) < 1e-3) and document["prediction"][0] == label
    else:
        holds = document["predictions"] == [label]
    if not holds:
        raise RuntimeError(f"it answers {str(document)[:120]} where its model says {expected}")
