"""Who comes in, as whom, and what a role that is too low cannot do: on every route."""

from __future__ import annotations

import sqlite3
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from flyball.governance.admission import Backoff
from flyball.platform import Platform
from tests.wire.guarded import guarded
from tests.wire.mlflow import asked_of_files, asked_of_registry, asked_of_runs, asked_of_traces, asked_of_webhooks
from tests.wire.mlflow.replaying import play

OPEN = ("/health", "/version", "/login", "/favicon.ico")
CLOSED = (
    *("/", "/runs", "/settings", "/settings/keys", "/api", "/api/health", "/api/resources", "/api/changes", "/metrics"),
    *("/api/openapi.json", "/api/keys", "/mlflow/", "/mlflow/static-files/x.js", "/mlflow/api/2.0/mlflow/runs/get"),
    *("/api/2.0/mlflow/experiments/search", "/ajax-api/3.0/mlflow/server-info", "/get-artifact", "/graphql"),
    *("/api/2.0/mlflow-artifacts/artifacts/x", "/v1/traces", "/static", "/health/", "//health", "/login/x"),
)  # fmt: skip


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with closing(Platform.open(tmp_path_factory.mktemp("gate") / "home")) as found:
        yield found


@pytest.fixture(scope="module")
def url(platform: Platform) -> Iterator[str]:
    with guarded(platform) as address:
        yield address


@pytest.fixture(scope="module")
def secrets(platform: Platform) -> dict[str, str]:
    return {role: platform.create_key(role, role)[1] for role in ("viewer", "operator", "editor", "admin")}


