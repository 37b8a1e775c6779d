"""Files over HTTP: what a client may rely on beyond the recorded answers, and each published way to misuse them."""

from __future__ import annotations

import http.client
import os
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx2
import pytest

from flyball.errors import InvalidInput
from flyball.platform import Platform
from flyball.storage.blobs import digest_of
from tests.wire.mlflow.serving import served

PROXY = "/api/2.0/mlflow-artifacts"
FILES = f"{PROXY}/artifacts"
MLFLOW = "/api/2.0/mlflow"
SECRET = b"root:x:0:0: nobody outside may read this"


class World(NamedTuple):
    """A home that is served, with a run, and a file outside that nobody may reach."""

    client: httpx2.Client
    platform: Platform
    run: str
    secret: Path

    @property
    def root(self) -> str:
        return f"{FILES}/0/{self.run}/artifacts"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("files")
    (folder / "secret.txt").write_bytes(SECRET)
    with closing(Platform.open(folder / "home")) as platform, served(platform) as client:
        run = platform.recorder.create_run("0", "fit").result().id
        yield World(client, platform, run, folder / "secret.txt")


@pytest.fixture
def client(world: World) -> httpx2.Client:
    return world.client


# -- files that are one thing, however they came


def test_a_file_is_the_same_whoever_logged_it(world: World) -> None:
    with world.platform.start_run("ours") as ours:
        ours.artifact("plots/roc.svg", b"<svg/>")
    run = ours.id
    answer = world.client.put(f"{FILES}/0/{run}/artifacts/plots/theirs.txt", content=b"theirs")
    assert (answer.status_code, answer.content) == (200, b"")
    assert [file.path for file in world.platform.artifacts(run)] == ["plots/roc.svg", "plots/theirs.txt"]
    told = world.client.get(f"{MLFLOW}/artifacts/list", params={"run_id": run, "path": "plots"}).json()
    assert told == {
        "root_uri": f"mlflow-artifacts:/0/{run}/artifacts",
        "files": [
            {"path": "plots/roc.svg", "is_dir": False, "file_size": 6},
            {"path": "plots/theirs.txt", "is_dir": False, "file_size": 6},
        ],
    }
    assert world.client.get(f"{FILES}/0/{run}/artifacts/plots/roc.svg").content == b"<svg/>"


def test_a_run_of_an_experiment_with_a_place_at_the_proxy_has_its_files_there(world: World) -> None:
    made = {"name": "elsewhere", "artifact_location": "mlflow-artifacts:/teams/red"}
    experiment = world.client.post(f"{MLFLOW}/experiments/create", json=made).json()["experiment_id"]
    run = world.platform.recorder.create_run(experiment, "fit").result().id
    assert world.client.put(f"{FILES}/teams/red/{run}/artifacts/a/b.txt", content=b"1").status_code == 200
    assert (
        world.client.put(f"{FILES}/{experiment}/{run}/artifacts/a/b.txt", content=b"not the run's").status_code == 200
    )
    assert [file.path for file in world.platform.artifacts(run)] == ["a/b.txt"]
    assert world.client.get("/get-artifact", params={"run_id": run, "path": "a/b.txt"}).content == b"1"


def test_a_folder_that_looks_like_a_tree_within_a_tree_belongs_to_the_outer(world: World) -> None:
    other = world.platform.recorder.create_run("0", "other").result().id
    inner = f"copy/0/{other}/artifacts/x"
    assert world.client.put(f"{world.root}/{inner}", content=b"1").status_code == 200
    assert world.platform.artifacts(other) == []
    assert inner in [file.path for file in world.platform.artifacts(world.run)]


# -- reading


