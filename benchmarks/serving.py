"""The data plane beside FastAPI + uvicorn, MLServer and `mlflow models serve` (`make bench-serving`).

    python -m benchmarks.serving [--seconds 3] [--no-peers]

The same rows, the same sort of model, the same client, one server at a time in one run. The figure is CPU per request
of the server's process tree, because client and server share the machine; walls are printed for Flyball only. Flyball
runs with validation, routing, the durable request log and metrics on; its peers with what they do by default and no
log. Bodies rotate: a tree model that sees one row again and again is four times too fast. The limit beside a figure
is the same model called in this process, without any protocol. The first answer of each server is compared with the
model's own before anything is timed.

Models: m1 HistGradientBoosting, 100 iterations on 20 columns; m2 StandardScaler and LogisticRegression.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import Measure, report
from benchmarks.serving_load import cpu_s, drive, make_home, memory_mib, run, start

Array = np.ndarray[Any, Any]
Request = tuple[bytes, bytes]  # body, further header lines

BODIES, LARGE_BODIES, LARGE_ROWS = 1000, 200, 100


@dataclass(frozen=True)
class Case:
    """One row of the table: a model, a payload, so many connections; targets are CPU ms or times the best peer."""

    work: str
    model: str
    connections: int
    rows: int = 1
    form: str = "oip"
    target_ms: float | None = None


CASES = (
    Case("m1, 1 row, 1 connection", "m1", 1, target_ms=0.075),
    Case("m1, 1 row, 16 connections", "m1", 16, target_ms=0.045),
    Case("m1, 1 row, 64 connections", "m1", 64, target_ms=0.045),
    Case("m1, 1 record, 64 connections", "m1", 64, form="record"),
    Case("m1 as scikit-learn runs it, 1 row, 64 connections", "m1plain", 64),
    Case("m2, 1 row, 64 connections", "m2", 64),
    Case("m1, 100 rows as JSON, 4 connections", "m1", 4, LARGE_ROWS),
    Case("m1, 100 rows as bytes, 4 connections", "m1", 4, LARGE_ROWS, "binary"),
)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--no-peers", action="store_true", help="Flyball alone, in under a minute")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        print("training …", file=sys.stderr, flush=True)
        rows = np.round(make_home(where / "home"), 6)
        np.save(where / "rows.npy", rows)
        found = flyball(where / "home", rows, given.seconds)
        if not given.no_peers:
            np.save(where / "truth.npy", np.load(where / "home" / "truth.npy"))
            found = beside(found, peers(where, rows, given.seconds))
    report([measure for _, measure in found])


def flyball(home: Path, rows: Array, seconds: float) -> list[tuple[Case | None, Measure]]:
    """Flyball's own figures: of a process with compiled models, and of one that runs scikit-learn."""
    from flyball.serving.snapshot import read, write

    path = home / "serving" / "snapshot.json"
    whole = read(path)
    found: list[tuple[Case | None, Measure]] = []
    for models in (("m1", "m2"), ("m1plain",)):
        write(path, replace(whole, deployments={name: whole.deployments[name] for name in models}))
        found += _of_process(home, rows, seconds, [case for case in CASES if case.model in models])
    return found


def _of_process(home: Path, rows: Array, seconds: float, cases: Sequence[Case]) -> list[tuple[Case | None, Measure]]:
    process, address, ready_s = start(home)
    what = " and ".join(sorted({case.model for case in cases}))
    found: list[tuple[Case | None, Measure]] = [
        (None, Measure(f"from start to ready, {what}", ready_s, "s", target=2.0)),
        (None, Measure(f"memory when ready, {what}", memory_mib(process.pid), "MiB", target=130)),
    ]
    try:
        for case in cases:
            print(f"flyball: {case.work} …", file=sys.stderr, flush=True)
            path = f"/v1/models/{case.model}:predict" if case.form == "record" else f"/v2/models/{case.model}/infer"
            limit = prove(home, address, path, case, rows)
            cpu, latencies, wall = loaded(process.pid, address, path, bodies(case, rows), case.connections, seconds)
            print(f"    {cpu:.4g} ms, the model alone {limit:.4g}", file=sys.stderr, flush=True)
            found.append((case, Measure(f"CPU: {case.work}", cpu, "ms", limit=limit, target=case.target_ms)))
            if case.connections in (1, 64) and case.model == "m1" and case.rows == 1 and case.form == "oip":
                p50, p99 = (float(np.percentile(latencies, q)) * 1e3 for q in (50, 99))
                found.append((None, Measure(f"    p50, {case.connections} connections", p50, "ms")))
                found.append((None, Measure(f"    p99, {case.connections} connections", p99, "ms")))
                rate = len(latencies) / wall
                found.append((None, Measure(f"    rate, {case.connections} connections", rate, "1/s", better="higher")))
        found.append((None, Measure(f"memory after load, {what}", memory_mib(process.pid), "MiB", target=130)))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    return found


