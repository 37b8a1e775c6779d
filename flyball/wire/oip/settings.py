"""Settings of the data plane's ways in: `[grpc]` in `flyball.toml`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GrpcSettings"]


@dataclass(frozen=True)
class GrpcSettings:
    """`[grpc]` in flyball.toml, `FLYBALL_GRPC_…` in the environment: the Open Inference Protocol over gRPC."""

    enabled: bool = True  # False saves the memory that grpcio takes
    port: int | None = None  # None: one above the port of predictions, 7072, if it is free; 0 picks a free one
    threads: int = 16  # requests in work at a time: more make larger batches, and more changes between threads
    streams: int = 64  # calls of ModelStreamInfer that are at work at a time; those that send nothing do not count
    message_bytes: int = 64 * 1024 * 1024  # the longest message, as for bodies over HTTP; grpcio's own limit is 4 MiB
    waiting: int = 4096  # calls that wait for a thread; more are refused with RESOURCE_EXHAUSTED
    message_s: float = 10.0  # how long a call may be open before its message is there; then it is cancelled
    stream_idle_s: float = 600.0  # how long a stream may send nothing; then it is cancelled
