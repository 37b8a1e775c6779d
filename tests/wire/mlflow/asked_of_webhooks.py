"""What is asked of MLflow's own server and of ours about webhooks.

`record_answers.py` asks a real server, with MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https and
MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true, and keeps its answers in `data/webhooks.json`. A name in braces stands for what
an earlier answer gave (`keep`). Of a step with `ours`, the answer is meant to differ, and `why` says so.
"""

from __future__ import annotations

from typing import Any

from tests.wire.mlflow.asked_of_files import call
from tests.wire.mlflow.asked_of_runs import Step, but, get, post, raw

__all__ = ["SCENARIOS"]

_NO_5XX = "clients send a request again and again after 5xx"
_CREATED = {"entity": "REGISTERED_MODEL", "action": "CREATED"}
_TAGGED = {"entity": "MODEL_VERSION_TAG", "action": "SET"}
_URL = "https://127.0.0.1:9/hook"


def made(name: Any = "ci", keep: str = "hook", **more: Any) -> Step:
    body = {"name": name, "url": _URL, "events": [_CREATED], **more}
    return post("webhooks", {k: v for k, v in body.items() if v is not None}, {keep: "webhook.webhook_id"})


def changed(**body: Any) -> Step:
    return call("PATCH", "/api/2.0/mlflow/webhooks/{hook}", body)


def one(id: str = "{hook}") -> Step:
    return get(f"webhooks/{id}")


def gone(id: str = "{hook}") -> Step:
    return call("DELETE", f"/api/2.0/mlflow/webhooks/{id}", {})


def found(**query: str) -> Step:
    return get("webhooks", query)


SCENARIOS: dict[str, list[Step]] = {
    "none yet": [
        found(),
        one("nothing"),
        gone("nothing"),
        call("PATCH", "/api/2.0/mlflow/webhooks/nothing", {"name": "x"}),
    ],
    "a life": [
        made(description="tells CI", secret="s3cret", events=[_TAGGED, _CREATED]),
        one(),
        found(),
        changed(description="tells all"),
        changed(name="cd", url="http://localhost:9/other?x=1", events=[_TAGGED], status="DISABLED"),
        changed(events=[]),
        changed(name="", url=""),
        changed(description=""),
        changed(secret="other"),
        changed(status="ACTIVE"),
        changed(),
        one(),
        gone(),
        one(),
        gone(),
        changed(name="x"),
        found(),
    ],
    "made at once disabled": [made(status="DISABLED"), made(status="DISABLED", keep="b"), gone(), gone("{b}")],
    "every event": [
        made(events=[{"entity": entity, "action": action}], name=f"e{number}")
        for number, (entity, action) in enumerate(
            [
                ("MODEL_VERSION", "CREATED"),
                ("MODEL_VERSION_TAG", "DELETED"),
                ("MODEL_VERSION_ALIAS", "CREATED"),
                ("MODEL_VERSION_ALIAS", "DELETED"),
                ("PROMPT", "CREATED"),
                ("PROMPT_VERSION", "CREATED"),
                ("PROMPT_TAG", "SET"),
                ("PROMPT_TAG", "DELETED"),
                ("PROMPT_VERSION_TAG", "SET"),
                ("PROMPT_VERSION_TAG", "DELETED"),
                ("PROMPT_ALIAS", "CREATED"),
                ("PROMPT_ALIAS", "DELETED"),
                ("BUDGET_POLICY", "EXCEEDED"),
            ]
        )
    ],
    "pages": [
        but(found(max_results="2"), "of two made in the same millisecond either may be first", 200),
        found(max_results="0", page_token="eyJvZmZzZXQiOiAxMn0="),
        found(max_results="-1"),
        found(max_results="1001"),
        found(max_results="many"),
        found(page_token="!"),
    ],
    "wrong names": [
        made(name)
        for name in (None, "", " ", 7, "a b", "-a", "a-", "a/b", "ä", "a" * 64, "a" * 63, "A.b_c-1", "a\n", ["a"])
    ],
    "wrong addresses": [
        made(url=url)
        for url in (None, "", " ", 7, "ftp://a/b", "nothing", "https://", "http:///x", "https://[::1", "//a/b")
    ],
    "wrong events": [
        made(events=None),
        made(events=[]),
        made(events="x"),
        but(made(events=[7]), _NO_5XX, code="INVALID_PARAMETER_VALUE"),
        but(made(events=[{}]), _NO_5XX, code="INVALID_PARAMETER_VALUE"),
        but(made(events=[{"entity": "REGISTERED_MODEL"}]), _NO_5XX, code="INVALID_PARAMETER_VALUE"),
        but(made(events=[{"entity": "NOTHING", "action": "CREATED"}]), _NO_5XX, code="INVALID_PARAMETER_VALUE"),
        made(events=[{"entity": "REGISTERED_MODEL", "action": "DELETED"}]),
        made(events=[{"entity": "PROMPT", "action": "SET"}]),
        made(events=[{"entity": 1, "action": 1}]),
        but(made(events=[_CREATED, _CREATED]), "the same event twice is said once", 200),
    ],
    "wrong rest": [
        made(status="SLEEPING"),
        made(status=2),
        made(secret=7),
        made(description=7),
        but(raw("webhooks", "{"), "what is no JSON is said to be none", code="BAD_REQUEST"),
        but(raw("webhooks", "[]"), _NO_5XX, code="BAD_REQUEST"),
        raw("webhooks", "{}", None),
    ],
    "wrong changes": [
        made(keep="hook"),
        changed(name="a b"),
        changed(url="ftp://a"),
        changed(url=" "),
        changed(events=[{"entity": "PROMPT", "action": "SET"}]),
        but(changed(status=7), "what is no value of an enumeration is read as none, as everywhere", 200),
        one(),
    ],
    "wrong tests": [
        post("webhooks/nothing/test", {}),
        made(keep="hook"),
        post("webhooks/{hook}/test", {"event": {"entity": "PROMPT", "action": "SET"}}),
        but(post("webhooks/{hook}/test", {"event": 7}), _NO_5XX, code="INVALID_PARAMETER_VALUE"),
    ],
}
