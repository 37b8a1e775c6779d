"""Runs, one run, comparisons and experiments over HTTP: found, sorted, paged, changed; texts stay texts."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterator

import httpx2
import pytest
import runs_home
from pages_home import Server
from runs_home import HOSTILE, STEPS, SWEEP

from flyball.ledger.runs import Run
from flyball.platform import Platform
from flyball.tracking.filters import parse_filter
from flyball.tracking.grammars import RUNS
from flyball.web.markdown import html_of
from flyball.web.pages.curves import smoothed
from flyball.web.pages.run_search import completions, fault
from flyball.web.pages.runs import local, short

Home = tuple[Platform, list[Run], str]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    platform = Platform.open(tmp_path_factory.mktemp("runs") / "home")
    sweep = runs_home.furnish(platform)
    server = Server(platform)
    yield platform, sweep, server.url
    server.close()
    platform.close()


@pytest.fixture(scope="module")
def client(home: Home) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=home[2], timeout=60) as found:
        yield found


def rows(text: str) -> list[str]:
    return re.findall(r'<td><a class="ref" href="/runs/([0-9a-f]{32})"', text)


def ids(runs: list[Run]) -> list[str]:
    return [run.id for run in runs]


def test_a_filter_finds_what_brute_force_finds(client: httpx2.Client, home: Home) -> None:
    text = client.get("/runs", params={"filter": "metrics.auc > 0.7 AND params.depth = '8'", "experiment": "1"}).text
    wanted = [r.id for r in home[1] if r.metrics["auc"] > 0.7 and r.params["depth"] == "8"]
    assert set(rows(text)) == set(wanted) and wanted
    assert "metrics.auc &gt; 0.7 AND params.depth" in text  # stays in the field


@pytest.mark.parametrize("sort", ["metrics.auc", "-metrics.loss", "-params.model name", "run_name"])
def test_pages_of_any_order_hold_every_run_once_and_in_order(client: httpx2.Client, home: Home, sort: str) -> None:
    seen: list[str] = []
    answer = client.get("/runs", params={"experiment": "1", "sort": sort, "filter": "metrics.auc > 0"})
    while True:
        seen += rows(answer.text)
        onward = re.search(r'rel="next" href="([^"]*)"', answer.text)
        if onward is None:
            break
        answer = client.get(html.unescape(onward[1]))
    assert sorted(seen) == sorted(ids(home[1])) and len(seen) == SWEEP
    kind, _, key = sort.removeprefix("-").partition(".")
    by_id = {run.id: run for run in home[1]}
    held = [
        by_id[id].name if not key else (by_id[id].metrics if kind == "metrics" else by_id[id].params)[key]
        for id in seen
    ]
    assert held == sorted(held, reverse=sort.startswith("-"))


def test_the_next_page_goes_on_where_it_was_though_runs_came_before_it(client: httpx2.Client, home: Home) -> None:
    asked = {"experiment": "1", "sort": "-start_time", "filter": "metrics.auc > 0"}
    first = client.get("/runs", params=asked).text
    onward = html.unescape(re.search(r'rel="next" href="([^"]*)"', first)[1])  # type: ignore[index]
    platform = home[0]
    new = [platform.recorder.create_run("1", name=f"new-{n}").result() for n in range(5)]
    for run in new:
        platform.recorder.log(run.id, tags={"new": "1"}).result()
    assert not set(rows(first)) & set(rows(client.get(onward).text))
    for run in new:
        platform.delete_run(run.id)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("metrics.auc > 0.7 AND metrc.x < 3", "metrc"),
        ("metrics.auc > 'high' AND params.depth = '8'", "'high'"),
        ("metrics.auc > 0.7 AND attributes.colour = 'red'", "colour"),
        ("params.depth = '8' OR params.depth = '4'", "OR"),
    ],
)
def test_a_wrong_filter_is_answered_with_the_place_where_it_is_wrong(
    client: httpx2.Client, text: str, word: str
) -> None:
    answer = client.get("/runs", params={"filter": text})
    assert answer.status_code == 400
    marked = html.unescape(re.search(r"<mark>(.*?)</mark>", answer.text)[1])  # type: ignore[index]
    assert marked.strip("'") == word.strip("'")
    assert f'value="{html.escape(text).replace("&#x27;", "&#39;")}"' in answer.text  # nothing that was typed is lost
    found = fault(text)
    assert found is not None and text[found[0] : found[1]].strip("'") == word.strip("'")


def test_a_right_filter_has_no_fault() -> None:
    assert fault("metrics.`a b` < 0.1 AND tags.x IS NOT NULL") is None


def test_columns_are_chosen_among_keys_that_are_searched_on_the_server(client: httpx2.Client) -> None:
    answer = client.get("/runs/keys", params={"q": "model", "experiment": "1"}).json()
    assert answer["items"] == [["params.model name", SWEEP]] and answer["total"] == 1
    text = client.get("/runs", params={"experiment": "1", "col": ["params.model name", "tags.team"]}).text
    heads = re.findall(r'<th scope="col"[^>]*>(?:<a[^>]*>)?([^<]*)', text)
    assert heads[4:6] == ["model name", "team"] and "auc" not in heads
    assert client.get("/runs", params={"col": "loss"}).status_code == 400


@pytest.mark.parametrize(
    ("text", "offered"),
    [
        ("metr", "metrics."),
        ("metrics.tr", "`train/loss`"),
        ("params.model", "`model name`"),
        ("params.depth = '", "12'"),
        ("params.`model name` = '", "res''1'"),
        ("metrics.auc > 0.7 ", "AND "),
        ("metrics.auc > 0.7 AND tags.te", "team"),
    ],
)
def test_a_filter_is_completed_with_what_there_is(home: Home, text: str, offered: str) -> None:
    found = completions(home[0], ["1"], text)
    texts = [item["text"] for item in found["items"]]
    assert offered in texts
    whole = text[: found["from"]] + offered
    if offered.endswith("'"):
        assert parse_filter(whole, RUNS)


def test_chosen_runs_are_deleted_restored_and_tagged(client: httpx2.Client, home: Home) -> None:
    platform, sweep, _ = home
    chosen = [str(run.ref) for run in sweep[5:8]]
    answer = client.post("/runs/act", data={"ref": chosen, "act": "delete", "back": "/runs?experiment=1"})
    assert answer.status_code == 303 and answer.headers["location"] == "/runs?experiment=1"
    assert not set(ids(sweep[5:8])) & set(rows(client.get("/runs?experiment=1").text))
    assert set(ids(sweep[5:8])) <= set(rows(client.get("/runs?view=deleted").text))
    client.post("/runs/act", data={"ref": chosen, "act": "restore"})
    assert not platform.run(sweep[5].id).is_deleted
    client.post("/runs/act", data={"ref": chosen, "act": "tag", "tag": "kept = yes"})
    assert [platform.run(run.id).tags.get("kept") for run in sweep[4:8]] == [None, "yes", "yes", "yes"]


def test_a_form_of_another_site_changes_nothing(client: httpx2.Client, home: Home) -> None:
    run = home[1][0]
    for path, data in (
        ("/runs/act", {"ref": str(run.ref), "act": "delete"}),
        (f"/runs/{run.id}/change", {"act": "delete"}),
        ("/experiments/1/change", {"act": "delete"}),
    ):
        assert client.post(path, data=data, headers={"Origin": "http://other.example"}).status_code == 403
    assert not home[0].run(run.id).is_deleted and not home[0].experiment("1").is_deleted


def test_a_form_leads_back_to_this_site_only() -> None:
    for url in ("https://other.example/", "//other.example", "/\\other.example", "javascript:alert(1)"):
        assert local(url, "/runs") == "/runs"
    assert local("/runs?sort=-start_time", "/") == "/runs?sort=-start_time"


def test_a_run_is_renamed_described_and_tagged_on_its_page(client: httpx2.Client, home: Home) -> None:
    platform, sweep, _ = home
    path = f"/runs/{sweep[9].id}"
    for data in (
        {"act": "rename", "value": "the best"},
        {"act": "note", "value": f"**bold** {HOSTILE}"},
        {"act": "tag", "key": "stage", "value": HOSTILE},
    ):
        assert client.post(f"{path}/change", data=data).status_code == 303
    text = client.get(path).text
    assert "the best" in text and "<strong>bold</strong>" in text and "<script>document" not in text
    client.post(f"{path}/change", data={"act": "untag", "key": "stage"})
    assert "stage" not in platform.run(sweep[9].id).tags


def test_the_page_of_a_run_shows_what_it_used_left_and_holds(client: httpx2.Client, home: Home) -> None:
    text = client.get(f"/runs/{home[1][0].id}").text
    for wanted in ("flights", "300830b9", "training", "fold-1", "late-arrivals", "plots/", "report.md", "train/loss"):
        assert wanted in text
    hostile = home[0].runs(name=HOSTILE, limit=1)[0]
    assert "<script>document" not in client.get(f"/runs/{hostile.id}").text


def test_a_curve_is_sampled_and_a_stretch_of_it_is_sampled_anew(client: httpx2.Client, home: Home) -> None:
    path = f"/runs/{home[1][0].id}/series"
    (whole,) = client.get(path, params={"key": "train/loss"}).json()["series"]
    assert len(whole["xs"]) < STEPS and (whole["xs"][0], whole["xs"][-1]) == (0, STEPS - 1)
    (part,) = client.get(path, params={"key": "train/loss", "from": "99.5", "to": "150"}).json()["series"]
    assert part["xs"] == list(range(99, 151))
    assert part["ys"][1] == pytest.approx(math.exp(-100 / 500))
    (after,) = client.get(path, params={"key": "train/loss", "x": "relative"}).json()["series"]
    assert (after["xs"][0], after["xs"][-1]) == (0, STEPS - 1)
    assert client.get(path, params={"key": "train/loss", "x": "sideways"}).status_code == 400


def test_smoothing_is_the_mean_weighted_by_age() -> None:
    values, weight = [3.0, 1.0, 4.0, 1.0, 5.0], 0.7
    for at, found in enumerate(smoothed(values, weight)):
        weights = [weight ** (at - n) for n in range(at + 1)]
        assert found == pytest.approx(sum(w * v for w, v in zip(weights, values, strict=False)) / sum(weights))


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("tables/a.csv", "<th scope=\"col\">who</th>"),
        ("tables/a.parquet", "<th scope=\"col\">who</th>"),
        ("tables/broken.parquet", "cannot be read as Parquet"),
        ("config.json", "&#34;depth&#34;"),
        ("report.md", "<strong>fine</strong>"),
        ("page.html", "&lt;script&gt;alert(1)"),
        ("model.bin", "not text"),
        ("plots/roc.png", "<img src="),
    ],
)  # fmt: skip
def test_a_file_is_shown_as_what_it_is(client: httpx2.Client, home: Home, path: str, wanted: str) -> None:
    text = client.get(f"/runs/{home[1][0].id}/preview", params={"path": path}).text
    assert wanted in text and "<script>alert" not in text and "<script>document" not in text


def test_only_what_begins_as_an_image_is_sent_as_one(client: httpx2.Client, home: Home) -> None:
    path = f"/runs/{home[1][0].id}/image"
    answer = client.get(path, params={"path": "plots/roc.png"})
    assert answer.headers["content-type"] == "image/png" and answer.content.startswith(b"\x89PNG")
    assert "sandbox" in answer.headers["content-security-policy"]
    assert client.get(path, params={"path": "plots/false.png"}).status_code == 400
    assert client.get(path, params={"path": "page.html"}).status_code == 400


@pytest.mark.parametrize("shown", ["tables", "curves", "parallel", "scatter", "box", "files"])
def test_seventy_runs_are_compared(client: httpx2.Client, home: Home, shown: str) -> None:
    refs = [("ref", str(run.ref)) for run in home[1]]
    answer = client.get("/runs/compare", params=[*refs, ("show", shown)])
    assert answer.status_code == 200 and f"{SWEEP} runs" in answer.text


def test_a_comparison_tells_what_differs_and_marks_the_best(client: httpx2.Client, home: Home) -> None:
    runs = home[1][:4]
    text = client.get("/runs/compare", params=[("ref", run.id) for run in runs]).text
    differing, _, same = text.partition("the same in all")
    assert "depth" in differing or "lr" in differing
    assert "seed" in same and ">seed <b" not in differing
    best = re.findall(r'<td class="num best"><data value="([^"]*)"', text)
    assert {float(value) for value in best} == {
        max(r.metrics["auc"] for r in runs),
        min(r.metrics["loss"] for r in runs),
    }


def test_curves_of_compared_runs_come_together(client: httpx2.Client, home: Home) -> None:
    asked = [("ref", run.id) for run in home[1][:5]] + [("key", "train/loss")]
    series = client.get("/runs/compare/series", params=asked).json()["series"]
    assert [one["name"] for one in series] == ["forest-0", "forest-1", "forest-2"]


def test_an_experiment_is_made_described_renamed_deleted_and_restored(client: httpx2.Client, home: Home) -> None:
    platform = home[0]
    answer = client.post("/experiments", data={"name": HOSTILE})
    path = answer.headers["location"]
    assert answer.status_code == 303 and "<script>document" not in client.get(path).text
    id = path.rpartition("/")[2]
    client.post(f"{path}/change", data={"act": "note", "value": "# Why\nfor *speed*"})
    client.post(f"{path}/change", data={"act": "rename", "value": "speed"})
    assert "<em>speed</em>" in client.get(path).text and platform.experiment(id).name == "speed"
    client.post(f"{path}/change", data={"act": "delete"})
    assert f'href="{path}"' not in client.get("/experiments").text
    assert f'href="{path}"' in client.get("/experiments?view=deleted").text
    client.post(f"{path}/change", data={"act": "restore"})
    assert f'href="{path}"' in client.get("/experiments", params={"name": "pee"}).text
    assert client.post("/experiments", data={"name": "speed"}).status_code == 409


def test_markdown_lets_no_html_and_no_other_address_through() -> None:
    text = "[a](javascript:alert(1)) [b](//x.example) [c](https://x.example/?q=1) <b>x</b>\n\n```\n<i>\n```"
    found = str(html_of(text))
    assert re.findall(r'href="([^"]*)"', found) == ["https://x.example/?q=1"]
    assert "<b>" not in found and "&lt;i&gt;" in found


def test_markdown_shows_tables_and_what_escapes_and_entities_mean() -> None:
    found = str(html_of("a\n| x | y |\n| --- | :-: |\n| 1 \\| 2 | **b** &lt;i&gt; |\n| only |\nend \\*this\\*"))
    assert found == (
        "<p>a</p>\n<table><thead><tr><th>x</th><th>y</th></tr></thead><tbody>"
        "<tr><td>1 | 2</td><td><strong>b</strong> &lt;i&gt;</td></tr><tr><td>only</td><td></td></tr></tbody></table>\n"
        "<p>end *this*</p>"
    )
    assert str(html_of("| no table |\nx")) == "<p>| no table |<br>x</p>"
    assert "<script" not in str(html_of("|a|\n|-|\n|&lt;script&gt;|<script>|"))


def test_long_numbers_are_short_in_tables() -> None:
    assert [short(text) for text in ("0.00012345678901", "1e-05", "20260101000000", "v1.2.3-long-name")] == [
        "0.0001235", "1e-05", "20260101000000", "v1.2.3-long-name",
    ]  # fmt: skip
