"""The commands of the catalogue: search, product, labels; in tables and in JSON, with errors in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from flyball.cli import main
from flyball.platform import Platform

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def flyball(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run commands on a home with a dataset and a model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLYBALL_HOME", str(tmp_path / "home"))
    with closing(Platform.open(tmp_path / "home")) as platform:
        platform.declare(
            "Dataset", "flights", description="Departures of New York", owner="user/alice", tags=["gold"], key=["id"]
        )
        platform.publish("flights", {"id": [1, 2, 3], "dep_delay": [5, 0, 9]})
        platform.declare("Model", "late", dataset="flights", description="Is a flight late?")
        platform.declare("Labels", "late", dataset="flights", key=["id"], values=["yes", "no"], needed=2)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        out, error = capsys.readouterr()
        return code, out, error

    return run


def test_search_shows_kind_name_owner_and_what_was_found(flyball: Run) -> None:
    code, out, _ = flyball("search", "departures")
    assert code == 0
    assert out.split("\n")[0].split() == ["KIND", "NAME", "OWNER", "CHANGED", "FOUND"]
    assert "user/alice" in out and "Departures of New York" in out
    code, out, _ = flyball("search", "kind:dataset", "is:resource", "--json")
    assert [item["ref"] for item in json.loads(out)["items"]] == ["dataset/flights"]
    code, out, _ = flyball("search", "new york", "--json")
    assert [item["ref"] for item in json.loads(out)["items"]] == ["dataset/flights"]
    code, out, error = flyball("search", "zebra")
    assert (code, out) == (0, "") and "nothing was found" in error
    code, out, error = flyball("search", "kind:modle", "late")
    assert 'did you mean "Model"' in error


def test_search_goes_on_behind_the_page_before(flyball: Run) -> None:
    seen: list[str] = []
    after: list[str] = []
    for _page in range(10):
        _, out, _ = flyball("search", "--limit", "1", "--json", *after)
        page = json.loads(out)
        seen += [item["ref"] for item in page["items"]]
        if page["next"] is None:
            break
        after = ["--after", page["next"]]
    assert seen == ["labels/late", "model/late", "dataset/flights", "dataset/flights@1"]
    assert "there is more: --after" in flyball("search", "--limit", "1")[2]
    code, _, error = flyball("search", "x", "--after", "nonsense")
    assert (code, error.count("\n")) == (1, 1) and "does not continue a search" in error


def test_a_product_is_imported_shown_deprecated_and_exported(flyball: Run, tmp_path: Path) -> None:
    document = {
        "apiVersion": "v1.0.0", "kind": "DataProduct", "id": "x", "name": "Flights", "status": "active",
        "outputPorts": [{"name": "flights", "version": "1", "customProperties": [
            {"property": "own", "value": 1}, {"property": "flyballDataset", "value": "flights"}]}],
        "customProperties": [
            {"property": "flyballLevels", "value": [{"measure": "row_count", "at_least": 2}]}],
    }  # fmt: skip
    (tmp_path / "flights.odps.yaml").write_text(yaml.safe_dump(document))
    assert flyball("product", "import", "flights.odps.yaml")[1] == "data-product/flights is active\n"
    assert flyball("product", "import", "flights.odps.yaml")[0] == 0
    _, out, _ = flyball("product", "list")
    assert "1 kept" in out and "active" in out
    _, out, _ = flyball("product", "show", "flights")
    assert "row_count" in out and "model/late" in out and "at least 2" in out
    code, _, error = flyball("product", "advance", "flights", "retired")
    assert code == 1 and "is active and cannot become retired" in error
    _, out, _ = flyball("product", "deprecate", "flights", "--reason", "old", "--use", "dataset/new")
    assert "data-product/flights is deprecated\n" in out and "told: model/late" in out
    code, _, error = flyball("product", "advance", "flights", "retired")
    assert code == 1 and "labels/late, model/late depend on it" in error
    assert flyball("product", "advance", "flights", "retired", "--force", "--reason", "gone")[0] == 0
    _, out, _ = flyball("product", "show", "flights", "--json")
    assert json.loads(out)["replaced_by"] == "dataset/new"
    _, out, _ = flyball("product", "export", "flights")
    assert yaml.safe_load(out) == {**document, "status": "retired"}
    assert flyball("product", "export", "flights", "--to", "out.yaml")[0] == 0
    assert yaml.safe_load((tmp_path / "out.yaml").read_text())["id"] == "x"
    _, out, _ = flyball("product", "export", "flights", "--json")
    assert json.loads(out)["id"] == "x"


def test_labels_are_imported_resolved_and_compared(flyball: Run, tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("id,label,labeller\n1,yes,ann\n2,no,ann\n")
    (tmp_path / "two.csv").write_text("id,said\n1,yes\n2,yes\n")
    assert flyball("labels", "import", "late", "one.csv")[1] == "labels/late@1: 2 labels added, 0 were there\n"
    _, out, _ = flyball("labels", "import", "late", "two.csv", "--labeller", "bob", "--label", "said", "--json")
    assert json.loads(out)["added"] == 2
    _, out, _ = flyball("labels", "show", "labels/late")
    assert out.startswith("1 resolved, 1 unresolved, 0 waiting")
    assert json.loads(flyball("labels", "show", "late", "--json")[1])["counts"]["resolved"] == 1
    assert "nothing is labelled yet" in flyball("labels", "show", "late", "--at", "2020-01-01T00:00:00Z")[2]
    _, out, _ = flyball("labels", "resolve", "late")
    assert "unresolved" in out and "unlabelled" in out
    assert len(json.loads(flyball("labels", "resolve", "late", "--json")[1])["items"]) == 2
    _, out, _ = flyball("labels", "agreement", "late")
    assert "2 items, 2 by two labellers or more" in out and "ann" in out and "Krippendorff" in out
    assert json.loads(flyball("labels", "agreement", "late", "--json")[1])["items_compared"] == 2


@pytest.mark.parametrize(
    ("arguments", "sentence", "code"),
    [
        (["product", "show", "nothing"], "there is no data-product", 1),
        (["product", "show", "dataset/flights"], "expected a data-product", 2),
        (["product", "import", "none.yaml"], "there is no file", 1),
        (["product", "advance", "flights", "x"], "not a stage", 1),
        (["labels", "show", "late"], "no version", 1),
        (["labels", "show", "late", "--at", "monday"], "--at: ", 2),
        (["labels", "import", "late", "none.csv"], "none.csv", 1),
        (["labels", "import", "nothing", "none.csv"], "there is no labels", 1),
    ],
)
def test_an_error_is_one_sentence(flyball: Run, arguments: list[str], sentence: str, code: int) -> None:
    found, out, error = flyball(*arguments)
    assert (found, out) == (code, "")
    assert error.startswith("error: ") and error.count("\n") == 1 and sentence in error


def test_every_command_says_what_it_is_for_and_can_name_a_home() -> None:
    from flyball.cli import catalogue

    for command in (*catalogue.product.registered_commands, *catalogue.labels.registered_commands):
        assert command.callback is not None
        assert (command.callback.__doc__ or "").strip().endswith(".")
        assert "home" in command.callback.__annotations__
