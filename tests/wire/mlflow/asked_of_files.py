"""What is asked of MLflow's own server and of ours about logged models and artifacts, good and bad.

`record_answers.py` asks a real server and keeps its answers in `data/files.json`; `test_files_as_recorded.py` asks ours
and compares. A name in braces stands for what an earlier answer gave (`keep`). Of a step with `ours`, the answer is
meant to differ, and `why` says so.
"""

from __future__ import annotations

from typing import Any

from tests.wire.mlflow.asked_of_runs import Step, experiment, post, run

__all__ = ["SCENARIOS"]

_PROXY = "/api/2.0/mlflow-artifacts"
_MODEL = {"model": "model.info.model_id"}
_PAST = 1_700_000_000_000


def call(verb: str, path: str, body: Any = None, query: dict[str, str] | None = None, **more: Any) -> Step:
    step = {"verb": verb, "path": path, "keep": {}, "query": list((query or {}).items()), **more}
    return step if body is None else {**step, "body": body}


def put(path: str, raw: str = "hello", **more: Any) -> Step:
    return call("PUT", f"{_PROXY}/artifacts/{path}", raw=raw, kind="text/plain", **more)


def listed(path: str | None = None, **more: Any) -> Step:
    return call("GET", f"{_PROXY}/artifacts", query={} if path is None else {"path": path}, **more)


def got(path: str, **more: Any) -> Step:
    return call("GET", f"{_PROXY}/artifacts/{path}", **more)


def removed(path: str, **more: Any) -> Step:
    return call("DELETE", f"{_PROXY}/artifacts/{path}", **more)


def of_run(path: str | None = None, **more: Any) -> Step:
    query = {"run_id": "{run}"} | ({} if path is None else {"path": path})
    return call("GET", "/api/2.0/mlflow/artifacts/list", query=query, **more)


def model(name: str | None = "net", keep: str = "model", **more: Any) -> Step:
    body = {"experiment_id": "{exp}", **({} if name is None else {"name": name}), **more}
    return post("logged-models", body, {keep: "model.info.model_id"})


def on_model(verb: str, rest: str = "", body: Any = None, name: str = "model", **more: Any) -> Step:
    return call(verb, f"/api/2.0/mlflow/logged-models/{{{name}}}{rest}", body, **more)


def metric(key: str, value: Any, model: str = "model", at: int = _PAST, step: int = 0, **more: Any) -> Step:
    body = {"run_id": "{run}", "key": key, "value": value, "timestamp": at, "step": step, "model_id": f"{{{model}}}"}
    return post("runs/log-metric", {**body, **more})


def search(filter: str | None = None, order: Any = None, ours: Any = None, **more: Any) -> Step:
    body: dict[str, Any] = {"experiment_ids": ["{exp}"], **more}
    if filter is not None:
        body["filter"] = filter
    # MLflow orders models of one millisecond by their random ids.
    body["order_by"] = [{"field_name": "name"}] if order is None else order
    step = post("logged-models/search", body)
    return step if ours is None else {**step, "ours": ours}


def pairs(**given: str) -> list[dict[str, str]]:
    return [{"key": k, "value": v} for k, v in given.items()]


_BAD = {"status": 400, "code": "INVALID_PARAMETER_VALUE"}
_ANY_DIGEST = {"status": 200, "why": "MLflow takes a digest that was not given for one that no data set has"}
_TOLD = "as all our searches say it; the code is MLflow's"
_THREE = [
    experiment("models for a search"),
    run(),
    model(
        "alpha", "a", model_type="sk", params=pairs(lr="0.1", depth="3"), tags=pairs(team="red"), source_run_id="{run}"
    ),
    model("beta", "b", model_type="torch", params=pairs(lr="0.2"), tags=pairs(team="blue", stage="x")),
    model("gamma", "c", tags=pairs(team="red")),
    on_model("PATCH", body={"status": "LOGGED_MODEL_READY", "model_id": "{a}"}, name="a"),
    metric("acc", 0.9, "a", step=1),
    metric("acc", 0.5, "a", at=_PAST + 5, step=0),
    metric("acc", 0.7, "b", dataset_name="flights", dataset_digest="d1"),
    metric("loss", 3.0, "b", dataset_name="flights", dataset_digest="d2"),
    metric("loss", 1.0, "c", dataset_name="trains", dataset_digest="d1"),
]