def _bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def _basic(user: str, secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{user}:{secret}".encode()).decode()}


def test_without_a_key_only_what_is_the_same_for_everybody_is_answered(url: str) -> None:
    with httpx2.Client(base_url=url) as client:
        for path in OPEN:
            assert client.get(path).status_code == 200, path
        page = client.get("/login").text
        styles = page.partition('stylesheet" href="')[2].partition('"')[0]
        assert client.get(styles).status_code == 200
        for path in CLOSED:
            for verb in ("GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD"):
                answer = client.request(verb, path)
                assert answer.status_code == 401, (verb, path)
                assert 'Basic realm="flyball"' in answer.headers["www-authenticate"]


def test_a_page_that_is_asked_for_without_a_key_leads_to_the_login(url: str) -> None:
    with httpx2.Client(base_url=url, headers={"Accept": "text/html"}) as client:
        answer = client.get("/runs?name=a b&x=//evil")
        assert answer.status_code == 303
        assert answer.headers["location"] == "/login?next=/runs%3Fname%3Da%2520b%26x%3D//evil"
        script = client.get("/api/resources", headers={"Accept": "*/*", "Sec-Fetch-Mode": "cors"})
        assert script.status_code == 401
        assert "Basic" not in script.headers["www-authenticate"]  # else the browser asks in a window of its own


def test_a_key_is_taken_as_a_bearer_token_and_as_the_password_of_any_user(url: str, secrets: dict[str, str]) -> None:
    secret = secrets["viewer"]
    with httpx2.Client(base_url=url) as client:
        for headers in (_bearer(secret), _basic("alice", secret), _basic("", secret), _basic("fb", secret)):
            assert client.get("/api/resources", headers=headers).status_code == 200
        for wrong in (
            *(_bearer(secret[:-1]), _bearer(secret.upper()), _bearer("x y"), _basic(secret, ""), _basic("a", "b")),
            *({"Authorization": secret}, {"Authorization": "Basic !!"}, {"Authorization": "Digest x"}),
            {"Authorization": "Bearer " + "x" * 5000},
        ):
            assert client.get("/api/resources", headers=wrong).status_code == 401, wrong


def test_what_is_done_is_done_in_the_name_of_the_key(url: str, platform: Platform, secrets: dict[str, str]) -> None:
    with httpx2.Client(base_url=url, headers=_bearer(secrets["editor"])) as client:
        made = client.post("/api/2.0/mlflow/experiments/create", json={"name": "by the editor"}).json()
        run = client.post("/api/2.0/mlflow/runs/create", json={"experiment_id": made["experiment_id"]}).json()["run"]
        applied = client.post("/api/apply", json=[{"kind": "Model", "name": "by-editor"}])
        assert applied.status_code == 200
        shown = client.get("/settings", headers={"Accept": "text/html"}).text
        assert "key/editor" in shown and "/settings/keys" not in shown
    assert platform.run_whole(run["info"]["run_id"]).user == "key/editor"
    assert [event.actor for event in platform.events(ref="model/by-editor")] == ["key/editor"]


def test_a_role_that_is_too_low_is_told_so_in_the_form_of_whom_it_asks(url: str, secrets: dict[str, str]) -> None:
    with httpx2.Client(base_url=url, headers=_bearer(secrets["viewer"])) as client:
        told = client.post("/api/2.0/mlflow/experiments/create", json={"name": "mine"})
        assert (told.status_code, told.json()["error_code"]) == (403, "PERMISSION_DENIED")
        assert told.json()["message"] == "key/viewer is viewer and may not record; that needs editor"
        told = client.post("/api/apply", json=[{"kind": "Model", "name": "mine"}])
        assert (told.status_code, told.json()) == (
            403,
            {"error": "key/viewer is viewer and may not apply; that needs editor"},
        )
        assert client.post("/settings/keys", data={"name": "x", "role": "admin"}).status_code == 403
        assert client.get("/api/keys").status_code == 403
    with httpx2.Client(base_url=url) as client:
        told = client.post("/api/2.0/mlflow/experiments/create", json={"name": "mine"})
        assert (told.status_code, told.json()["error_code"]) == (401, "UNAUTHENTICATED")
        assert "MLFLOW_TRACKING_TOKEN" in told.json()["message"]


_MLFLOW = {
    (module.__name__, name): steps
    for module in (asked_of_runs, asked_of_files, asked_of_registry, asked_of_traces, asked_of_webhooks)
    for name, steps in module.SCENARIOS.items()
}


def test_a_viewer_changes_nothing_by_any_request_to_mlflows_routes(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    changed, sent, refused = [], 0, 0
    with closing(Platform.open(tmp_path_factory.mktemp("viewer") / "home")) as platform, guarded(platform) as address:
        viewer, admin = (platform.create_key(role, role)[1] for role in ("viewer", "admin"))
        blobs = platform.home / "blobs"
        with httpx2.Client(base_url=address, timeout=30) as client, _ledger(platform) as ledger:
            _settle(client, platform, viewer, admin)

            def send(
                verb: str, path: str, query: list[tuple[str, str]], body: bytes | None, headers: dict[str, str]
            ) -> tuple[int, str]:
                nonlocal sent, refused
                before, files = _version(ledger), _files(blobs, verb, path)
                asked = client.request(verb, path, params=query, content=body, headers=headers | _bearer(viewer))
                if _version(ledger) != before or _files(blobs, verb, path) != files:
                    changed.append((verb, path, asked.status_code))
                sent, refused = sent + 1, refused + (asked.status_code == 403)
                answer = client.request(verb, path, params=query, content=body, headers=headers | _bearer(admin))
                return answer.status_code, answer.text

            for steps in _MLFLOW.values():
                for _ in play(send, steps):
                    pass
    assert changed == []
    assert refused > sent / 4


def test_a_viewer_changes_nothing_by_any_request_to_our_own_routes(
    url: str, platform: Platform, secrets: dict[str, str]
) -> None:
    platform.declare("model", "late")
    with platform.start_run("mine") as run:
        pass
    fill = {"kind": "model", "id": run.id, "run": run.id, "number": "1", "name": "late", "model": "late"}
    changed, asked = [], 0
    with (
        httpx2.Client(base_url=url, timeout=30, headers=_bearer(secrets["viewer"])) as client,
        _ledger(platform) as ledger,
    ):
        _settle(client, platform, secrets["viewer"], secrets["admin"])
        described = client.get("/api/openapi.json").json()
        for path, verbs in described["paths"].items():
            for verb, told in verbs.items():
                if verb == "get":
                    continue
                where = path
                for name in [part.partition("}")[0] for part in path.split("{")[1:]]:
                    where = where.replace("{" + name + "}", fill.get(name, "late"))
                schema = told.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
                body = _example(schema, described["components"]["schemas"])
                before = _version(ledger)
                answer = client.request(verb.upper(), where, json=body)
                asked += 1
                if _version(ledger) != before:
                    changed.append((verb, where, answer.status_code))
    assert asked > 15
    assert changed == []


def test_a_key_for_predictions_alone_does_not_come_in(url: str, platform: Platform) -> None:
    _, secret = platform.create_key("caller", "operator", deployments=["late", "deployment/late", "fraud"])
    answer = httpx2.get(f"{url}/api/resources", headers=_bearer(secret))
    assert (answer.status_code, answer.json()["error"]) == (
        403,
        "the access key caller is for predictions of late, fraud alone",
    )


def test_a_revoked_key_ends_at_once_and_one_revoked_elsewhere_within_a_moment(url: str, platform: Platform) -> None:
    with httpx2.Client(base_url=url) as client:
        _, here = platform.create_key("here", "viewer")
        _, elsewhere = platform.create_key("elsewhere", "viewer")
        for secret in (here, elsewhere):
            assert client.get("/api/resources", headers=_bearer(secret)).status_code == 200
        platform.revoke_key("here")
        assert client.get("/api/resources", headers=_bearer(here)).status_code == 401
        with closing(Platform.open(platform.home)) as other:  # as another process does
            other.revoke_key("elsewhere")
        deadline = time.monotonic() + 5
        while client.get("/api/resources", headers=_bearer(elsewhere)).status_code == 200:
            assert time.monotonic() < deadline
        with closing(Platform.open(platform.home)) as other:
            _, fresh = other.create_key("fresh", "viewer")
        assert _waits_for_200(client, fresh)


def test_a_login_holds_until_it_is_ended_or_its_key_is_revoked(url: str, platform: Platform) -> None:
    _, secret = platform.create_key("browser", "editor")
    with httpx2.Client(base_url=url, headers={"Origin": url}) as client:
        wrong = client.post("/login", data={"key": "fb_wrong"})
        assert (wrong.status_code, "does not hold" in wrong.text) == (401, True)
        assert "set-cookie" not in wrong.headers
        entered = client.post("/login", data={"key": f" {secret}\n", "next": "/runs?name=x"})
        assert (entered.status_code, entered.headers["location"]) == (303, "/runs?name=x")
        cookie = entered.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Path=/" in cookie and "Secure" not in cookie
        assert secret not in cookie
        assert client.get("/runs").status_code == 200
        assert client.get("/api/2.0/mlflow/experiments/get?experiment_id=0").status_code == 200
        kept = dict(client.cookies)
        assert client.post("/logout").headers["location"] == "/login"
        assert client.get("/runs", headers={"Cookie": f"flyball_session={kept['flyball_session']}"}).status_code == 401
        client.post("/login", data={"key": secret})
        assert client.get("/runs").status_code == 200
        platform.revoke_key("browser")
        assert client.get("/runs").status_code == 401
    assert [e.action for e in platform.events(ref="key/browser")][::-1] == [
        *("access given", "logged in", "logged in", "access revoked")
    ]


@pytest.mark.parametrize(
    "away", ["//evil.example", "https://evil.example/", "/\\evil.example", "javascript:alert(1)", "/\t/x"]
)
def test_a_login_leads_to_no_other_server(url: str, secrets: dict[str, str], away: str) -> None:
    answer = httpx2.post(f"{url}/login", data={"key": secrets["viewer"], "next": away}, headers={"Origin": url})
    assert answer.headers["location"] == "/"
    assert "evil" not in httpx2.get(f"{url}/login", params={"next": away}).text


def test_another_sites_page_can_neither_log_in_nor_use_a_login(url: str, secrets: dict[str, str]) -> None:
    foreign = {"Origin": "http://evil.example"}
    assert httpx2.post(f"{url}/login", data={"key": secrets["admin"]}, headers=foreign).status_code == 403
    with httpx2.Client(base_url=url) as client:
        client.post("/login", data={"key": secrets["admin"]}, headers={"Origin": url})
        assert client.post("/api/apply", json=[], headers=foreign).status_code == 403
        assert client.post("/settings/keys", data={"name": "x", "role": "admin"}, headers=foreign).status_code == 403


def test_a_key_that_has_expired_is_told_so(url: str, platform: Platform) -> None:
    _, secret = platform.create_key("short", "viewer", expires=timedelta(milliseconds=1))
    time.sleep(0.002)  # the only way for a millisecond to pass: the server has the machine's clock
    answer = httpx2.get(f"{url}/api/resources", headers=_bearer(secret))
    assert (answer.status_code, answer.json()) == (401, {"error": "this access key has expired"})


def test_wrong_keys_are_put_off_longer_and_longer_and_right_ones_never(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with closing(Platform.open(tmp_path_factory.mktemp("guess") / "home")) as platform, guarded(platform) as address:
        _, secret = platform.create_key("right", "viewer")
        with httpx2.Client(base_url=address) as client:
            said = {client.get("/api", headers=_basic(user, "fb_x")).content for user in ("right", "nobody")}
            assert said == {b'{"error":"this access key does not hold"}'}
            answers = [client.get("/api", headers=_bearer(f"fb_{n}")) for n in range(Backoff.free)]
            assert {answer.status_code for answer in answers} == {401}
            assert [("retry-after" in answer.headers) for answer in answers].index(True) == Backoff.free - 2
            assert client.get("/api", headers=_bearer(secret)).status_code == 200
            told = client.post("/api/2.0/mlflow/runs/search", json={}, headers=_bearer("fb_x"))
            assert (told.status_code, told.json()["error_code"]) == (401, "UNAUTHENTICATED")


def _waits_for_200(client: httpx2.Client, secret: str) -> bool:
    deadline = time.monotonic() + 5
    while client.get("/api/resources", headers=_bearer(secret)).status_code != 200:
        assert time.monotonic() < deadline
    return True


def _settle(client: httpx2.Client, platform: Platform, *secrets: str) -> None:
    """Use keys until their use is noted, so that no note of it falls into what follows."""
    deadline = time.monotonic() + 10
    while any(key.last_used_at is None for key in platform.access_keys() if key.name in ("viewer", "admin")):
        for secret in secrets:
            client.get("/api/resources", headers=_bearer(secret))
        platform.admission.forget()
        assert time.monotonic() < deadline


def _ledger(platform: Platform) -> closing[sqlite3.Connection]:
    """Return a connection of its own, which sees that others have changed the database."""
    return closing(sqlite3.connect(platform.home / "ledger.db"))


def _files(blobs: Path, verb: str, path: str) -> list[Path]:
    """Return the files of a folder, where a request might make one."""
    return sorted(blobs.rglob("*")) if verb != "GET" and "artifact" in path else []


def _version(ledger: sqlite3.Connection) -> int:
    return int(ledger.execute("PRAGMA data_version").fetchone()[0])


def _example(schema: dict[str, Any], known: dict[str, Any]) -> Any:
    """Return a value that a schema allows, of names that there are."""
    if "$ref" in schema:
        return _example(known[schema["$ref"].rpartition("/")[2]], known)
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return _example(schema[choice][0], known)
    if "enum" in schema or "const" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    kind = schema.get("type")
    if kind == "object":
        needed = schema.get("required", [])
        return {name: _example(part, known) for name, part in schema.get("properties", {}).items() if name in needed}
    if kind == "array":
        return [_example(schema.get("items", {}), known)]
    return {"string": "model/late", "integer": 1, "number": 1.0, "boolean": True}.get(
        str(kind), {"kind": "Model", "name": "new"}
    )