@pytest.mark.parametrize(
    ("asked", "status", "first", "last"),
    [
        ("bytes=0-0", 206, 0, 0),
        ("bytes=10-19", 206, 10, 19),
        ("bytes=90-", 206, 90, 99),
        ("bytes=-5", 206, 95, 99),
        ("bytes=-500", 206, 0, 99),
        ("bytes=50-5000", 206, 50, 99),
        ("bytes=0-99", 206, 0, 99),
        ("bytes=100-", 416, None, None),
        ("bytes=-0", 416, None, None),
        ("bytes=5-1", 200, 0, 99),
        ("bytes=0-1,5-6", 200, 0, 99),
        ("bytes=a-b", 200, 0, 99),
        ("lines=1-2", 200, 0, 99),
        ("bytes=-", 200, 0, 99),
    ],
)
def test_ranges(world: World, asked: str, status: int, first: int | None, last: int | None) -> None:
    data = bytes(range(100))
    world.client.put(f"{world.root}/range.bin", content=data)
    answer = world.client.get(f"{world.root}/range.bin", headers={"range": asked})
    assert answer.status_code == status
    if first is None or last is None:
        assert answer.headers["content-range"] == "bytes */100"
        return
    assert answer.content == data[first : last + 1]
    assert answer.headers.get("content-range") == (f"bytes {first}-{last}/100" if status == 206 else None)
    assert answer.headers["content-length"] == str(last - first + 1)


def test_who_has_a_file_need_not_get_it_again(world: World) -> None:
    world.client.put(f"{world.root}/known.txt", content=b"1")
    tag = world.client.get(f"{world.root}/known.txt").headers["etag"]
    assert tag == f'"{digest_of(b"1")}"'
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        answer = world.client.get(f"{world.root}/known.txt", headers={"if-none-match": known})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
    world.client.put(f"{world.root}/known.txt", content=b"two")
    assert world.client.get(f"{world.root}/known.txt", headers={"if-none-match": tag}).content == b"two"
    resumed = world.client.get(f"{world.root}/known.txt", headers={"range": "bytes=1-", "if-range": tag})
    assert (resumed.status_code, resumed.content) == (200, b"two")
    head = world.client.head(f"{world.root}/known.txt")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "3")


@pytest.mark.parametrize(
    ("name", "media", "disposition"),
    [
        ("a.html", "text/html", "attachment; filename=a.html"),
        ("run.js", "text/plain", "attachment; filename=run.js"),
        ("MLmodel", "text/plain", "attachment; filename=MLmodel"),
        ("roc.svg", "image/svg+xml", "attachment; filename=roc.svg"),
        ("weights", "application/octet-stream", "attachment; filename=weights"),
        ("a b.csv", "text/plain", 'attachment; filename="a b.csv"'),
        ('q"uote.txt', "text/plain", 'attachment; filename="q\\"uote.txt"'),
        ("日本.txt", "text/plain", "attachment; filename=.txt; filename*=UTF-8''%E6%97%A5%E6%9C%AC.txt"),
        ("Tür.png", "image/png", "attachment; filename=Tur.png; filename*=UTF-8''T%C3%BCr.png"),
    ],
)
def test_what_a_run_left_never_becomes_a_page(world: World, name: str, media: str, disposition: str) -> None:
    world.platform.keep_bytes(f"0/{world.run}/artifacts/names/{name}", b"<script>alert(1)</script>")
    for asked in (
        world.client.get(f"{world.root}/names/{name}"),
        world.client.get("/get-artifact", params={"run_id": world.run, "path": f"names/{name}"}),
    ):
        assert asked.status_code == 200
        assert asked.headers["content-type"] == media
        assert asked.headers["content-disposition"] == disposition
        assert asked.headers["x-content-type-options"] == "nosniff"


# -- writing


@pytest.mark.parametrize("size", [0, 1, 1 << 20, 3_500_000])
def test_a_body_of_any_size_comes_back(world: World, size: int) -> None:
    data = os.urandom(size)
    assert world.client.put(f"{world.root}/sizes/{size}", content=data).status_code == 200
    assert world.client.get(f"{world.root}/sizes/{size}").content == data


def test_a_body_in_chunks_without_its_length_comes_back(world: World) -> None:
    pieces = [os.urandom(100_000) for _ in range(30)]
    assert world.client.put(f"{world.root}/chunked", content=iter(pieces)).status_code == 200
    assert world.client.get(f"{world.root}/chunked").content == b"".join(pieces)


