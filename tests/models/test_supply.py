"""The supply chain as people use it: the platform's acts, the command line, and the page of a version."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from onnx_bytes import linear

from flyball.cli import main
from flyball.errors import Corrupt, Forbidden, InvalidInput, NotFound
from flyball.governance.identity import Principal
from flyball.ledger.refs import Ref
from flyball.models import bundle
from flyball.platform import Platform


@pytest.fixture
def platform(tmp_path: Path) -> Any:
    found = Platform.open(tmp_path / "home")
    found.declare("model", "late", description="Is a flight late?")
    found.register("late", linear([1.0, 2.0], 0.5), example={"x": [[1.0, 1.0]]})
    yield found
    found.close()


class Line:
    """The command line in this process; what it printed, both streams together."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str]:
        self._capsys.readouterr()
        code = main(["model", *arguments])
        return code, "".join(self._capsys.readouterr())


@pytest.fixture
def line(platform: Platform, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Line:
    monkeypatch.setenv("FLYBALL_HOME", str(platform.home))
    return Line(capsys)


def test_a_version_is_signed_verified_and_the_journal_says_so(platform: Platform, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"late@1 is not signed; sign it with: flyball model sign late@1"):
        platform.verify_model("late@1")
    assert platform.sign("late").is_trusted
    assert platform.verify_model("late@1").name == "this home"
    (event,) = [e for e in platform.events(ref="model/late@1") if e.action == "signed"]
    assert event.detail["key"] == platform.signing_key().id
    own = platform.home / "keys" / "signing.pub.pem"
    assert platform.verify_model("late@1", own).key == platform.signing_key().id
    other = Platform.open(tmp_path / "other")
    (tmp_path / "other.pem").write_bytes(other.signing_key().pem)
    other.close()
    with pytest.raises(Forbidden, match="not with other"):
        platform.verify_model("late@1", tmp_path / "other.pem")
    digest = platform.version("model/late@1").digest
    name = next(iter(bundle.read_manifest(platform.blobs, digest).manifest["files"].values()))["digest"]
    path = platform.blobs.path(name)
    assert path is not None
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(Corrupt):
        platform.verify_model("late@1")


def test_a_home_can_sign_what_is_registered_and_require_it(platform: Platform) -> None:
    (platform.home / "flyball.toml").write_text("[models]\nsign = true\nrequire_signature = true\n")
    with pytest.raises(Forbidden, match="this home requires it"):
        platform.load("late@1")
    made = platform.register("late", linear([3.0], 0.0), example={"x": [[1.0]]})
    platform.load(made.ref)
    assert platform.verify_model(made.ref).is_trusted


def test_only_who_may_signs_and_trusts(platform: Platform, tmp_path: Path) -> None:
    viewer = platform.as_(Principal("user/vera", "viewer"))
    editor = platform.as_(Principal("user/ed", "editor"))
    platform.sign("late")
    assert viewer.verify_model("late").is_trusted
    with pytest.raises(Forbidden, match="may not sign"):
        viewer.sign("late")
    with pytest.raises(Forbidden, match="may not trust"):
        editor.trust_key(platform.home / "keys" / "signing.pub.pem")
    for name in ("../x", "a/b", ""):
        with pytest.raises(InvalidInput, match="cannot be the name of a key") if name else pytest.raises(NotFound):
            platform.trust_key(platform.home / "keys" / "signing.pub.pem" if name else tmp_path / "none", name)


def test_what_a_version_was_made_of_is_in_its_bundle(platform: Platform) -> None:
    import polars as pl

    from flyball.data.rows import Rows
    from flyball.training.registering import judge

    platform.declare("dataset", "flights")
    platform.publish("flights", pl.DataFrame({"x0": [0.1, 0.9] * 50, "late": [0, 1] * 50}))
    from sklearn.linear_model import LogisticRegression

    rows = Rows.of(platform.frame("flights").collect(), "late", origin=Ref("dataset", "flights", "1"))
    model = LogisticRegression().fit(rows.X, rows.y)
    with platform.start_run("fit", params={"depth": 3}) as run:
        made = platform.register(
            "late",
            model,
            example=rows.X.head(3),
            evaluation=judge(model, rows),
            trained_on=rows.origin,
            run=run.id,
            files={"code/train.py": b"import sklearn\n"},
        )
    found = bundle.read_manifest(platform.blobs, made.digest)
    assert found.contents().keys() == {"model", "environment", "code", "configuration", "data", "tests"}

    def read(path: str) -> Any:
        return json.loads(platform.blobs.get(found.manifest["files"][path]["digest"]))

    digest = platform.version("dataset/flights@1").digest
    assert read("data/references.json") == [{"ref": "dataset/flights@1", "role": "trained on", "digest": digest}]
    assert read("configuration/params.json") == {"depth": 3}
    assert read("tests/evaluation.json")["metrics"]["auc"]["value"] == 1.0
    card = json.loads(platform.bill_of(made.ref))["metadata"]["component"]["modelCard"]
    assert card["modelParameters"]["datasets"][0]["name"] == "dataset/flights@1"
    assert card["considerations"]["useCases"] == ["Is a flight late?"]
    platform.export_model(made.ref, platform.home / "out.zip")
    again = platform.import_model(platform.home / "out.zip", "late", note="back")
    assert again.digest == made.digest


def test_a_bundle_moves_to_another_home_with_its_signature(platform: Platform, tmp_path: Path) -> None:
    platform.sign("late")
    platform.export_model("late@1", tmp_path / "late")
    other = Platform.open(tmp_path / "other")
    with pytest.raises(NotFound):
        other.import_model(tmp_path / "late", "late")
    other.declare("model", "late")
    made = other.import_model(tmp_path / "late", "late")
    assert made.digest == platform.version("model/late@1").digest
    with pytest.raises(Forbidden, match="which this home does not trust; trust a key with"):
        other.verify_model(made.ref)
    other.trust_key(platform.home / "keys" / "signing.pub.pem", "first-home")
    assert other.verify_model(made.ref).name == "first-home"
    other.load(made.ref)
    other.close()


def test_code_from_elsewhere_is_taken_only_signed_or_on_purpose(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "rules_supply.py").write_text("def late(columns):\n    return columns['delay'] > 10\n")
    sys.path.insert(0, str(tmp_path))
    try:
        import rules_supply  # type: ignore[import-not-found]
    finally:
        sys.path.pop(0)
    made = platform.register("late", rules_supply.late, example={"delay": [1.0, 20.0]})
    platform.load(made.ref)
    platform.export_model(made.ref, tmp_path / "plain")
    other = Platform.open(tmp_path / "other")
    other.declare("model", "late")
    with pytest.raises(Forbidden, match=r"holds model/source.py: Python source.*--accept-code"):
        other.import_model(tmp_path / "plain", "late")
    assert list(other.blobs.digests()) == [] and other.versions("model", "late") == []
    platform.sign(made.ref)
    platform.export_model(made.ref, tmp_path / "signed")
    other.trust_key(platform.home / "keys" / "signing.pub.pem", "first-home")
    other.import_model(tmp_path / "signed", "late")
    third = Platform.open(tmp_path / "third")
    third.declare("model", "late")
    third.import_model(tmp_path / "plain", "late", accept_code=True)
    for one in (other, third):
        one.close()


def test_the_command_line_tells_each_step(line: Line, tmp_path: Path) -> None:
    steps: list[tuple[list[str], int, str]] = [
        (["verify", "late"], 1, "late@1 is not signed"),
        (["sign", "late"], 0, "signed late with this home"),
        (["verify", "late@1"], 0, "late@1 is what this home"),
        (["key", "--output", str(tmp_path / "pub.pem")], 0, "this home"),
        (["verify", "late@1", "--key", str(tmp_path / "pub.pem")], 0, "is what pub"),
        (["verify", "late@1", "--identity", "x"], 2, "--identity and --issuer go together"),
        (["scan", "late"], 0, "nothing in it runs code"),
        (["contents", "late"], 0, "environment/requirements.txt"),
        (["export", "late", "-o", str(tmp_path / "late.zip")], 0, "wrote"),
        (["export", "late", "-o", str(tmp_path / "late.zip")], 1, "is there already"),
        (["import", str(tmp_path / "late.zip"), "--name", "late"], 0, "late@1 is "),
        (["vulnerabilities", "late"], 2, "nothing is fetched"),
        (["image", "late", "-o", str(tmp_path / "image")], 0, "podman build --tag late"),
        (["sign", "nobody"], 1, "nobody"),
    ]
    for arguments, code, says in steps:
        found, told = line(*arguments)
        assert found == code and says in told, (arguments, told)
    assert json.loads(line("bill", "late")[1])["bomFormat"] == "CycloneDX"
    assert json.loads(line("verify", "late", "--json")[1])["verified"] is True


def test_the_page_of_a_version_tells_the_supply_chain(platform: Platform, line: Line, tmp_path: Path) -> None:
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    from flyball.web.pages import mount

    app = FastAPI()
    mount(app, platform)
    client = TestClient(app, base_url="http://127.0.0.1")
    before = client.get("/models/late/1").text
    assert "Supply chain" in before and "not signed" in before and "no unsafe format" in before
    assert "vulnerabilities unknown" in before
    platform.sign("late")
    numpy = platform.version("model/late@1")
    version = bundle.read_manifest(platform.blobs, numpy.digest).manifest["environment"]["locked"]["numpy"]["version"]
    affected = {"package": {"ecosystem": "PyPI", "name": "numpy"}, "versions": [version]}
    entry = {"id": "PYSEC-<b>1", "modified": "2026-01-01T00:00:00Z", "summary": "bad", "affected": [affected]}
    (tmp_path / "osv.json").write_text(json.dumps([entry]))
    code, told = line("vulnerabilities", "late", "--database", str(tmp_path / "osv.json"))
    assert code == 1 and "PYSEC-<b>1" in told
    after = client.get("/models/late/1").text
    assert "this home" in after and "PYSEC-&lt;b&gt;1" in after and "not signed" not in after