def peers(folder: Path, rows: Array, seconds: float) -> list[tuple[Case, str, float]]:
    """What the peers take for each case that they have: (case, peer, CPU ms)."""
    from benchmarks.serving_peers import PEERS, body_of, served, train

    expected: dict[str, dict[str, list[float]]] = {}
    found = []
    for peer in PEERS:
        for model in ("m1", "m2"):
            print(f"{peer.name}: {model} …", file=sys.stderr, flush=True)
            try:
                if peer.flavor not in expected:
                    expected[peer.flavor] = train(peer.flavor, folder)
                with served(peer, model, folder, expected[peer.flavor][model]) as (pid, address, path):
                    for case in CASES:
                        if case.model != model or case.form != "oip":
                            continue
                        asked = _requests(case, rows, partial(_asked, body_of, peer.form))
                        cpu, _, _ = loaded(pid, address, path, asked, case.connections, seconds)
                        print(f"    {case.work}: {cpu:.4g} ms", file=sys.stderr, flush=True)
                        found.append((case, peer.name, cpu))
            except Exception as error:  # a peer that does not run here is a result too, and the others go on
                print(f"    {peer.name} did not take part: {error}", file=sys.stderr, flush=True)
    return found


def beside(
    own: Sequence[tuple[Case | None, Measure]], found: Sequence[tuple[Case, str, float]]
) -> list[tuple[Case | None, Measure]]:
    """Put the best peer beside each figure; JSON beside bytes and records, as the peers have no such form."""
    placed = []
    for case, measure in own:
        same = [
            (cpu, name)
            for other, name, cpu in found
            if case is not None
            and other.model == case.model.removesuffix("plain")
            and (other.connections, other.rows) == (case.connections, case.rows)
        ]
        best = min(same, default=None)
        placed.append((case, measure if best is None else replace(measure, peer=best[1], peer_value=best[0])))
    return placed


def bodies(case: Case, rows: Array) -> list[Request]:
    """Flyball's requests of a case."""
    return _requests(case, rows, lambda part: request_of(part, case.form))


def request_of(part: Array, form: str) -> Request:
    """Return rows as the body of a request to Flyball, and the header lines that it needs."""
    if form == "record":
        return json.dumps({f"f{i}": value for i, value in enumerate(part[0].tolist())}).encode(), b""
    tensor: dict[str, Any] = {"name": "rows", "shape": list(part.shape), "datatype": "FP64"}
    if form == "oip":
        return json.dumps({"inputs": [{**tensor, "data": part.ravel().tolist()}]}).encode(), b""
    tensor["parameters"] = {"binary_data_size": part.nbytes}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return head + part.tobytes(), b"Inference-Header-Content-Length: %d\r\n" % len(head)


def prove(home: Path, address: tuple[str, int], path: str, case: Case, rows: Array) -> float:
    """Compare one answer with the model's own; return the model's own CPU milliseconds for such a request.

    Raises:
        RuntimeError: they differ.
    """
    from flyball.models.bundle import load
    from flyball.models.flavors.sklearn import limit_threads
    from flyball.serving.snapshot import read
    from flyball.storage.blobs.files import FileBlobs

    digest = read(home / "serving" / "snapshot.json").deployments[case.model].variants[0].bundle
    model = load(FileBlobs(home / "blobs"), digest)
    parts = [rows[at : at + case.rows] for at in range(0, 100 * case.rows, case.rows)]
    body, _ = request_of(parts[0], "record" if case.form == "record" else "oip")
    request = urllib.request.Request(f"http://{address[0]}:{address[1]}{path}", body)
    with urllib.request.urlopen(request, timeout=30) as answer:
        document = json.loads(answer.read())
    wanted = model.predict(model.signature.table(parts[0]))["probability"].tolist()
    if case.form == "record":
        said = [document["predictions"][0]["outputs"]["probability"]]
    else:
        said = next(o["data"] for o in document["outputs"] if o["name"] == "probability")
    if said != wanted:
        raise RuntimeError(f"{case.work}: the server answers {said[:3]}, the model {wanted[:3]}")
    limit_threads()  # as in the server
    tables = [model.signature.table(part) for part in parts]
    began = time.thread_time()
    for table in tables:
        model.predict(table)
    return (time.thread_time() - began) / len(tables) * 1e3


def loaded(
    pid: int, address: tuple[str, int], path: str, given: Sequence[Request], connections: int, seconds: float
) -> tuple[float, list[float], float]:
    """Load a server; return CPU milliseconds per request of its process tree, latencies and wall seconds."""
    requests = [
        b"POST %b HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n%b"
        % (path.encode(), headers, len(body), body)
        for body, headers in given
    ]
    run(drive(address, requests, connections, min(1.0, seconds)))
    before = _tree_cpu_s(pid)
    latencies, wall_s = run(drive(address, requests, connections, seconds))
    if not latencies:
        raise RuntimeError(f"no answer within {seconds:g} s; give more --seconds")
    return (_tree_cpu_s(pid) - before) / len(latencies) * 1e3, latencies, wall_s


def _asked(made: Callable[[Array, str], bytes], form: str, part: Array) -> Request:
    return made(part, form), b""


def _requests(case: Case, rows: Array, made: Callable[[Array], Request]) -> list[Request]:
    count = BODIES if case.rows == 1 else LARGE_BODIES
    return [made(rows[at : at + case.rows]) for at in range(0, count * case.rows, case.rows)]


def _tree_cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process and all below it (Linux)."""
    children = [
        int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()
    ]
    return cpu_s(pid) + sum(map(_tree_cpu_s, children))


if __name__ == "__main__":
    main()
