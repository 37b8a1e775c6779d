"""What is asked of MLflow's own server and of ours about registered models, versions, aliases and prompts.

`record_answers.py` asks a real server and keeps its answers in `data/registry.json`; `test_registry_as_recorded.py`
asks ours and compares. A name in braces stands for what an earlier answer gave (`keep`). Of a step with `ours`, the
answer is meant to differ, and `why` says so.
"""

from __future__ import annotations

from typing import Any

from tests.wire.mlflow.asked_of_files import call, model
from tests.wire.mlflow.asked_of_runs import Step, but, experiment, get, post, run

__all__ = ["SCENARIOS"]

_NO_5XX = "clients send a request again and again after 5xx"
_NO_PAGE = "a page without room is a mistake that clients would ask for without end"
_KEPT = "a description that nobody gives is the empty one"
_MORE = "the message says what was expected as well"
_NO_PATHS = "the source is told as it was given, not where this server runs"
_PROMPT = [{"key": "mlflow.prompt.is_prompt", "value": "true"}]


def on(verb: str, path: str, body: dict[str, Any]) -> Step:
    return call(verb, f"/api/2.0/mlflow/{path}", body)


def made(name: str, **more: Any) -> Step:
    return post("registered-models/create", {"name": name, **more})


def read(name: str) -> Step:
    return get("registered-models/get", {"name": name})


def found(**query: str) -> Step:
    return get("registered-models/search", query)


def version(name: str, source: str = "s3://bucket/model", **more: Any) -> Step:
    return post("model-versions/create", {"name": name, "source": source, **more})


def one(name: str, number: str = "1") -> Step:
    return get("model-versions/get", {"name": name, "version": number})


def versions(**query: Any) -> Step:
    return get("model-versions/search", query)


def where(name: str, number: str = "1") -> Step:
    return get("model-versions/get-download-uri", {"name": name, "version": number})


def staged(name: str, number: str, stage: str, **more: Any) -> Step:
    return post("model-versions/transition-stage", {"name": name, "version": number, "stage": stage, **more})


def latest(name: str, *stages: str) -> Step:
    return get("registered-models/get-latest-versions", [("name", name), *(("stages", stage) for stage in stages)])


def alias(name: str, alias: str, number: str = "1") -> Step:
    return post("registered-models/alias", {"name": name, "alias": alias, "version": number})


def by_alias(name: str, alias: str) -> Step:
    return get("registered-models/alias", {"name": name, "alias": alias})


def tagged(name: str, key: str | None, value: str | None = None, number: str | None = None) -> Step:
    parts = {"name": name, "version": number, "key": key, "value": value}
    path = "registered-models/set-tag" if number is None else "model-versions/set-tag"
    return post(path, {k: v for k, v in parts.items() if v is not None})


def untagged(name: str, key: str, number: str | None = None) -> Step:
    path = "registered-models/delete-tag" if number is None else "model-versions/delete-tag"
    return on("DELETE", path, {"name": name, "key": key, **({} if number is None else {"version": number})})


_LEAVES = (
    "/etc", "file:///etc/passwd", "file:/etc", "relative/x", "mlflow-artifacts:/../../etc", "{root}/../../x",
    "{root}/%2e%2e/x", "{root}/%252e%252e/x", "{root}/a%2f..%2f..%2fb", "{root}%00", "mlflow-artifacts:/{exp}",
    "mlflow-artifacts://host/{exp}/{run}/artifacts", "runs://host/{run}/model", "runs:/" + "0" * 32 + "/model",
    "http://evil/x", "https://h/api/2.0/mlflow-artifacts/artifacts/{exp}/{run}/artifacts", "s3://b/../k", "s3://b/./k",
    "s3://b", "x:y", "models:/", "models:/a/b/c", "models:/m-" + "0" * 32,
)  # fmt: skip
_TAKEN = ("{root}", "{root}/model", "runs:/{run}/model", "runs:/{run}", "s3://b/k", "s3://b/k/", "s3://b/a//b")

