"""Access keys at the data plane: what `Callers` decides, and a running `flyball up` that follows the ledger."""

from __future__ import annotations

from base64 import b64encode
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import httpx2
import pytest

from flyball.clock import format_instant
from flyball.errors import Forbidden, InvalidInput, Unauthenticated
from flyball.governance.keys import digest_of, new_secret, secret_in
from flyball.platform import Platform
from flyball.serving.keys import Callers
from flyball.serving.snapshot import CallerKey, Snapshot, read, write
from flyball.testing.clock import FakeClock
from tests.cli.running import RECORD, declare_late, serves_late, until, up


def test_whose_role_or_deployments_do_not_fit_is_refused() -> None:
    clock = FakeClock()
    every, late, brief = new_secret(), new_secret(), new_secret()
    until = format_instant(clock.now() + timedelta(hours=1))
    keys = (
        CallerKey("every", digest_of(every)),
        CallerKey("late", digest_of(late), ("late",)),
        CallerKey("brief", digest_of(brief), expires_at=until),
    )
    callers = Callers(keys, is_required=True, clock=clock)
    for header in (f"Bearer {every}", f"bearer  {every} ", "Basic " + b64encode(f"x:{every}".encode()).decode()):
        found = callers.check(header.encode(), "late")
        assert found is not None and found.name == "every"
    assert callers.check(f"Bearer {every}".encode(), None) is not None
    assert callers.check(f"Bearer {late}".encode(), "late") is not None
    for deployment in ("fraud", None):
        with pytest.raises(Forbidden, match="the access key late is not for"):
            callers.check(f"Bearer {late}".encode(), deployment)
    for wrong in (
        None,
        b"",
        b"Bearer",
        b"Bearer fb_x",
        late.encode(),
        b"Basic x",
        b"Bearer " + digest_of(late).encode(),
    ):
        with pytest.raises(Unauthenticated):
            callers.check(wrong, "late")
    assert callers.check(f"Bearer {brief}".encode(), "late") is not None
    clock.advance(3600)
    with pytest.raises(Unauthenticated, match="expired"):
        callers.check(f"Bearer {brief}".encode(), "late")
    assert Callers(keys).check(b"Bearer nothing", "late") is None  # where none is required, none is looked at


def test_a_secret_is_found_only_in_the_headers_that_hold_one() -> None:
    assert secret_in("Basic " + b64encode("über:fb_é:x".encode()).decode()) == "fb_é:x"
    for header in (None, "", "Bearer", "Digest x", "Basic " + b64encode(b"nothing").decode(), "Bearer " + "x" * 2000):
        assert secret_in(header) is None


def test_a_snapshot_keeps_its_keys_and_refuses_broken_ones(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.json"
    whole = Snapshot(1, keys=(CallerKey("a", "0" * 64, ("late",), "2026-01-01T00:00:00Z"), CallerKey("b", "1" * 64)))
    write(path, whole)
    assert read(path) == whole
    for broken in (CallerKey("a", "short"), CallerKey("", "0" * 64), CallerKey("a", "0" * 64, expires_at="never")):
        with pytest.raises(InvalidInput):
            Snapshot(1, keys=(broken,)).validate()


def test_predictions_are_asked_with_a_key_where_the_home_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYBALL_SERVING_KEYS_REQUIRED", "1")
    home = tmp_path / "home"
    declare_late(home)
    with closing(Platform.open(home)) as platform, up(home) as running:
        _, secret = platform.create_key("caller", "operator", deployments=["late"])
        _, other = platform.create_key("other", "operator", deployments=["fraud"])
        _, viewer = platform.create_key("viewer", "viewer")
        url = f"{running.predictions}/v1/models/late:predict"

        def ask(secret: str) -> int:
            return httpx2.post(url, json=RECORD, headers={"Authorization": f"Bearer {secret}"}, timeout=10).status_code

        until(lambda: ask(secret) == 200)
        assert not serves_late(running.predictions)
        refused = httpx2.post(url, json=RECORD)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert (ask(other), ask(viewer), ask("fb_x")) == (403, 401, 401)
        for path in ("/health", "/v2/health/live", "/v2/health/ready", "/metrics"):
            assert httpx2.get(running.predictions + path).status_code == 200
        for path in ("/v2", "/v2/models", "/v2/models/late", "/v2/models/late/ready", "/features", "/features/x"):
            assert httpx2.get(running.predictions + path).status_code == 401, path
        platform.revoke_key("caller")
        until(lambda: ask(secret) == 401, 10)