def test_a_body_that_breaks_off_leaves_the_file_as_it_was(world: World) -> None:
    world.client.put(f"{world.root}/broken", content=b"as it was")
    before = set(world.platform.blobs.digests())
    address = urlsplit(str(world.client.base_url))
    for size in (100, 5_000_000):
        with socket.create_connection((address.hostname, address.port)) as connection:
            head = f"PUT {world.root}/broken HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
            connection.sendall(head.encode() + b"x" * (size // 2))
    assert world.client.get(f"{world.root}/broken").content == b"as it was"
    assert set(world.platform.blobs.digests()) == before


def test_names_that_differ_in_case_or_in_form_are_files_of_their_own(world: World) -> None:
    names = ["Case.txt", "case.txt", "caf\u00e9", "cafe\u0301", "100%", "100%25", "a%20b", "a b"]
    for name in names:
        answer = world.client.put(f"{world.root}/forms/{httpx2_quoted(name)}", content=name.encode())
        assert answer.status_code == 200
    for name in names:
        assert world.client.get(f"{world.root}/forms/{httpx2_quoted(name)}").content == name.encode()


def httpx2_quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name)


# -- uploads in parts, and signed addresses


def begun(world: World, name: str, parts: int) -> tuple[str, list[dict[str, Any]]]:
    # Clients send the path of the file on their own disk.
    body = {"path": f"/data/me/{name}", "num_parts": parts}
    answer = world.client.post(f"{PROXY}/mpu/create/0/{world.run}/artifacts/up", json=body).json()
    return answer["upload_id"], answer["credentials"]


def test_an_upload_in_parts_becomes_the_file(world: World) -> None:
    upload, credentials = begun(world, "big.bin", 3)
    pieces = [os.urandom(300_000) for _ in credentials]
    parts = []
    for one, piece in reversed(list(zip(credentials, pieces, strict=True))):
        assert urlsplit(one["url"]).netloc == urlsplit(str(world.client.base_url)).netloc
        httpx2.put(one["url"], content=b"an attempt that failed")
        answer = httpx2.put(one["url"], content=piece, headers=one["headers"])
        parts.append({"part_number": one["part_number"], "etag": answer.headers["ETag"], "url": one["url"]})
    body = {"path": "/data/me/big.bin", "upload_id": upload, "parts": parts}
    wrong = {**body, "parts": [*parts[1:], {**parts[0], "etag": '"0"'}]}
    assert world.client.post(f"{PROXY}/mpu/complete/0/{world.run}/artifacts/up", json=wrong).status_code == 400
    assert world.client.get(f"{world.root}/up/big.bin").status_code == 404
    done = world.client.post(f"{PROXY}/mpu/complete/0/{world.run}/artifacts/up", json=body)
    assert (done.status_code, done.json()) == (200, {})
    assert world.client.get(f"{world.root}/up/big.bin").content == b"".join(pieces)
    again = world.client.post(f"{PROXY}/mpu/complete/0/{world.run}/artifacts/up", json=body)
    assert again.status_code == 404


def test_an_upload_that_was_aborted_takes_nothing_more(world: World) -> None:
    upload, (one,) = begun(world, "stopped", 1)
    elsewhere = {"path": "other", "upload_id": upload}
    assert world.client.post(f"{PROXY}/mpu/abort/0/{world.run}/artifacts/up", json=elsewhere).status_code == 404
    body = {"path": "stopped", "upload_id": upload}
    assert world.client.post(f"{PROXY}/mpu/abort/0/{world.run}/artifacts/up", json=body).json() == {}
    assert httpx2.put(one["url"], content=b"late").status_code == 404
    assert list((world.platform.home / "uploads").iterdir()) == []


@pytest.mark.parametrize("count", [0, -1, 10_001])
def test_an_upload_has_a_number_of_parts_that_can_be(world: World, count: int) -> None:
    body = {"path": "x", "num_parts": count}
    answer = world.client.post(f"{PROXY}/mpu/create/0/{world.run}/artifacts", json=body)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_a_signed_address_permits_one_thing_to_whoever_has_it(world: World) -> None:
    asked = {"run_id": world.run, "path": "signed/a.txt", "expiration": 60}
    put = world.client.post(f"{MLFLOW}/artifacts/presigned-upload-url", json=asked).json()["presigned_url"]
    assert httpx2.put(put, content=b"by address").status_code == 200
    answer = world.client.post(f"{MLFLOW}/artifacts/presigned-download-url", json=asked).json()
    assert answer["file_size"] == 10
    assert httpx2.get(answer["presigned_url"]).content == b"by address"
    assert httpx2.get(answer["presigned_url"], headers={"range": "bytes=3-"}).content == b"address"
    also = world.client.get(f"{PROXY}/presigned/0/{world.run}/artifacts/signed/a.txt").json()
    assert httpx2.get(also["url"]).content == b"by address"
    assert httpx2.put(answer["presigned_url"], content=b"x").status_code == 403
    assert httpx2.get(put).status_code == 403


def test_a_signed_address_that_was_changed_or_has_run_out_permits_nothing(world: World) -> None:
    token = world.platform.permit({"verb": "GET", "path": f"0/{world.run}/artifacts/x"}, 60)
    old = world.platform.permit({"verb": "GET", "path": f"0/{world.run}/artifacts/x"}, -1)
    body, _, signature = token.partition(".")
    for wrong in (f"{body}x.{signature}", f"{body}.{signature[:-1]}0", body, "x.", f"{body}.", old, "é", f"{body}.é"):
        answer = world.client.get(f"{PROXY}/signed/{wrong}")
        assert (answer.status_code, answer.json()["error_code"]) == (403, "PERMISSION_DENIED"), wrong


# -- what was published about MLflow's server


def raw(world: World, verb: str, target: str, body: bytes = b"") -> tuple[int, bytes]:
    """Send a request whose path no library has tidied up."""
    address = urlsplit(str(world.client.base_url))
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=10)
    connection.putrequest(verb, target, skip_host=False, skip_accept_encoding=True)
    connection.putheader("Content-Length", str(len(body)))
    connection.putheader("Content-Type", "application/json")
    connection.endheaders(body)
    answer = connection.getresponse()
    return answer.status, answer.read()


