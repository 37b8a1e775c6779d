"""The Open Inference Protocol over gRPC: the six calls, Triton's repository, statistics, configuration and stream.

    inference.GRPCInferenceService   ServerLive ServerReady ServerMetadata ModelReady ModelMetadata ModelInfer
                                     ModelStreamInfer ModelConfig ModelStatistics RepositoryIndex
                                     RepositoryModelLoad RepositoryModelUnload
    grpc.health.v1.Health            Check

grpcio's synchronous server with a few threads, which costs less than its asyncio server. A thread reads the
message, hands the question to the event loop, waits, and writes the answer, so requests over REST and gRPC meet in the
same batches. grpcio is imported nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import grpc
import numpy as np

from flyball.errors import FlyballError, InvalidInput, StepFailed, Unavailable
from flyball.serving.access_log import AccessLog
from flyball.serving.limits import TooLate
from flyball.serving.questions import Answer, Question
from flyball.serving.service import Service
from flyball.serving.tls import Certificates
from flyball.wire.oip import catalogue
from flyball.wire.oip.inference import head_of, question_of_tensors, tensors_of, trace_of
from flyball.wire.oip.messages import Asked, flags, parse_infer, parse_named, render_infer, render_tensor
from flyball.wire.oip.protobuf import boolean, fields, integer, message, packed, text
from flyball.wire.oip.refusals import CODES, TooLarge, status_of
from flyball.wire.oip.settings import GrpcSettings
from flyball.wire.oip.threads import Threads

__all__ = ["GrpcServer"]

_HEADERS = ("x-flyball-variant", "x-request-id", "traceparent")
_SWEEP_S = 0.1
_LONGEST_MESSAGE = 1000  # of an error: clients take 8 KiB of trailing metadata in all
_DATATYPES = ["INVALID", "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"]
_DATATYPES += ["FP16", "FP32", "FP64", "STRING", "BF16"]  # in the order of Triton's enum DataType
_STATUSES = {code: status for status, code in reversed(CODES.items())}
_log = logging.getLogger("flyball.serving")

Context = Any  # grpc.ServicerContext


class GrpcServer:
    """Listens on one address and asks one service. Made on the service's event loop."""

    def __init__(
        self,
        service: Service,
        settings: GrpcSettings | None = None,
        certificates: Certificates | None = None,
        access_log: AccessLog | None = None,
    ) -> None:
        self._access_log = access_log
        self._service = service
        self._settings = settings or GrpcSettings()
        self._loop = asyncio.get_running_loop()
        self._certificates = certificates
        self._asked: deque[tuple[Question, _Wait]] = deque()
        self._is_woken = False
        self._server: grpc.Server | None = None
        self.port = 0
        self._threads = Threads(self._settings.threads, "grpc", self._settings.message_s)
        self._streams = Threads(self._settings.streams, "grpc-stream", self._settings.stream_idle_s)
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int, is_shared: bool = False) -> None:
        """Listen; `self.port` then says on which port, as 0 takes one that is free.

        Args:
            is_shared: other processes of this data plane listen on the same port.

        Raises:
            Unavailable: the port is taken or the address is not this machine's.
        """
        settings = self._settings
        options = [
            ("grpc.max_receive_message_length", settings.message_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", int(is_shared)),  # else a second server would share the port silently
        ]
        most = settings.threads + settings.streams + settings.waiting
        self._server = grpc.server(self._threads, options=options, maximum_concurrent_rpcs=most)
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler("inference.GRPCInferenceService", self._methods()),
                grpc.method_handlers_generic_handler(
                    "grpc.health.v1.Health", {"Check": self._unary(self._check, is_open=True)}
                ),
            )
        )
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if self._certificates is None:
                bound = self._server.add_insecure_port(address)
            else:
                bound = self._server.add_secure_port(address, _credentials(self._certificates))
        except RuntimeError:
            bound = 0
        if not bound:
            raise Unavailable(
                f"cannot listen on {host}:{port} for gRPC; stop what uses it or choose another with --grpc-port "
                "(0 picks a free one)"
            )
        self._server.start()
        self._sweeper = self._loop.create_task(self._sweep())
        self.port = bound

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            self._threads.sweep()
            self._streams.sweep()

    async def stop(self, grace_s: float) -> None:
        """Accept no more and let calls in work finish; those that have not after `grace_s` are cut off."""
        if self._server is not None:
            stopped = self._server.stop(grace_s)
            await self._loop.run_in_executor(None, stopped.wait)
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._threads.shutdown(wait=False)
        self._streams.shutdown(wait=False)

    def _methods(self) -> dict[str, grpc.RpcMethodHandler]:
        stream = functools.partial(self._stream)
        stream.experimental_thread_pool = self._streams  # type: ignore[attr-defined]  # open streams must not take all
        return {
            "ServerLive": self._unary(lambda _: boolean(1, True), is_open=True),
            "ServerReady": self._unary(lambda _: boolean(1, self._service.is_ready), is_open=True),
            "ServerMetadata": self._unary(lambda _: _server_message(catalogue.server_metadata())),
            "ModelReady": self._unary(self._model_ready, name=1),
            "ModelMetadata": self._unary(self._metadata, name=1),
            "ModelConfig": self._unary(self._config, name=1),
            "ModelStatistics": self._unary(self._statistics, name=1),
            "RepositoryIndex": self._unary(self._index),
            "RepositoryModelLoad": self._unary(self._load, name=2),
            "RepositoryModelUnload": self._unary(self._unload, name=2),
            "ModelInfer": grpc.stream_unary_rpc_method_handler(self._infer_noted),
            "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(stream),
        }

    def _admit(self, context: Context, name: str | None) -> str | None:
        """Let in who may ask this deployment (None: what all have together), and return the name of the key.

        Raises:
            Unauthenticated, Forbidden: as `Callers.check`.
        """
        callers = self._service.engine.lineup.callers
        key = None
        if callers.is_required:
            shown = next((value for key, value in context.invocation_metadata() if key == "authorization"), None)
            key = callers.check(shown.encode("latin-1", "replace") if isinstance(shown, str) else shown, name or None)
        return None if key is None else key.name

    # what is there

    def _unary(
        self, answer: Callable[[bytes], bytes], name: int | None = None, is_open: bool = False
    ) -> grpc.RpcMethodHandler:
        """Return a call without a prediction; `name` is the number of the field that names the deployment."""

        def call(requests: Iterator[bytes], context: Context) -> bytes:
            try:
                data = self._message(requests, context)
                if not is_open:
                    self._admit(context, None if name is None else parse_named(data, name)[0])
                return answer(data)
            except FlyballError as error:
                self._abort(context, "", error)
            except Exception as error:
                self._fail(context, "", error)

        return grpc.stream_unary_rpc_method_handler(call)

    def _message(self, requests: Iterator[bytes], context: Context) -> bytes:
        """Return the one message of a call.

        Calls of one message are taken as streams of one, which are the same to the client: only so does a thread know
        that it waits for a client, and can be told to give up.
        """
        try:
            return self._threads.await_message(lambda: next(requests), context.cancel)
        except StopIteration:
            raise InvalidInput("the call has no message; send one") from None
        except grpc.RpcError:  # cancelled, by the client or by the sweep
            raise TooLate("the call was ended before its message was there") from None

    def _check(self, data: bytes) -> bytes:
        """grpc.health.v1, which Kubernetes probes: "" is the server, else a model's name."""
        name, _ = parse_named(data)
        if name and name != "inference.GRPCInferenceService":
            self._service.engine.lineup.find(name)
        return integer(1, 1 if self._service.is_ready else 2)  # SERVING, NOT_SERVING

    def _model_ready(self, data: bytes) -> bytes:
        name, version = parse_named(data)
        catalogue.wanted(self._service, name, version)
        return boolean(1, True)

    def _metadata(self, data: bytes) -> bytes:
        found = catalogue.metadata(self._service, *parse_named(data))
        parts = [text(1, found["name"]), *(text(2, version) for version in found["versions"])]
        parts.append(text(3, found["platform"]))
        for number, name in ((4, "inputs"), (5, "outputs")):
            parts += [message(number, render_tensor(t["name"], t["datatype"], t["shape"])) for t in found[name]]
        return b"".join(parts)

    def _config(self, data: bytes) -> bytes:
        found = catalogue.configuration(self._service, *parse_named(data))
        parts = [text(1, found["name"]), text(2, found["platform"]), text(17, found["backend"])]
        for number, name, dims in ((5, "input", 4), (6, "output", 3)):
            for tensor in found[name]:
                kind = _DATATYPES.index(tensor["data_type"].removeprefix("TYPE_"))
                shape = packed(dims, np.array(tensor["dims"], np.int64))
                parts.append(message(number, text(1, tensor["name"]) + integer(2, kind) + shape))
        return message(1, b"".join(parts))

    def _statistics(self, data: bytes) -> bytes:
        parts = []
        for found in catalogue.statistics(self._service, *parse_named(data)):
            row = text(1, found["name"]) + text(2, found["version"])
            row += integer(4, found["inference_count"]) + integer(5, found["execution_count"])
            durations = b""
            for number, name in ((1, "success"), (2, "fail")):
                duration = found["inference_stats"][name]
                durations += message(number, integer(1, duration["count"]) + integer(2, duration["ns"]))
            parts.append(message(1, row + message(6, durations)))
        return b"".join(parts)

    def _index(self, data: bytes) -> bytes:
        rows = catalogue.index(self._service, flags(data).get(2, False))
        names = ("name", "version", "state", "reason")
        return b"".join(message(1, b"".join(text(n, row[key]) for n, key in enumerate(names, 1))) for row in rows)

    def _load(self, data: bytes) -> bytes:
        name, _ = parse_named(data, name=2)
        if any(number == 3 for number, _, _ in fields(data)):
            raise InvalidInput(f"{name} cannot be loaded with parameters; declare deployment/{name} and apply it")
        asyncio.run_coroutine_threadsafe(self._service.look(is_forced=True), self._loop).result()
        catalogue.check_load(self._service, name, None)
        return b""

    def _unload(self, data: bytes) -> bytes:
        raise catalogue.refuse_unload(self._service, parse_named(data, name=2)[0])

    # predictions

    def _infer_noted(self, requests: Iterator[bytes], context: Context) -> bytes:
        """Answer a prediction, say where in the trace this was, and note it in the access log."""
        parent = _headers(context).get("traceparent", "").strip()
        if self._access_log is None and not parent:
            return self._infer(requests, context)
        began = time.perf_counter()
        trace = trace_of(parent)
        span = secrets.token_hex(8) if trace is not None else None
        if trace is not None:
            context.set_trailing_metadata((("traceparent", f"00-{trace}-{span}-{parent[53:55]}"),))
        seen: list[bytes] = []

        def watched() -> Iterator[bytes]:
            for data in requests:
                seen.append(data)
                yield data

        answer: bytes | None = None
        try:
            answer = self._infer(watched(), context)
            return answer
        finally:
            if self._access_log is not None:
                code = context.code()
                self._access_log.note(
                    status=200 if answer is not None else _STATUSES.get("" if code is None else code.name, 500),
                    protocol="grpc",
                    path=_named(seen[0]) if seen else "",
                    ms=round((time.perf_counter() - began) * 1000, 3),
                    received_bytes=sum(map(len, seen)),
                    sent_bytes=len(answer or b""),
                    trace_id=trace,
                    span_id=span,
                )

    def _infer(self, requests: Iterator[bytes], context: Context) -> bytes:
        name = ""
        try:
            data = self._message(requests, context)
            received = time.perf_counter()
            asked = parse_infer(data)
            name = asked.name
            caller = self._admit(context, name)
            self._check_size(name, data)
            served = self._service.engine.lineup.find(name)
            question = question_of_tensors(served, asked.infer, _headers(context), asked.version, received)
            question.caller = caller
            answer = self._answer_of(question, context)
            if answer is not None:
                return _rendered(answer, asked)
        except FlyballError as error:
            self._abort(context, name, error)
        except Exception as error:
            self._fail(context, name, error)
        # The client has hung up, or its time is over; whichever it was, it has been told by its own library.
        return self._abort(context, name, TooLate("the answer was not there in the time that the call allows"))

    def _stream(self, requests: Iterator[bytes], context: Context) -> Iterator[bytes]:
        """Answer the requests of a stream in their order; one that is wrong gets its error, the stream goes on."""
        headers = _headers(context)
        while True:
            name = identity = ""
            try:
                data = self._streams.await_message(lambda: next(requests), context.cancel)
            except (StopIteration, grpc.RpcError):  # the client has said all that it wanted, or has gone
                return
            try:
                received = time.perf_counter()
                asked = parse_infer(data)
                name, identity = asked.name, asked.infer.id or ""
                caller = self._admit(context, name)
                self._check_size(name, data)
                served = self._service.engine.lineup.find(name)
                question = question_of_tensors(served, asked.infer, headers, asked.version, received)
                question.caller = caller
                answer = self._answer_of(question, context)
                if answer is None:
                    return
                yield message(2, _rendered(answer, asked))
            except FlyballError as error:
                self._count(name, status_of(error))
                # With the request's id, by which clients match answers of a stream (Triton does the same).
                yield text(1, str(error)[:_LONGEST_MESSAGE]) + message(2, text(3, identity))
            except Exception as error:
                _log.exception("a request of a gRPC stream failed")
                self._count(name, 500)
                yield text(1, f"the server failed on this request ({type(error).__name__})") + message(
                    2, text(3, identity)
                )

    def _check_size(self, name: str, data: bytes) -> None:
        most = self._service.body_bytes(name, self._settings.message_bytes)
        if len(data) > most:
            raise TooLarge(f"the message has {len(data)} bytes; {name} takes at most {most}, send it in parts")

    def _answer_of(self, question: Question, context: Context) -> Answer | None:
        """Have a question answered; None when nobody waits any more. Raises what is wrong with it."""
        remaining = context.time_remaining()
        if remaining is not None and remaining <= 0:
            return None
        wait = _Wait()
        if not context.add_callback(wait.end):
            return None
        self._asked.append((question, wait))
        if not self._is_woken:  # one wake-up for all that come before the loop's next turn
            self._is_woken = True
            self._loop.call_soon_threadsafe(self._ask_all)
        wait.until_end(remaining)
        if wait.error is not None:
            raise wait.error
        return wait.answer

    def _ask_all(self) -> None:
        self._is_woken = False
        while self._asked:
            question, wait = self._asked.popleft()
            if wait.is_over:  # a call that was given up while it waited need not reach the model
                continue
            try:
                self._service.ask(question, wait.take)
            except Exception as error:
                _log.exception("a gRPC call failed")
                wait.take(None, StepFailed(f"the server failed on this request ({type(error).__name__})"))

    def _fail(self, context: Context, name: str, error: Exception) -> NoReturn:
        _log.exception("a gRPC call failed", exc_info=error)
        self._abort(context, name, StepFailed(f"the server failed on this request ({type(error).__name__})"))

    def _abort(self, context: Context, name: str, error: FlyballError) -> NoReturn:
        status = status_of(error)
        self._count(name, status)
        context.abort(grpc.StatusCode[CODES.get(status, "INTERNAL")], str(error)[:_LONGEST_MESSAGE])
        raise error  # never reached: abort raises

    def _count(self, name: str, status: int) -> None:
        served = name if name in self._service.engine.lineup.served else ""  # clients must not make up label values

        def count() -> None:
            self._service.counters.errors[served, status] += 1

        self._loop.call_soon_threadsafe(count)