SCENARIOS: dict[str, list[Step]] = {
    "models are made, read, described and removed": [
        made("first"),
        made("first"),
        made("first", tags=_PROMPT),
        made("first ✈ ü%20b"),
        read("first ✈ ü%20b"),
        made("first told", description="what it is", tags=[{"key": "k", "value": "v"}, {"key": "k", "value": "w"}]),
        read("first told"),
        read("first"),
        read("FIRST"),
        read("nobody"),
        get("registered-models/get"),
        on("PATCH", "registered-models/update", {"name": "first", "description": "new"}),
        on("PATCH", "registered-models/update", {"name": "first", "description": ""}),
        on("PATCH", "registered-models/update", {"name": "first"}),
        on("PATCH", "registered-models/update", {"name": "nobody", "description": "x"}),
        on("PATCH", "registered-models/update", {"description": "x"}),
        post("registered-models/rename", {"name": "first", "new_name": "first told"}),
        post("registered-models/rename", {"name": "first", "new_name": "a:b"}),
        post("registered-models/rename", {"name": "first", "new_name": " "}),
        post("registered-models/rename", {"name": "first"}),
        post("registered-models/rename", {"name": "nobody", "new_name": "somebody"}),
        post("registered-models/rename", {"name": "first", "new_name": "first/2"}),
        post("registered-models/rename", {"name": "first", "new_name": "first again"}),
        read("first"),
        read("first again"),
        on("DELETE", "registered-models/delete", {"name": "first again"}),
        on("DELETE", "registered-models/delete", {"name": "first again"}),
        on("DELETE", "registered-models/delete", {}),
    ],
    "names that no model has": [
        *(made(name) for name in ("", " ", "a/b", "a:b", "/", "..", ".", "..x", "\t")),
        post("registered-models/create", {}),
        made("spaces around "),
        made("-dash"),
        made(".dot"),
        made("%2e"),
        *(read(name) for name in ("..", "a/b", " ")),
        *(one(name) for name in ("..", "a/b", "nobody")),
        but(made("n" * 300), "MLflow's own limit, which its SQLite does not hold", says="'name' exceeds the maximum"),
    ],
    "tags of models": [
        made("tags"),
        tagged("tags", "k", "v"),
        tagged("tags", "k", "w"),
        tagged("tags", "é ü", "ß"),
        tagged("tags", "empty"),
        tagged("tags", "empty too", ""),
        read("tags"),
        untagged("tags", "k"),
        untagged("tags", "k"),
        untagged("nobody", "k"),
        tagged("nobody", "k", "v"),
        tagged("tags", None, "v"),
        tagged("tags", "", "v"),
        *(tagged("tags", key, "v") for key in ("a..b/../c", "k!", "/k", "k" * 251)),
        tagged("tags", "k" * 250, "v"),
        tagged("tags", "long", "v" * 100_001),
        made("tags refused", tags=[{"key": "", "value": "v"}]),
        made("tags refused", tags=[{"key": "k!", "value": "v"}]),
        made("tags without values", tags=[{"key": "k"}]),
    ],
    "versions": [
        made("v"),
        version("v", run_id="r"),
        version("v", run_link="link", description="the second", tags=[{"key": "t", "value": ""}]),
        version("nobody"),
        version("v", ""),
        post("model-versions/create", {"name": "v"}),
        version("v", tags=[{"key": "k!", "value": "v"}]),
        one("v"),
        one("v", "2"),
        *(one("v", number) for number in ("9", "0", "-1", "x", "1.0", " 1 ", "99999999999")),
        get("model-versions/get", {"name": "v"}),
        get("model-versions/get", {"version": "1"}),
        where("v"),
        where("v", "9"),
        but(on("PATCH", "model-versions/update", {"name": "v", "version": "1"}), _KEPT, status=200),
        on("PATCH", "model-versions/update", {"name": "v", "version": "1", "description": "changed"}),
        on("PATCH", "model-versions/update", {"name": "v", "version": "1", "description": ""}),
        on("PATCH", "model-versions/update", {"name": "v", "version": "9", "description": "x"}),
        tagged("v", "k", "v", "2"),
        tagged("v", "k", "w", "2"),
        tagged("v", "k", "w", "9"),
        tagged("v", "k", "w", "x"),
        tagged("v", "mlflow.prompt.text", "v" * 100_001, "2"),
        tagged("v", "long", "v" * 100_001, "2"),
        untagged("v", "t", "2"),
        untagged("v", "t", "2"),
        untagged("v", "t", "9"),
        one("v", "2"),
        version("v"),
        on("DELETE", "model-versions/delete", {"name": "v", "version": "3"}),
        on("DELETE", "model-versions/delete", {"name": "v", "version": "3"}),
        one("v", "3"),
        where("v", "3"),
        version("v"),
        read("v"),
        post("registered-models/rename", {"name": "v", "new_name": "w"}),
        one("w", "2"),
        one("v", "2"),
        versions(filter="name = 'w'", order_by="version_number ASC"),
        on("DELETE", "registered-models/delete", {"name": "w"}),
        one("w", "2"),
        made("w"),
        version("w"),
    ],
    "stages": [
        made("s"),
        version("s"),
        version("s"),
        version("s"),
        staged("s", "1", "staging"),
        staged("s", "2", "STAGING", archive_existing_versions=True),
        one("s", "1"),
        staged("s", "1", "Production"),
        latest("s"),
        latest("s", "staging"),
        latest("s", "Production", "None"),
        latest("s", "bad"),
        latest("nobody"),
        post("registered-models/get-latest-versions", {"name": "s", "stages": ["archived"]}),
        staged("s", "1", "bad"),
        staged("s", "9", "Staging"),
        post("model-versions/transition-stage", {"name": "s", "version": "1"}),
        but(staged("s", "1", "archived", archive_existing_versions=True), _NO_5XX, code="INTERNAL_ERROR"),
        staged("s", "1", "none"),
        read("s"),
    ],
    "aliases": [
        made("a"),
        version("a"),
        version("a"),
        *(alias("a", name) for name in ("champion", "12", "é", "-x", "Latest", "v1", "V22", "vv1", "a b", "a.b", "")),
        alias("a", "x" * 256),
        alias("a", "x" * 255),
        alias("a", "champion", "2"),
        alias("a", "lost", "9"),
        alias("nobody", "lost"),
        *(by_alias("a", name) for name in ("champion", "CHAMPION", "12", "é", "-x", "latest", "LATEST", "no", "a b")),
        by_alias("nobody", "champion"),
        read("a"),
        one("a", "1"),
        latest("a"),
        versions(filter="name = 'a'", order_by="version_number"),
        on("DELETE", "registered-models/alias", {"name": "a", "alias": "champion"}),
        on("DELETE", "registered-models/alias", {"name": "a", "alias": "champion"}),
        on("DELETE", "registered-models/alias", {"name": "nobody", "alias": "champion"}),
        on("DELETE", "registered-models/alias", {"name": "a", "alias": "a b"}),
        on("DELETE", "model-versions/delete", {"name": "a", "version": "1"}),
        read("a"),
        by_alias("a", "12"),
        made("a none"),
        by_alias("a none", "latest"),
    ],
    "models are searched": [
        *(made(f"find {letter}", tags=[{"key": "f", "value": letter}]) for letter in "abc"),
        made("Find A", tags=[{"key": "f", "value": "A"}, {"key": "g", "value": "1"}]),
        version("find b"),
        staged("find b", "1", "Staging"),
        version("find b"),
        *(
            found(filter=text)
            for text in (
                "name = 'find a'", "name != 'find a' AND name ILIKE 'find%'", "name LIKE 'find%'", "name LIKE 'FIND%'",
                "name ILIKE 'find _'", "name IN ('find a', 'find c')", "tags.f = 'a'", "tag.f != 'a'",
                "tags.f LIKE 'a'", "tags.f ILIKE 'a'", "tags.f ILIKE 'a' AND tags.g = '1'", "tags.nobody != 'x'",
                "tags.`f` = 'c' and name = 'find c'", "name = find", "name > 'a'", "other = 'x'", "tags.f > 'a'",
                "run_id = 'x'",
            )
        ),
        but(found(filter="name = 'find a' OR name = 'find b'"), _MORE, says="Invalid clause(s) in filter string: "),
        but(found(filter="name = 'find a"), _MORE, says="Invalid clause(s) in filter string: "),
        but(found(filter="params.a = 'b'"), _MORE, says="Invalid entity type 'params'. Valid "),
        *(
            found(filter="name ILIKE 'find%'", order_by=order)
            for order in ("name DESC", "name", "timestamp ASC", "last_updated_timestamp DESC", "other", "name UP")
        ),
        but(
            get("registered-models/search", [("order_by", "name"), ("order_by", "name")]),
            _NO_5XX,
            code="INVALID_PARAMETER_VALUE",
        ),
        found(filter="name LIKE 'find%'", max_results="2"),
        found(filter="name LIKE 'find%'", max_results="2", page_token="eyJvZmZzZXQiOiAyfQ=="),
        *(found(page_token=token) for token in ("x", "eHg=")),
        but(found(page_token="eyJvZmZzZXQiOiAieCJ9"), _MORE, says="Invalid page token, parsed value="),
        *(found(max_results=limit) for limit in ("1001", "x")),
        *(but(found(max_results=limit), _NO_PAGE, code="INVALID_PARAMETER_VALUE") for limit in ("0", "-1")),
    ],
    "versions are searched": [
        made("sv"),
        made("sv two"),
        version("sv", "s3://b/one", run_id="r1", tags=[{"key": "sv", "value": "a"}]),
        version("sv", "s3://b/two", run_id="r2", tags=[{"key": "sv", "value": "b"}]),
        version("sv two", "s3://b/two", tags=[{"key": "sv", "value": "B"}]),
        version("sv two", "s3://b/three", run_id="r1", tags=[{"key": "sv", "value": "c"}]),
        on("DELETE", "model-versions/delete", {"name": "sv two", "version": "2"}),
        *(
            versions(filter=text, order_by="creation_timestamp ASC")
            for text in (
                "name = 'sv'", "name LIKE 'sv%'", "name ILIKE 'SV%'", "run_id = 'r1'", "run_id IN ('r1', 'r2')",
                "run_id IN ()", "source_path = 's3://b/two'", "source_path LIKE '%o' AND name = 'sv'", "tags.sv = 'a'",
                "tags.sv != 'a'", "tags.sv ILIKE 'b'", "name = 'sv' and version_number > 1",
                "name = 'sv' and version_number = '1'", "name = 'sv' and version_number > 'x'", "other = 'x'",
                "source_path IN ('a')", "tags.sv > 'a'",
                "tags.`mlflow.prompt.is_prompt` = 'true' AND tags.`mlflow.prompt.run_ids` ILIKE '%r1%'",
            )
        ),
        *(
            versions(filter="name LIKE 'sv%'", order_by=order)
            for order in ("name DESC", "version_number ASC", "last_updated_timestamp ASC", "source_path", "other DESC")
        ),
        versions(filter="name LIKE 'sv%'"),
        versions(filter="name LIKE 'sv%'", max_results="2", order_by="creation_timestamp"),
        versions(
            filter="name LIKE 'sv%'", max_results="2", page_token="eyJvZmZzZXQiOiAyfQ==", order_by="creation_timestamp"
        ),
        but(versions(filter="version_number LIKE '1'"), _MORE, says="Invalid comparator for attribute"),
        *(versions(max_results=limit) for limit in ("0", "-1", "200001", "x")),
        versions(page_token="x"),
    ],
    "sources": [
        experiment("sources"),
        {**run(), "keep": {"run": "run.info.run_id", "root": "run.info.artifact_uri"}},
        run("other", "other"),
        model(source_run_id="{run}"),
        model("second", "second"),
        made("src"),
        *(version("src", source) for source in _LEAVES),
        *(
            but(version("src", source, run_id="{run}"), _NO_PATHS, says=f"Invalid model version source: '{source}'")
            for source in ("file:///etc/passwd", "file:/etc", "relative/x")
        ),
        *(version("src", source, run_id="{run}") for source in _LEAVES if source not in _LEAVES[1:4]),
        *(version("src", source, run_id="{run}") for source in _TAKEN),
        *(version("src", source, run_id="{other}") for source in _TAKEN[:4]),
        *(version("src", source) for source in _TAKEN[:4]),
        version("src", "{root}", run_id="nobody"),
        version("src", "models:/{model}", model_id="{model}"),
        version("src", "models:/{model}", model_id="{second}"),
        version("src", "models:/{model}", run_id="{run}"),
        version("src", "models:/{model}"),
        version("src", "models:/{second}", model_id="{second}", run_id="{other}"),
        version("src", "mlflow-artifacts:/{exp}/models/{model}/artifacts", model_id="{model}"),
        version("src", "mlflow-artifacts:/{exp}/models/{model}/artifacts", model_id="{second}"),
        version("src", "s3://b/k", model_id="{model}"),
        version("src", "s3://b/k", model_id="m-nobody"),
        version("src", "runs:/{run}/model", model_id="{model}"),
        but(version("src", "file://host/x"), _NO_5XX, code="INVALID_PARAMETER_VALUE"),
        but(version("src", "http://[bad"), _NO_5XX, code="INVALID_PARAMETER_VALUE"),
        call("GET", "/api/2.0/mlflow/logged-models/{model}"),
        made("copy"),
        version("copy", "models:/src/1"),
        version("copy", "models:/src/latest"),
        alias("src", "ch", "2"),
        version("copy", "models:/src@ch"),
        version("copy", "models:/src/2", run_id="nobody"),
        version("copy", "models:/src/999"),
        version("copy", "models:/nobody/1"),
        version("copy", "models:/src@nobody"),
        version("copy", "models:/src/bad"),
        but(version("copy", "models:/src/Staging"), _NO_5XX, status=404, code="RESOURCE_DOES_NOT_EXIST"),
        where("copy", "1"),
        where("copy", "2"),
    ],
    "prompts": [
        made("greet", tags=_PROMPT, description="says hello"),
        made("greet", tags=_PROMPT),
        made("greet"),
        version("greet", "dummy-source", tags=[*_PROMPT, {"key": "mlflow.prompt.text", "value": "Hello {{x}}"}]),
        version("greet", "s3://b/k", tags=_PROMPT),
        version("greet", "dummy-source", tags=[{"key": "mlflow.prompt.is_prompt", "value": "TRUE"}]),
        one("greet"),
        alias("greet", "live", "1"),
        by_alias("greet", "live"),
        made("stolen"),
        version("stolen", "models:/greet/1"),
        found(filter="name = 'greet'"),
        *(
            found(filter=f"name = 'greet' AND tags.`mlflow.prompt.is_prompt` {test}")
            for test in ("= 'true'", "= 'TRUE'", "!= 'false'", "!= 'true'", "= 'false'", "LIKE 'true'")
        ),
        found(filter="name = 'stolen' AND tags.`mlflow.prompt.is_prompt` != 'true'"),
        versions(filter="name = 'greet'"),
        versions(filter="name = 'greet' AND tags.`mlflow.prompt.is_prompt` = 'true'", order_by="version_number"),
        tagged("greet", "k", "v"),
        tagged("greet", "k", "v", "1"),
        on("DELETE", "model-versions/delete", {"name": "greet", "version": "1"}),
        on("DELETE", "registered-models/delete", {"name": "greet"}),
        read("greet"),
    ],
}  # fmt: skip