def snapshot(world: World) -> dict[str, bytes]:
    """The files of the folder around the home that are none of the store's own."""
    home, outside = world.platform.home, {}
    for path in home.parent.rglob("*"):
        if path.is_file() and not path.is_relative_to(home):
            outside[str(path)] = path.read_bytes()
    return outside


_TRAVERSALS = {
    "CVE-2022-0736 and issue 7166: ..": "../../../../../../../../{secret}",
    "CVE-2023-1177: absolute": "/{secret}",
    "CVE-2023-2356: .. behind a folder": "model/../../../../../../../{secret}",
    "CVE-2023-2780: backslashes": "..\\..\\..\\..\\{secret}",
    "CVE-2023-6909: fragment": "#/../../../../../{secret}",
    "CVE-2023-6831: encoded": "%2E%2E%2F%2E%2E%2F%2E%2E%2F{secret}",
    "CVE-2024-1560: encoded twice": "%252E%252E%252F%252E%252E%252F{secret}",
    "CVE-2024-1483: a fragment that hides ..": "x#../../../../{secret}",
    "CVE-2024-1594, CVE-2024-3848: encoded fragment": "x%23../../../../{secret}",
    "CVE-2024-2928: .. in the fragment of a file": "file:///a#/../../../{secret}",
    "CVE-2023-6975: drive of Windows": "C:/{secret}",
    "CVE-2023-6975: share of Windows": "\\\\host\\share\\{secret}",
    "CVE-2023-6974, CVE-2023-6018: another host": "http://169.254.169.254/{secret}",
    "CVE-2023-6976: .. for what is uploaded": "a/../../../../{secret}",
    "CVE-2023-6977, CVE-2024-8859: the scheme file": "file:{secret}",
    "CVE-2025-11201: .. with a NUL": "..\x00/{secret}",
    "CVE-2026-2614: the address of a file": "file://{secret}",
}