class _Wait:
    """A thread that waits for one answer."""

    __slots__ = ("_lock", "answer", "error", "is_over")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self.answer: Answer | None = None
        self.error: FlyballError | None = None
        self.is_over = False

    def take(self, answer: Answer | None, error: FlyballError | None) -> None:
        """Called on the event loop."""
        self.answer, self.error = answer, error
        self.end()

    def end(self) -> None:
        """Let the thread go; also when the call has ended otherwise, cancelled or out of time."""
        self.is_over = True
        with contextlib.suppress(RuntimeError):  # released already: the answer and the end of the call came together
            self._lock.release()

    def until_end(self, seconds: float | None) -> None:
        self._lock.acquire(timeout=-1 if seconds is None else min(seconds, threading.TIMEOUT_MAX))
        self.is_over = True


def _rendered(answer: Answer, asked: Asked) -> bytes:
    outputs, infer = tensors_of(answer, asked.infer)
    return render_infer(head_of(answer, infer), outputs, asked._replace(infer=infer))


def _headers(context: Context) -> dict[str, str]:
    return {key: str(value) for key, value in context.invocation_metadata() if key in _HEADERS}


def _named(data: bytes) -> str:
    """Return the model of a request as REST would name it; "" when it cannot be read."""
    try:
        return f"/v2/models/{parse_named(data)[0][:200]}/infer"
    except FlyballError:
        return ""


def _credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """Return what shows a certificate as its files are at each handshake."""
    shown: tuple[bytes, Any] = (b"", None)

    def fetch() -> Any:
        nonlocal shown
        try:
            chain, key = certificates.certificate.read_bytes(), certificates.key.read_bytes()
            authority = certificates.client_authority
            roots = None if authority is None else authority.read_bytes()
        except OSError as error:
            _log.error("the old certificate stays: %s", error)
            return None
        if shown[0] != chain + key:
            shown = chain + key, grpc.ssl_server_certificate_configuration([(key, chain)], roots)
            return shown[1]
        return None  # as before

    return grpc.dynamic_ssl_server_credentials(fetch(), fetch, certificates.client_authority is not None)


def _server_message(found: dict[str, Any]) -> bytes:
    return text(1, found["name"]) + text(2, found["version"]) + b"".join(text(3, e) for e in found["extensions"])