SCENARIOS: dict[str, list[Step]] = {
    "a model's life": [
        experiment("life of models"),
        run(),
        model(model_type="sk", params=pairs(a="1", b=""), tags=pairs(t="x"), source_run_id="{run}"),
        on_model("GET"),
        on_model("POST", "/params", {"params": pairs(c="3"), "model_id": "{model}"}),
        on_model(
            "PATCH", body={"status": "LOGGED_MODEL_PENDING"}, ours={"status": 200, "why": "the address names the model"}
        ),
        on_model("PATCH", "/tags", {"tags": [*pairs(t="y"), *pairs(u="1"), *pairs(u="2")]}),
        on_model("GET"),
        on_model("DELETE", "/tags/u"),
        on_model("DELETE", "/tags/u"),
        on_model("PATCH", body={"status": "LOGGED_MODEL_READY", "model_id": "{model}"}),
        on_model("PATCH", body={"status": "LOGGED_MODEL_UPLOAD_FAILED", "model_id": "{model}"}),
        on_model("PATCH", body={"status": "2", "model_id": "{model}"}),
        on_model("PATCH", body={"status": 3, "model_id": "{model}"}),
        metric("acc", 0.5),
        metric("acc", 0.5),
        metric("acc", "Infinity", step=2),
        on_model("GET"),
        on_model("DELETE"),
        on_model("GET"),
        on_model("GET", query={"allow_deleted": "true"}),
        on_model("GET", query={"allow_deleted": "false"}),
        on_model("DELETE"),
        on_model("PATCH", body={"status": "LOGGED_MODEL_READY", "model_id": "{model}"}),
        on_model("PATCH", "/tags", {"tags": pairs(after="1")}),
        search(),
    ],
    "names of models": [
        experiment("names of models"),
        model(None),
        model(""),
        *(model(f"a{character}b") for character in "/:.%\"'"),
        model("Tür zum Süden 日本"),
        model("x" * 500),
    ],
    "models refused": [
        experiment("bad models"),
        post("logged-models", {"name": "x"}),
        post("logged-models", {"experiment_id": "99999", "name": "x"}),
        post("logged-models", {"experiment_id": "abc", "name": "x"}),
        post("logged-models", {"experiment_id": 5, "name": "x"}),
        post("logged-models", {"experiment_id": "{exp}", "name": 5}),
        post("logged-models", {"experiment_id": "{exp}", "params": "x"}),
        call("GET", "/api/2.0/mlflow/logged-models/m-1"),
        call("DELETE", "/api/2.0/mlflow/logged-models/m-1"),
        call("PATCH", "/api/2.0/mlflow/logged-models/m-1", {"status": "LOGGED_MODEL_READY", "model_id": "m-1"}),
        call("PATCH", "/api/2.0/mlflow/logged-models/m-1/tags", {"tags": pairs(a="1")}),
        call("POST", "/api/2.0/mlflow/logged-models/m-1/params", {"params": pairs(a="1"), "model_id": "m-1"}),
        call("DELETE", "/api/2.0/mlflow/logged-models/m-1/tags/a"),
        call("GET", "/api/2.0/mlflow/logged-models/m-1/artifacts/directories"),
        model(),
        on_model("PATCH", body={"model_id": "{model}"}),
        on_model(
            "PATCH",
            body={"status": "NONSENSE", "model_id": "{model}"},
            ours={**_BAD, "why": "MLflow takes what it does not know for no status, and sets that"},
        ),
        post("experiments/delete", {"experiment_id": "{exp}"}),
        model(),
    ],
    "search of models": [
        *_THREE,
        search(),
        search("name = 'alpha'"),
        search("name LIKE '%a'"),
        search("name LIKE 'A%'"),
        search("name ILIKE 'A%'"),
        search("name IN ('alpha', 'gamma')"),
        search("name != 'alpha'"),
        search("attributes.name = 'beta'"),
        search("model_type = 'sk'"),
        search("model_type != 'sk'"),
        search("params.lr = '0.1'"),
        search("params.lr != '0.1'"),
        search("params.`lr` = '0.2'"),
        search("tags.team = 'red'"),
        search("tags.team = 'red' AND params.depth = '3'"),
        search("tags.team LIKE 'r%' AND name != 'gamma'"),
        search("metrics.acc > 0.6"),
        search("metrics.acc > 0.8"),
        search("metrics.acc < 0.6"),
        search("metrics.acc > 0.6 AND metrics.loss > 2"),
        search("metrics.loss = 1.0"),
        search("creation_timestamp > 0"),
        search("creation_time > 99999999999999"),
        search("last_updated_timestamp >= 1"),
        search("model_id = '{a}'"),
        search("source_run_id = '{run}'"),
        search("experiment_id = '99'"),
        search(datasets=[{"dataset_name": "flights"}], ours=_ANY_DIGEST),
        search(datasets=[{"dataset_name": "flights", "dataset_digest": "d1"}]),
        search("metrics.acc > 0", datasets=[{"dataset_name": "flights", "dataset_digest": "d1"}]),
        search(
            "metrics.loss > 0", datasets=[{"dataset_name": "flights"}, {"dataset_name": "trains"}], ours=_ANY_DIGEST
        ),
        search(datasets=[{"dataset_digest": "d1"}]),
        search(order=[{"field_name": "name", "ascending": False}]),
        search(order=[{"field_name": "metrics.acc"}, {"field_name": "name"}]),
        search(order=[{"field_name": "metrics.acc", "ascending": False}, {"field_name": "name"}]),
        search(order=[{"field_name": "metrics.loss", "dataset_name": "trains"}, {"field_name": "name"}]),
        search(order=[{"field_name": "model_type"}, {"field_name": "name", "ascending": False}]),
        search(
            order=[{"field_name": "nothing"}],
            ours={**_BAD, "says": "Invalid order by field name: nothing", "why": _TOLD},
        ),
        search(
            order=[{"field_name": "params.lr"}],
            ours={**_BAD, "says": "Invalid order by field name: params.lr", "why": _TOLD},
        ),
        search(max_results=2),
        search("color = 'red'", ours={**_BAD, "why": "MLflow looks for such an attribute in its own code and fails"}),
        search("name > 'a'", ours={**_BAD, "says": "Invalid comparison operator for", "why": _TOLD}),
        search(
            "metrics.acc LIKE 'x'", ours={**_BAD, "says": "Invalid comparison operator for metrics.acc", "why": _TOLD}
        ),
        search("name = 'a' OR name = 'b'", ours={**_BAD, "says": "Invalid clause(s) in filter string", "why": _TOLD}),
        search("spans.x = '1'"),
        post("logged-models/search", {}),
        post("logged-models/search", {"experiment_ids": []}),
        post("logged-models/search", {"experiment_ids": ["424242"]}),
    ],
    "pages of models": [
        experiment("pages of models"),
        *(model(f"m{number}", f"m{number}") for number in range(5)),
        {**search(max_results=2), "keep": {"token": "next_page_token"}},
        {**search(max_results=2, page_token="{token}"), "keep": {"token": "next_page_token"}},
        search(max_results=2, page_token="{token}"),
        search("name != 'x'", max_results=2, page_token="{token}"),
        search(max_results=2, page_token="{token}", order=[{"field_name": "model_id"}]),
        post("logged-models/search", {"experiment_ids": ["0"], "page_token": "{token}"}),
        search(page_token="no token", ours={**_BAD, "why": "MLflow fails to decode it"}),
    ],
    "files of a run": [
        experiment("files of runs"),
        run(),
        of_run(),
        put("{exp}/{run}/artifacts/a.txt"),
        put("{exp}/{run}/artifacts/d/b.txt", "longer text"),
        put("{exp}/{run}/artifacts/d/e/c.csv"),
        put("{exp}/{run}/artifacts/dot/./f"),
        put("{exp}/{run}/artifacts/double//g"),
        put("{exp}/{run}/artifacts/%E6%97%A5%E6%9C%AC.txt"),
        put("{exp}/{run}/artifacts/what%3F.txt"),
        put("{exp}/{run}/artifacts/a b.txt"),
        put("{exp}/{run}/artifacts/a.txt", "again"),
        got("{exp}/{run}/artifacts/a.txt"),
        listed("{exp}/{run}/artifacts"),
        listed("{exp}/{run}/artifacts/d"),
        listed("{exp}/{run}/artifacts/d/"),
        listed("{exp}/{run}/artifacts/a.txt"),
        listed("{exp}/{run}/artifacts/nothing"),
        listed("{exp}/{run}"),
        listed("{exp}"),
        of_run(),
        of_run(""),
        of_run("d"),
        of_run("d/e"),
        of_run("a.txt"),
        of_run("nothing"),
        got("{exp}/{run}/artifacts/d", ours={**_BAD, "why": "MLflow says it in another form than its other refusals"}),
        got("{exp}/{run}/artifacts/nothing"),
        call("GET", "/get-artifact", query={"run_id": "{run}", "path": "a.txt"}),
        call("GET", "/get-artifact", query={"run_uuid": "{run}", "path": "d/b.txt"}),
        call("GET", "/get-artifact", query={"run_id": "{run}", "path": "d"}),
        call("GET", "/get-artifact", query={"run_id": "{run}", "path": "nothing"}),
        call("GET", "/get-artifact", query={"run_id": "0" * 32, "path": "a.txt"}),
        call("GET", "/api/2.0/mlflow/artifacts/list", query={"path": "a.txt"}),
        call("GET", "/api/2.0/mlflow/artifacts/list", query={"run_id": "zz"}),
        call("GET", "/api/2.0/mlflow/artifacts/list", query={"run_uuid": "{run}"}),
        removed("{exp}/{run}/artifacts/a.txt"),
        removed("{exp}/{run}/artifacts/a.txt"),
        removed("{exp}/{run}/artifacts/d"),
        of_run(),
        post("runs/delete", {"run_id": "{run}"}),
        put("{exp}/{run}/artifacts/late.txt"),
        got("{exp}/{run}/artifacts/late.txt"),
        of_run(),
        put("some/where.txt"),
        listed("some"),
        got("some/where.txt"),
        removed("some"),
        listed("some"),
    ],
    "files of a model": [
        experiment("files of models"),
        model(),
        put("{exp}/models/{model}/artifacts/MLmodel"),
        put("{exp}/models/{model}/artifacts/code/fit.py"),
        on_model("GET", "/artifacts/directories"),
        on_model("GET", "/artifacts/directories", query={"artifact_directory_path": "code"}),
        on_model("GET", "/artifacts/directories", query={"artifact_directory_path": "../x"}),
        call(
            "GET",
            "/ajax-api/2.0/mlflow/logged-models/{model}/artifacts/files",
            query={"artifact_file_path": "code/fit.py"},
        ),
        call("GET", "/ajax-api/2.0/mlflow/logged-models/{model}/artifacts/files"),
        call("GET", "/ajax-api/2.0/mlflow/logged-models/{model}/artifacts/files", query={"artifact_file_path": "no"}),
        listed("{exp}/models/{model}/artifacts"),
    ],
    "paths that lead out": [
        experiment("bad paths"),
        run(),
        *(
            step
            for path in ("../x", "a/../../x", "..%2Fx", "%2e%2e/x", "/etc/passwd", "a#b", "%252e%252e%252fx")
            for step in (listed(path), of_run(path))
        ),
        *(
            call("GET", "/get-artifact", query={"run_id": "{run}", "path": path})
            for path in ("../x", "..%2F..%2Fetc%2Fpasswd", "/etc/passwd", "a#b", "%2525252e%2525252e/x")
        ),
        *(
            step
            for path in ("%2e%2e%2fx", "..%2f..%2fetc%2fpasswd", "%252e%252e%252fx", "a%23b")
            for step in (got(path), put(path), removed(path))
        ),
        put("{exp}/{run}/artifacts/tail/", ours={**_BAD, "why": "MLflow says it in another form"}),
    ],
    "signed addresses refused": [
        experiment("signed"),
        run(),
        post("artifacts/presigned-upload-url", {"path": "p"}),
        post("artifacts/presigned-upload-url", {"run_id": "{run}"}),
        post("artifacts/presigned-upload-url", {"run_id": "{run}", "model_id": "m-1", "path": "x"}),
        post("artifacts/presigned-upload-url", {"run_id": "{run}", "path": "../x"}),
        post("artifacts/presigned-upload-url", {"run_id": "0" * 32, "path": "x"}),
        post("artifacts/presigned-download-url", {"run_id": "{run}", "path": "p", "expiration": 0}),
        post("artifacts/presigned-download-url", {"run_id": "{run}", "path": "p", "expiration": 604801}),
        post("artifacts/presigned-download-url", {"run_id": "{run}"}),
        call("POST", f"{_PROXY}/mpu/create/{{exp}}/{{run}}/artifacts", {"num_parts": 2}),
        call("POST", f"{_PROXY}/mpu/complete/{{exp}}/{{run}}/artifacts", {"path": "x", "upload_id": "y"}),
    ],
    "uploads of the web page": [
        experiment("page uploads"),
        run(),
        *(
            call("POST", "/ajax-api/2.0/mlflow/upload-artifact", query=query, raw=raw, kind="text/plain")
            for query, raw in (
                ({"run_uuid": "{run}", "path": "up/l.txt"}, "data"),
                ({"run_uuid": "{run}", "path": "up/l.txt"}, ""),
                ({"run_uuid": "{run}"}, "x"),
                ({"path": "x"}, "x"),
                ({"run_uuid": "{run}", "path": "../x"}, "x"),
                ({"run_uuid": "0" * 32, "path": "x"}, "x"),
            )
        ),
        of_run("up"),
    ],
}
