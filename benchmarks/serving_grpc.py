"""Load on the data plane over gRPC: CPU per request of the HistGradientBoosting model of `serving_load`.

    python -m benchmarks.serving_grpc [--seconds 3]

Prepared messages with raw contents, each another row, from grpcio's asyncio client over 8 channels; beside it what one
call of tritonclient takes. CPU is the server process's own. The last line is a JSON list of measurements.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import struct
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks.serving_load import BODIES, COLUMNS, cpu_s, make_home, measured, memory_mib, start
from flyball.serving.status import read_status

CHANNELS = 8
METHOD = "/inference.GRPCInferenceService/ModelInfer"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args()
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        rows = make_home(home)
        process, _, _ = start(home)
        try:
            address = read_status(home / "serving" / "status.json").grpc_address
            bodies = [body_of(row) for row in rows[:BODIES]]
            for flying in (1, 16, 64):
                found += under_load(process.pid, address, bodies, flying, given.seconds)
            found.append(measured("tritonclient, one call, p50", one_call_ms(address, rows), "ms"))
            found.append(measured("memory after load", memory_mib(process.pid), "MiB"))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    for row in found:
        print(f"{row['work']:<45}{row['value']:>12.4f} {row['unit']}")
    print(json.dumps(found))


def body_of(row: np.ndarray[Any, Any]) -> bytes:
    """Return one row as a ModelInferRequest: an FP64 tensor of shape [1] for each column, raw."""
    heads = b"".join(
        _field(5, _field(1, f"f{i}".encode()) + _field(2, b"FP64") + _field(3, b"\x01")) for i in range(COLUMNS)
    )
    raw = b"".join(_field(7, struct.pack("<d", value)) for value in row)
    return _field(1, b"m1") + heads + raw


def under_load(pid: int, address: str, bodies: Sequence[bytes], flying: int, seconds: float) -> list[dict[str, Any]]:
    """Ask with so many calls in flight; return CPU per request, rate and latencies."""
    asyncio.run(drive(address, bodies, flying, 0.5))  # warm up
    before, began = cpu_s(pid), time.perf_counter()
    latencies = asyncio.run(drive(address, bodies, flying, seconds))
    wall_s = time.perf_counter() - began
    cpu_ms = (cpu_s(pid) - before) / len(latencies) * 1000
    p50, p99 = (float(np.percentile(latencies, q)) * 1000 for q in (50, 99))
    where = f"gRPC, {flying} in flight"
    return [
        measured(f"CPU per request, {where}", cpu_ms, "ms"),
        measured(f"requests, {where}", len(latencies) / wall_s, "1/s"),
        measured(f"latency p50, {where}", p50, "ms"),
        measured(f"latency p99, {where}", p99, "ms"),
    ]


async def drive(address: str, bodies: Sequence[bytes], flying: int, seconds: float) -> list[float]:
    latencies: list[float] = []
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(min(CHANNELS, flying))]
    until = time.perf_counter() + seconds

    async def ask(turn: int) -> None:
        call = channels[turn % len(channels)].unary_unary(METHOD)
        while (began := time.perf_counter()) < until:
            turn += 1
            assert await call(bodies[turn * 13 % len(bodies)])
            latencies.append(time.perf_counter() - began)

    await asyncio.gather(*(ask(turn) for turn in range(flying)))
    for channel in channels:
        await channel.close()
    return latencies


def one_call_ms(address: str, rows: np.ndarray[Any, Any]) -> float:
    """Return the median wall time of an ordinary call of tritonclient, in ms."""
    import tritonclient.grpc as triton

    client = triton.InferenceServerClient(address)
    taken = []
    for row in rows[:300]:
        began = time.perf_counter()
        inputs = []
        for index, value in enumerate(row):
            tensor = triton.InferInput(f"f{index}", [1], "FP64")
            tensor.set_data_from_numpy(np.array([value]))
            inputs.append(tensor)
        client.infer("m1", inputs).as_numpy("prediction")
        taken.append(time.perf_counter() - began)
    client.close()
    return float(np.median(taken)) * 1000


def _field(number: int, data: bytes) -> bytes:
    assert len(data) < 128
    return bytes((number << 3 | 2, len(data))) + data


if __name__ == "__main__":
    main()
