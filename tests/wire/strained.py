"""A data plane in this process, over REST and gRPC, whose model is held up by the test."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from pathlib import Path
from typing import Any

from planes import Home, Plane

from flyball.serving.engine import Engine
from flyball.serving.server import HttpServer
from flyball.serving.service import Service
from flyball.serving.snapshot import Limits
from flyball.wire.oip.grpc import GrpcServer
from flyball.wire.oip.rest import RestHandler

ROW = {"distance": 1.0, "hour": 2.0}


class Held:
    """A real model that waits at a gate before it answers."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.signature = model.signature
        self.bundle = model.bundle
        self.gate = threading.Event()
        self.entered = threading.Event()

    def predict(self, columns: Any) -> Any:
        self.entered.set()
        assert self.gate.wait(20)
        return self.model.predict(columns)


class Strained:
    """A data plane in this process whose model is held."""

    def __init__(self, path: Path) -> None:
        home = Home(path)
        home.deploy(limits=Limits(queue_rows=3))
        self.home = home
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.plane = Plane.__new__(Plane)
        self.do(self._start(home))

    async def _start(self, home: Home) -> None:
        self.service = Service(Engine(home.path, writer="test", deliver=self.loop.call_soon_threadsafe))
        self.server = HttpServer(RestHandler(self.service))
        self.plane.port = (await self.server.start("127.0.0.1", 0))[1]
        self.grpc = GrpcServer(self.service)
        await self.grpc.start("127.0.0.1", 0)
        self.is_ready_before = self.plane_ready()
        await self.service.start()
        lineup = self.service.engine.lineup
        served = lineup.served["late"]
        (by,) = served.variants
        self.model = Held(by.model)
        held = dataclasses.replace(served, variants=(dataclasses.replace(by, model=self.model),))  # type: ignore[arg-type]
        self.service.engine.lineup = dataclasses.replace(lineup, served={"late": held})

    def plane_ready(self) -> bool:
        return self.service.is_ready

    def do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def ask(self) -> Any:
        return self.plane.call("POST", "/v1/models/late:predict", ROW)

    def close(self) -> None:
        self.model.gate.set()
        self.do(self.grpc.stop(5))
        self.do(self.server.stop())
        self.do(self.service.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()
