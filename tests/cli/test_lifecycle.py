"""Promotion, approvals, history, cards and risk on the command line, over a real home."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from flyball.cli import main
from flyball.governance.identity import Principal
from flyball.platform import Platform

Run = Callable[..., tuple[int, str, str]]
STAGES = [{"name": "lab"}, {"name": "field", "alias": "champion", "approvers": {"at_least": 1}}, {"name": "archived"}]


@pytest.fixture
def flyball(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLYBALL_HOME", str(tmp_path / "home"))
    with closing(Platform.open(tmp_path / "home", Principal("user/zoe", "admin"))) as opened:
        opened.declare("Model", "late", promotion="by hand", stages=STAGES)
        with opened.ledger.write("user/zoe") as world:
            metrics = {"auc": {"low": 0.7, "value": 0.75, "high": 0.8}}
            for number in (1, 2):
                metadata = {"metric": "auc", "evaluation": {"rows": 9, "metrics": metrics}}
                world.versions.publish("model", "late", f"{number:064}", metadata=metadata)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        out, error = capsys.readouterr()
        return code, out, error

    return run


def as_zoe(home: Path, version: str, to: str = "field") -> int:
    with closing(Platform.open(home, Principal("user/zoe", "admin"))) as opened:
        return opened.promote(version, to, "better").id


def test_a_request_is_shown_reviewed_and_told_in_the_history(flyball: Run, tmp_path: Path) -> None:
    id = as_zoe(tmp_path / "home", "late@1")
    code, out, _ = flyball("approvals")
    assert code == 0 and "late@1" in out and "you" in out and "zoe" in out
    code, out, _ = flyball("review", str(id))
    assert code == 0 and "0.750 [0.700, 0.800]" in out and "nothing in use" in out.lower()
    assert flyball("review", str(id), "--refuse")[2].startswith("error: a refusal needs a comment")
    assert flyball("review", str(id), "--approve", "--refuse")[0] == 2
    assert (
        flyball("review", str(id), "--approve", "--comment", "fine")[1]
        == f"request {id} is approved: late@1 for field\n"
    )
    code, out, _ = flyball("history", "late")
    assert code == 0 and "field" in out and "fine" in out
    assert flyball("history", "model/late", "--at", "2020-01-01T00:00")[2] == "nothing was in a stage then\n"
    assert flyball("history", "late", "--at", "noon")[0] == 2
    assert '"next": null' in flyball("history", "late", "--json")[1]


def test_who_asks_may_not_agree_but_withdraw(flyball: Run) -> None:
    code, out, _ = flyball("promote", "late@2", "--to", "field", "--reason", "mine")
    assert code == 0 and out.startswith("request 1 waits for its reviews, until ")
    code, _, error = flyball("review", "1", "--approve")
    assert code == 1 and "asked for it, and another person must decide" in error
    code, _, error = flyball("approve", "late@2")
    assert code == 1 and "another person must decide" in error
    assert flyball("review", "1", "--withdraw")[1] == "request 1 is withdrawn: late@2 for field\n"
    assert flyball("approvals")[2] == "nothing waits\n" and "withdrawn" in flyball("approvals", "--all")[1]
    assert flyball("promote", "late@2", "--to", "archived")[1] == "late@2 is in archived\n"
    assert flyball("promote", "late@2", "--to", "fild")[2].startswith(
        'error: there is no stage "fild"; did you mean "field"?'
    )


def test_a_model_goes_back_by_command(flyball: Run, tmp_path: Path) -> None:
    for version in ("late@1", "late@2"):
        flyball("review", str(as_zoe(tmp_path / "home", version)), "--approve")
    assert flyball("rollback", "model/late")[1] == "late@1 serves model/late from now on\n"
    assert flyball("rollback", "run/late")[0] == 2


def test_a_card_is_printed_changed_in_a_file_and_kept(flyball: Run, tmp_path: Path) -> None:
    code, out, _ = flyball("card", "late@1")
    assert code == 0 and out.startswith("# late@1\n\n## Summary\n")
    (tmp_path / "card.md").write_text(
        out.replace("## Limits\n\n*Nobody has written this yet.*", "## Limits\n\nnaïve ☃")
    )
    assert flyball("card", "late@1", "--edit", "card.md", "--note", "began")[2] == "the card of late@1 has edit 1\n"
    assert "naïve ☃" in flyball("card", "late@1", "--markdown")[1]
    assert flyball("card", "late@1", "--hugging-face")[1].startswith("---\nlicense: unknown\n")
    assert "began" in flyball("card", "late@1", "--edits")[1]
    assert flyball("card", "late@1", "--edit", "none.md")[2].startswith("error: none.md cannot be read")
    assert flyball("card", "late@1", "--markdown", "--edits")[0] == 2
    assert flyball("card", "late@9")[0] == 1


def test_a_risk_form_is_answered_from_options_and_a_file(flyball: Run, tmp_path: Path) -> None:
    assert "risk_class is not answered" in flyball("risk", "late@1")[2]
    (tmp_path / "answers.yaml").write_text("residual: low\npersonal_data: no\nmisuse: |\n  not at night\n")
    assert flyball("risk", "late@1", "--file", "answers.yaml", "--answer", "risk_class=minimal")[0] == 0
    out = flyball("risk", "late@1", "--json")[1]
    assert '"answer": "no"' in out and '"risk_class": "minimal"' in out and '"not at night"' in out
    assert flyball("risk", "late@1", "--answer", "residual")[0] == 2
    assert flyball("risk", "late@1", "--answer", "residual=none")[0] == 1
    assert "1" in flyball("risk", "late@1", "--edits")[1]
