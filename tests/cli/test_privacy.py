"""`flyball erase` and `flyball retention`: what they print, how they fail, with which exit code."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from flyball.cli import main
from flyball.platform import Platform
from tests.privacy.full_home import OTHER, PERSON, people


class Done(NamedTuple):
    """What a command left."""

    code: int
    out: str
    error: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    platform = Platform.open(tmp_path / "home")
    platform.declare("dataset", "people", subject="email", event_time="at", retention="36500d")
    platform.publish("people", people())
    platform.close()
    return tmp_path / "home"


@pytest.fixture
def flyball(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("FLYBALL_HOME", str(home))
    monkeypatch.setenv("FLYBALL_PRIVACY_GRACE_S", "0")

    def run(*arguments: str) -> Done:
        code = main(arguments)
        return Done(code, *capsys.readouterr())

    return run


def test_a_subject_is_counted_then_erased_and_its_certificate_shown(flyball: Any, home: Path) -> None:
    counted = flyball("erase", "--subject", PERSON, "--dry-run")
    assert counted.code == 0
    assert "would go" in counted.out and "dataset" in counted.out
    done = flyball("erase", "--subject", f"email={PERSON}")
    assert done.code == 0
    assert PERSON not in done.out + done.error
    listed = flyball("erase", "--show", "all", "--json").json["items"]
    assert [(c["rows"], c["complete"], c["columns"]) for c in listed] == [(4, True, ["email"])]
    shown = flyball("erase", "--show", listed[0]["name"][:5])
    assert shown.json["removed"]["dataset"] == 4
    assert PERSON not in shown.out
    assert "complete" in flyball("erase", "--show", "all").out
    platform = Platform.open(home)
    assert platform.frame("people").collect().height == 8
    platform.close()


def test_the_answer_of_a_program_is_the_certificate(flyball: Any) -> None:
    assert flyball("erase", "--subject", f"email={OTHER}", "--json").json["complete"] is True
    assert flyball("erase", "--resume").out == "no erasure was interrupted\n"
    assert flyball("erase", "--subject", OTHER, "--allow-again").out.startswith("allowed again")
    again = flyball("erase", "--subject", OTHER, "--allow-again")
    assert (again.code, "nothing to allow again" in again.error) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "say one of --subject"),
        (("--subject", "x", "--resume"), 2, "say one of --subject"),
        (("--resume", "--dry-run"), 2, "go with --subject"),
        (("--subject", "email="), 1, "the subject is empty"),
        (("--show", "nothing"), 1, "no certificate begins"),
    ],
)
def test_wrong_use_is_one_sentence(flyball: Any, arguments: tuple[str, ...], code: int, message: str) -> None:
    done = flyball("erase", *arguments)
    assert (done.code, done.out) == (code, "")
    assert message in done.error and done.error.count("\n") == 1


def test_a_value_without_a_column_needs_one_declared_subject(flyball: Any, home: Path) -> None:
    platform = Platform.open(home)
    platform.declare("dataset", "orders", subject="customer")
    platform.close()
    done = flyball("erase", "--subject", "x")
    assert done.code == 1
    assert "customer (of orders), email (of people)" in done.error


def test_only_an_admin_erases(home: Path) -> None:
    from flyball.errors import Forbidden
    from flyball.governance.identity import Principal

    platform = Platform.open(home, Principal("user/e", "editor"))
    with pytest.raises(Forbidden, match="may not erase; that needs admin"):
        platform.erase(PERSON, ["email"])
    assert platform.retention()[0].rows == 0
    platform.close()


def test_retention_is_counted_unless_it_is_to_be_applied(flyball: Any, home: Path) -> None:
    platform = Platform.open(home)
    platform.declare("dataset", "people", subject="email", event_time="at", retention="1d")
    platform.publish("people", people().with_columns(at=people()["at"] - timedelta(days=20_000)))
    platform.close()
    counted = flyball("retention", "--json").json["items"][0]
    assert (counted["dataset"], counted["because"]) == ("people", "dataset/people")
    assert counted["rows"] >= 12
    assert "nothing was changed" in flyball("retention").error
    flyball("retention", "--apply")
    assert flyball("retention", "--json").json["items"][0]["rows"] == 0
