"""Artifacts: the files of a run by name, and the proxy at which clients put and get them by path."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from flyball.ledger.artifacts import Entry, check_path, proxied
from flyball.ledger.runs import Artifact
from flyball.platform import Platform
from flyball.storage.blobs.multipart import MOST_PARTS
from flyball.wire.mlflow.fields import messages, text, whole
from flyball.wire.mlflow.files import receive, send
from flyball.wire.mlflow.refusals import Refused, invalid, required
from flyball.wire.mlflow.routing import Asked, Routes

__all__ = ["add_artifacts", "file_below", "file_infos"]

_PROXY = "2.0/mlflow-artifacts"
_SIGNED = f"/api/{_PROXY}/signed"
_PRESIGNED_S = 900
_LONGEST_S = 7 * 86400
_UPLOAD_S = 86400  # in which all parts of a file arrive
_PAGE_UPLOAD_BYTES = 10 * 1024 * 1024  # of a file that MLflow's web page sends


def add_artifacts(routes: Routes, platform: Platform) -> None:
    """Add all routes of files."""
    _add_proxy(routes, platform)
    _add_multipart(routes, platform)
    _add_signed(routes, platform)
    _add_of_runs(routes, platform)


def file_infos(entries: Iterable[Entry], folder: str = "") -> dict[str, Any]:
    """Return a folder's entries as MLflow's clients read them, with paths relative to the root above `folder`."""
    prefix = f"{folder}/" if folder else ""
    found = []
    for entry in entries:
        info: dict[str, Any] = {"path": prefix + entry.name, "is_dir": entry.is_folder}
        if not entry.is_folder:
            info["file_size"] = entry.size_bytes
        found.append(info)
    return {"files": found} if found else {}


def file_below(platform: Platform, root: str, location: str, path: str) -> Artifact:
    """Return the file at a path below an address; `root` is how a refusal names that."""
    return platform.file_at(platform.place_at(location, path), f"{proxied(root) or root}/{path}")


def _add_proxy(routes: Routes, platform: Platform) -> None:
    @routes.add("GET", f"{_PROXY}/artifacts", text("path"))
    def listing(asked: Asked) -> dict[str, Any]:
        return file_infos(platform.files_in(platform.place_of(asked.get("path", ""))))

    @routes.add("GET", f"{_PROXY}/artifacts/{{path:path}}", is_raw=True)
    async def download(request: Request, path: str) -> Response:
        return await send(request, platform, lambda: _file(platform, path))

    @routes.add("PUT", f"{_PROXY}/artifacts/{{path:path}}", is_raw=True)
    async def upload(request: Request, path: str) -> Response:
        return await _upload(request, platform, path)

    @routes.add("DELETE", f"{_PROXY}/artifacts/{{path:path}}", is_raw=True)
    async def delete(_request: Request, path: str) -> Response:
        await run_in_threadpool(platform.remove_files, path)
        return JSONResponse({})


def _add_multipart(routes: Routes, platform: Platform) -> None:
    """Uploads in parts: clients ask for addresses, put the parts there, and name them all at the end."""
    part = (whole("part_number"), text("etag"), text("url"))

    def target(asked: Asked, folder: str) -> str:
        # Clients send the path of the file on their own disk; what counts is its name, in the folder of the address.
        name = re.split(r"[/\\]", asked["path"])[-1]
        if name in ("", ".", ".."):
            raise invalid("Invalid path")
        return f"{folder.rstrip('/')}/{name}"

    def create(asked: Asked, folder: str) -> dict[str, Any]:
        count = asked.get("num_parts", 1)
        if not 1 <= count <= MOST_PARTS:
            raise invalid(f"Invalid value {count} for parameter 'num_parts' supplied: expected 1 to {MOST_PARTS}.")
        upload = platform.begin_upload(target(asked, folder))
        credentials = []
        for number in range(1, count + 1):
            token = platform.permit({"verb": "PUT", "upload": upload, "part": number}, _UPLOAD_S)
            url = _address(asked.headers, token)
            credentials.append({"url": url, "part_number": number, "headers": {}})
        return {"upload_id": upload, "credentials": credentials}

    def complete(asked: Asked, folder: str) -> dict[str, Any]:
        if not asked.get("parts"):
            raise required("parts")
        parts = []
        for number, one in enumerate(asked["parts"]):
            if "part_number" not in one:
                raise required(f"parts[{number}].part_number")
            parts.append((one["part_number"], one.get("etag", "").strip('"')))
        platform.complete_upload(target(asked, folder), asked.get("upload_id", ""), parts)
        return {}

    def abort(asked: Asked, folder: str) -> dict[str, Any]:
        platform.abort_upload(target(asked, folder), asked.get("upload_id", ""))
        return {}

    path, upload = text("path", required=True), text("upload_id")
    _add_at_folder(routes, f"{_PROXY}/mpu/create", create, path, whole("num_parts"))
    _add_at_folder(routes, f"{_PROXY}/mpu/complete", complete, path, upload, messages("parts", *part))
    _add_at_folder(routes, f"{_PROXY}/mpu/abort", abort, path, upload)


def _add_at_folder(routes: Routes, path: str, handler: Callable[[Asked, str], dict[str, Any]], *fields: Any) -> None:
    """Register a handler at a path that ends in a folder; the field `path` of the body is another thing."""
    routes.add("POST", f"{path}/{{folder:path}}", *fields)(lambda asked: handler(asked, asked.parts["folder"]))


def _add_signed(routes: Routes, platform: Platform) -> None:
    """Addresses that permit one thing for a time to whoever has them."""

    def presigned(headers: Mapping[str, str], verb: str, path: str, seconds: int) -> str:
        return _address(headers, platform.permit({"verb": verb, "path": path}, seconds))

    @routes.add("GET", f"{_PROXY}/presigned/{{path:path}}")
    def download(asked: Asked) -> dict[str, Any]:
        path = asked.parts["path"]
        found = _file(platform, path)
        url = presigned(asked.headers, "GET", check_path(path), _PRESIGNED_S)
        return {"url": url, "headers": {}, "file_size": found.size_bytes}

    @routes.add(
        "POST",
        "2.0/mlflow/artifacts/presigned-download-url",
        text("run_id", required=True),
        text("path", required=True),
        whole("expiration"),
    )
    def download_of_run(asked: Asked) -> dict[str, Any]:
        path = _proxy_path(platform, asked["run_id"], asked["path"])
        seconds = _expiration(asked)
        found = _file(platform, path)
        url = presigned(asked.headers, "GET", path, seconds)
        return {"presigned_url": url, "headers": {}, "file_size": found.size_bytes}

    @routes.add(
        "POST",
        "2.0/mlflow/artifacts/presigned-upload-url",
        text("run_id"),
        text("path", required=True),
        whole("expiration"),
        text("model_id"),
    )
    def upload_of_run(asked: Asked) -> dict[str, Any]:
        owners = [asked[name] for name in ("run_id", "model_id") if asked.get(name)]
        if len(owners) != 1:
            raise invalid("Exactly one of run_id and model_id must be provided.")
        path = _proxy_path(platform, owners[0], asked["path"])
        return {"presigned_url": presigned(asked.headers, "PUT", path, _expiration(asked)), "headers": {}}

    @routes.add("GET", f"{_SIGNED}/{{token}}", is_raw=True)
    async def read(request: Request, token: str) -> Response:
        what = platform.permitted(token)
        if what.get("verb") != "GET":
            raise Refused("PERMISSION_DENIED", "this address permits to write, not to read")
        return await send(request, platform, lambda: _file(platform, what["path"]))

    @routes.add("PUT", f"{_SIGNED}/{{token}}", is_raw=True)
    async def write(request: Request, token: str) -> Response:
        what = platform.permitted(token)
        if what.get("verb") != "PUT":
            raise Refused("PERMISSION_DENIED", "this address permits to read, not to write")
        if "upload" not in what:
            return await _upload(request, platform, what["path"])
        digest = await receive(request, lambda: platform.upload_part(what["upload"], what["part"]), lambda found: found)
        return Response(None, 200, {"etag": f'"{digest}"'})


def _add_of_runs(routes: Routes, platform: Platform) -> None:
    @routes.add("GET", "2.0/mlflow/artifacts/list", text("run_id", aka="run_uuid"), text("path"), text("page_token"))
    def listing(asked: Asked) -> dict[str, Any]:
        if not asked.get("run_id"):
            raise required("run_id")
        folder = check_path(asked.get("path", ""), is_folder=True)
        root = platform.artifact_root(asked["run_id"])
        entries = platform.files_in(platform.place_at(f"runs:/{asked['run_id']}", folder))
        return {"root_uri": root, **file_infos(entries, folder)}

    @routes.add("GET", "/get-artifact", is_raw=True)
    async def of_run(request: Request) -> Response:
        query = request.query_params
        path = query.get("path")
        if path is None:
            raise Refused("BAD_REQUEST", "The request must say which file it wants: path=…")

        def find() -> Artifact:
            checked = check_path(path, is_folder=True)
            run = query.get("run_id") or query.get("run_uuid")
            return file_below(platform, platform.artifact_root(str(run)), f"runs:/{run}", checked)

        return await send(request, platform, find)

    @routes.add("GET", "/model-versions/get-artifact", is_raw=True)
    async def of_version(request: Request) -> Response:
        query = request.query_params
        path = query.get("path")
        if path is None:
            raise Refused("BAD_REQUEST", "The request must say which file it wants: path=…")

        def find() -> Artifact:
            checked = check_path(path, is_folder=True)
            source = platform.model_version_source(query.get("name", ""), query.get("version", ""))
            return file_below(platform, source, source, checked)

        return await send(request, platform, find)

    @routes.add("POST", "2.0/mlflow/upload-artifact", ajax_only=True, is_raw=True)
    async def upload(request: Request) -> Response:
        run, path = request.query_params.get("run_uuid"), request.query_params.get("path")
        if not run:
            raise invalid("Request must specify run_uuid.")
        if not path:
            raise invalid("Request must specify path.")
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > _PAGE_UPLOAD_BYTES:
                raise invalid("Artifact size is too large. Max size is 10MB.")
        if not body:
            raise invalid("Request must specify data.")
        await run_in_threadpool(lambda: platform.keep_bytes(_proxy_path(platform, run, path), bytes(body)))
        return Response(None, 200, media_type="application/json")


async def _upload(request: Request, platform: Platform, path: str) -> Response:
    check_path(path)  # before the first byte is taken
    await receive(request, platform.receive_file, lambda found: platform.keep_file(path, *found))
    return Response(None, 200)


def _file(platform: Platform, path: str) -> Artifact:
    """Return the file at a path of the proxy."""
    return platform.file_at(platform.place_of(path), path)


def _proxy_path(platform: Platform, owner: str, path: str) -> str:
    """Return the path at the proxy of a file of a run or a logged model."""
    inner = check_path(path)
    root = platform.artifact_root(owner)
    found = proxied(root)
    if found is None:
        raise invalid(f"The files of {owner} are at {root!r}, which this server does not keep; send them there.")
    return f"{found}/{inner}"


def _expiration(asked: Asked) -> int:
    seconds: int = asked.get("expiration", _PRESIGNED_S)
    if not 1 <= seconds <= _LONGEST_S:
        raise invalid(f"expiration must be between 1 and {_LONGEST_S} seconds (got {seconds}).")
    return seconds


def _address(headers: Mapping[str, str], token: str) -> str:
    """Return the address of a signed permission, at the host and scheme by which the asker reached this server."""
    scheme = "https" if headers.get("x-forwarded-proto", "").split(",")[0].strip() == "https" else "http"
    return f"{scheme}://{headers.get('host', 'localhost')}{_SIGNED}/{token}"