@pytest.mark.parametrize("way", _TRAVERSALS)
def test_no_published_path_leads_out(world: World, way: str) -> None:
    from urllib.parse import quote

    path = _TRAVERSALS[way].format(secret=str(world.secret).lstrip("/"))
    before, ours = snapshot(world), set(world.platform.blobs.digests())
    quoted = quote(path, safe="")
    tried = [
        raw(world, "GET", f"/get-artifact?run_id={world.run}&path={quoted}"),
        raw(world, "GET", f"{MLFLOW}/artifacts/list?run_id={world.run}&path={quoted}"),
        raw(world, "GET", f"{FILES}?path={quoted}"),
        raw(world, "GET", f"{PROXY}/presigned/{quoted}"),
        *(raw(world, verb, f"{FILES}/{quoted}", b"evil") for verb in ("GET", "PUT", "DELETE")),
        raw(world, "POST", f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={world.run}&path={quoted}", b"evil"),
    ]
    if not path.startswith("/"):  # behind a folder that is a doubled slash, and stays within
        tried += [raw(world, verb, f"{world.root}/{quoted}", b"evil") for verb in ("GET", "PUT", "DELETE")]
    for status, body in tried:
        assert 400 <= status < 500, (status, body)
        assert b"INVALID_PARAMETER_VALUE" in body
        assert SECRET not in body
    for noun, field in (("presigned-upload-url", "path"), ("presigned-download-url", "path")):
        answer = world.client.post(f"{MLFLOW}/artifacts/{noun}", json={"run_id": world.run, field: path})
        assert answer.status_code == 400
    model = world.platform.create_logged_model("0", "net").id
    of_model = [
        world.client.get(
            f"{MLFLOW}/logged-models/{model}/artifacts/directories", params={"artifact_directory_path": path}
        ),
        world.client.get(
            f"/ajax-api/2.0/mlflow/logged-models/{model}/artifacts/files", params={"artifact_file_path": path}
        ),
    ]
    assert [answer.status_code for answer in of_model] == [400, 400]
    assert snapshot(world) == before
    assert set(world.platform.blobs.digests()) == ours


@pytest.mark.parametrize("verb", ["create", "complete", "abort"])
@pytest.mark.parametrize("folder", ["..%2f..%2fx", "%252e%252e", "a%5C..%5Cb", "%2fetc"])
def test_uploads_in_parts_lead_out_as_little(world: World, verb: str, folder: str) -> None:
    """CVE-2026-2651 wrote at other places by the endpoints of uploads in parts."""
    body = (
        b'{"path": "x", "upload_id": "' + b"0" * 32 + b'", "num_parts": 1, "parts": [{"part_number": 1, "etag": "x"}]}'
    )
    status, answer = raw(world, "POST", f"{PROXY}/mpu/{verb}/{folder}", body)
    assert status == 400
    assert b"Invalid path" in answer


@pytest.mark.parametrize(
    "location",
    ["{secret}", "file://{secret}", "{folder}", "file://{folder}", "{folder}?x=y", "s3://bucket/x", "dbfs:/x", "ftp:x"],
)
def test_a_place_that_a_client_chose_is_never_read_by_the_server(world: World, location: str) -> None:
    """CVE-2023-6974, CVE-2024-1558, CVE-2024-3573, CVE-2024-8859: an experiment whose artifacts lie at a local file."""
    place = location.format(secret=world.secret, folder=world.secret.parent)
    made = {"name": f"at {location} {os.urandom(4).hex()}", "artifact_location": place}
    answer = world.client.post(f"{MLFLOW}/experiments/create", json=made)
    if answer.status_code != 200:
        assert answer.json()["error_code"] == "INVALID_PARAMETER_VALUE"
        return
    run = world.platform.recorder.create_run(answer.json()["experiment_id"], "fit").result().id
    model = world.platform.create_logged_model(answer.json()["experiment_id"], "net").id
    for path in ("secret.txt", "", "home/ledger.db"):
        for asked in (
            world.client.get("/get-artifact", params={"run_id": run, "path": path}),
            world.client.get(
                f"/ajax-api/2.0/mlflow/logged-models/{model}/artifacts/files",
                params={"artifact_file_path": path or "."},
            ),
        ):
            assert asked.status_code in (400, 404)
            assert SECRET not in asked.content
    assert "files" not in world.client.get(f"{MLFLOW}/artifacts/list", params={"run_id": run}).json()
    body = {"run_id": run, "path": "x"}
    assert world.client.post(f"{MLFLOW}/artifacts/presigned-upload-url", json=body).status_code == 400


@pytest.mark.parametrize(
    "source",
    [
        *("/etc/passwd", "file:///etc/passwd", "http://169.254.169.254/latest", "s3://bucket/x", "//etc", "ftp://h/x"),
        *("../x", "etc", "mlflow-artifacts:/../x", "mlflow-artifacts:/a/%2e%2e/b", "runs:/../x", "models:/m-1/../x"),
    ],
)
def test_the_source_of_a_version_is_read_only_where_this_server_keeps_files(world: World, source: str) -> None:
    """CVE-2023-1177, CVE-2023-2356, CVE-2023-2780, CVE-2025-11201, CVE-2026-2614, on the side that reads."""
    with pytest.raises(InvalidInput):
        world.platform.place_at(source, "passwd")


def test_a_symbolic_link_in_the_home_is_no_file_of_a_run(world: World) -> None:
    """CVE-2023-6940 and its like followed what lay in the folder of artifacts; here nothing is found by its name."""
    for folder in (world.platform.home, world.platform.home / "blobs"):
        link = folder / "link"
        link.symlink_to(world.secret)
        for path in ("link", "blobs/link", "../link"):
            assert raw(world, "GET", f"{FILES}/{path}")[0] in (400, 404)
        link.unlink()


@pytest.mark.parametrize("header", ["x\r\nX-Evil: 1", "a\nb", "\x7f"])
def test_a_name_cannot_write_headers(world: World, header: str) -> None:
    from urllib.parse import quote

    status, body = raw(world, "PUT", f"{world.root}/{quote(header)}", b"x")
    assert (status, b"Invalid path" in body) == (400, True)


def test_nothing_of_the_database_can_be_reached_by_a_name(world: World) -> None:
    name = "x' OR '1'='1"
    world.client.put(f"{world.root}/sql/a", content=b"1")
    assert world.client.get(f"{world.root}/sql/{name}").status_code == 404
    assert world.client.delete(f"{world.root}/sql/{name}").json() == {}
    assert world.client.delete(f"{world.root}/sq%").json() == {}
    assert world.client.get(f"{world.root}/sql/a").content == b"1"
    with sqlite3.connect(world.platform.home / "ledger.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_the_files_of_a_registered_version_are_those_it_is_made_of(world: World) -> None:
    model = world.platform.create_logged_model("0", "net").id
    world.client.put(f"{FILES}/0/models/{model}/artifacts/code/fit.py", content=b"1")
    world.client.put(f"{world.root}/model/MLmodel", content=b"2")
    for name, source in (
        ("of-model", f"models:/{model}"),
        ("of-run", f"runs:/{world.run}/model"),
        ("of-path", f"mlflow-artifacts:/0/{world.run}/artifacts/model"),
        ("outside", "file:///etc"),
    ):
        world.platform.create_model(name)
        world.platform.create_version(name, source)

    def asked(name: str, path: str) -> httpx2.Response:
        return world.client.get("/model-versions/get-artifact", params={"name": name, "version": "1", "path": path})

    assert asked("of-model", "code/fit.py").content == b"1"
    assert asked("of-run", "MLmodel").content == asked("of-path", "MLmodel").content == b"2"
    assert asked("of-run", "../MLmodel").json()["message"] == "Invalid path"
    assert asked("of-run", "nothing").status_code == asked("none", "MLmodel").status_code == 404
    assert asked("outside", "passwd").status_code == 400
