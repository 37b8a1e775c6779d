"""What a journal event means to a webhook: the name that it subscribes to, and what it is told.

Our own names are `KIND.ACTION` of the journal, blanks as underscores: `model.published`, `run.failed`. MLflow's are
derived from what the registry notes: a model or version that is made is noted as `created` or `published`, and the
event behind it, `noted`, holds what was said of it. Of what goes with a deleted model or version MLflow tells nothing.

Source: MLflow 3.17, `mlflow.entities.webhook` (names) and `mlflow.webhooks.types` (contents).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from flyball.errors import InvalidInput, NotFound
from flyball.ledger import Transaction
from flyball.ledger.journal import Event
from flyball.ledger.refs import Ref, ref, shown_name

__all__ = ["EXAMPLES", "MLFLOW_EVENTS", "MlflowEvent", "check_pattern", "event_name", "is_wanted", "mlflow_event"]

_PATTERN = re.compile(r"\*|[a-z0-9*?-]+\.[A-Za-z0-9_*?-]+")
_CUT = "…"  # ends a text that was too long for the journal
_IS_PROMPT = "mlflow.prompt.is_prompt"
_TEMPLATE = "mlflow.prompt.text"
_OF_PROMPTS = frozenset({_IS_PROMPT, "_mlflow_prompt_type"})  # tags that MLflow keeps to itself
_MODEL = {"name": "example_model"}
_PROMPT = {"name": "example_prompt"}
_TAG = {"key": "example_key", "value": "example_value"}
_KEY = {"key": "example_key"}
_ONE = {"version": "1"}
_ALIAS = {"alias": "example_alias"}
_TAGS = {"tags": {"example_key": "example_value"}}

EXAMPLES: Mapping[str, Mapping[str, Any]] = {  # of each of MLflow's events, what a test of a webhook is sent
    "registered_model.created": {**_MODEL, **_TAGS, "description": "An example registered model"},
    "model_version.created": {
        **_MODEL,
        **_ONE,
        "source": "models:/123",
        "run_id": "abcd1234abcd5678",
        **_TAGS,
        "description": "An example model version",
    },
    "model_version_tag.set": {**_MODEL, **_ONE, **_TAG},
    "model_version_tag.deleted": {**_MODEL, **_ONE, **_KEY},
    "model_version_alias.created": {**_MODEL, **_ALIAS, **_ONE},
    "model_version_alias.deleted": {**_MODEL, **_ALIAS},
    "prompt.created": {**_PROMPT, **_TAGS, "description": "An example prompt"},
    "prompt_version.created": {
        **_PROMPT,
        **_ONE,
        "template": "Hello {{name}}!",
        **_TAGS,
        "description": "An example prompt version",
    },
    "prompt_tag.set": {**_PROMPT, **_TAG},
    "prompt_tag.deleted": {**_PROMPT, **_KEY},
    "prompt_version_tag.set": {**_PROMPT, **_ONE, **_TAG},
    "prompt_version_tag.deleted": {**_PROMPT, **_ONE, **_KEY},
    "prompt_alias.created": {**_PROMPT, **_ALIAS, **_ONE},
    "prompt_alias.deleted": {**_PROMPT, **_ALIAS},
    "budget_policy.exceeded": {  # of MLflow's gateway, which is not served here: it can be asked for and never happens
        "budget_policy_id": "bp-abc123",
        "budget_unit": "USD",
        "budget_amount": 100.0,
        "current_spend": 105.50,
        "duration_unit": "MONTHS",
        "duration_value": 1,
        "target_scope": "ENDPOINT",
        "workspace": "default",
        "target_value": "ep-abc123",
        "window_start": 1704067200000,
    },
}
MLFLOW_EVENTS = tuple(EXAMPLES)


@dataclass(frozen=True)
class MlflowEvent:
    """One of MLflow's events and what is said of it."""

    name: str
    data: Mapping[str, Any]


def event_name(event: Event) -> str:
    """Return the name of an event as webhooks of format cloudevents subscribe to it."""
    return f"{event.ref.partition('/')[0]}.{event.action.replace(' ', '_')}"


def check_pattern(pattern: str) -> str:
    """Return a pattern of names. Raises InvalidInput when no name is like it."""
    if _PATTERN.fullmatch(pattern) is None:
        raise InvalidInput(
            f'"{pattern[:80]}" is no pattern of events; write KIND.ACTION as model.published, model.* or *'
        )
    return pattern


def is_wanted(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns means a name."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def mlflow_event(event: Event, world: Transaction) -> MlflowEvent | None:
    """Return what an event is to MLflow, None when it is nothing to it.

    The tags and descriptions are those of the event, also where they have changed by now; only a text that is too long
    for the journal is read where it is kept.
    """
    if not event.ref.startswith("model/"):
        return None
    about = ref(event.ref)
    if event.action == ("created" if about.version is None else "published"):
        return _made(event, about, world)
    if event.action in ("tagged", "untagged") and "key" in event.detail:  # of a redacted event nothing may be left
        return _tagged(event, about, world)
    if event.action == "aliased" and {"alias", "to"} <= event.detail.keys() and not _is_of_deletion(event, world):
        return _aliased(event, about, world)
    return None


def _made(event: Event, about: Ref, world: Transaction) -> MlflowEvent:
    following = next(iter(world.journal.since(event.seq, 1)), None)
    is_told = following is not None and (following.action, following.cause) == ("noted", event.seq)
    said: Mapping[str, Any] = following.detail if following is not None and is_told else {}
    tags = {key: _whole(value, about, key, world) for key, value in said.get("tags", {}).items()}
    description = _whole(said.get("description"), about, None, world)
    is_prompt = str(tags.get(_IS_PROMPT, "")).lower() == "true"
    shown = {key: value for key, value in tags.items() if key not in _OF_PROMPTS} if is_prompt else tags
    if about.version is None:
        if not is_told:
            fields = event.detail.get("fields", {})
            description = fields.get("description", [None, None])[1]
        data = {"name": shown_name(about.name), "tags": shown, "description": description or ""}
        return MlflowEvent("prompt.created" if is_prompt else "registered_model.created", data)
    one = {"name": shown_name(about.name), "version": about.version}
    if is_prompt:
        template = shown.pop(_TEMPLATE, None)
        told = {**one, "template": template, "tags": shown, "description": description}
        return MlflowEvent("prompt_version.created", told)
    source = said.get("source") or f"flyball:/{event.detail.get('digest', '')}"
    run = said.get("run") or next((f[4:] for f in event.detail.get("from", []) if f.startswith("run/")), None)
    told = {**one, "source": source, "run_id": run, "tags": shown, "description": description}
    return MlflowEvent("model_version.created", told)


def _tagged(event: Event, about: Ref, world: Transaction) -> MlflowEvent | None:
    is_prompt = _is_prompt(about, world)
    if about.version is None and not is_prompt:
        return None  # MLflow has no event of tags of models
    what = "prompt" if is_prompt else "model"
    entity = f"{what}_tag" if about.version is None else f"{what}_version_tag"
    data = {"name": shown_name(about.name), **({"version": about.version} if about.version else {})}
    data["key"] = event.detail["key"]
    if event.action == "untagged":
        return MlflowEvent(f"{entity}.deleted", data)
    value = _whole(event.detail.get("value", ""), about, data["key"], world)
    return MlflowEvent(f"{entity}.set", {**data, "value": value})


def _aliased(event: Event, about: Ref, world: Transaction) -> MlflowEvent:
    entity = "prompt_alias" if _is_prompt(about, world) else "model_version_alias"
    data = {"name": shown_name(about.name), "alias": shown_name(event.detail["alias"])}
    if event.detail["to"] is None:
        return MlflowEvent(f"{entity}.deleted", data)
    return MlflowEvent(f"{entity}.created", {**data, "version": str(event.detail["to"])})


def _is_prompt(about: Ref, world: Transaction) -> bool:
    """Whether a model is a prompt; of one that was deleted or renamed since, whether it was made as one."""
    if world.resources.find("model", about.name) is not None:
        return world.notes.get("model", about.name).tags.get(_IS_PROMPT, "").lower() == "true"
    noted = world.journal.find(ref=f"model/{about.name}", action="noted", limit=1000)
    made = next((one for one in noted if "@" not in one.ref), None)
    return made is not None and str(made.detail.get("tags", {}).get(_IS_PROMPT, "")).lower() == "true"


def _is_of_deletion(event: Event, world: Transaction) -> bool:
    if event.cause is None:
        return False
    try:
        return world.journal.get(event.cause).action in ("forgotten", "dropped")
    except NotFound:
        return False


def _whole(value: Any, about: Ref, tag: str | None, world: Transaction) -> Any:
    """Return a text in full: the journal cuts long ones, and then what is kept now begins with the same words."""
    if not isinstance(value, str) or not value.endswith(_CUT):
        return value
    note = world.notes.get("model", about.name, int(about.version) if about.version else None)
    kept = note.description if tag is None else note.tags.get(tag)
    return kept if kept is not None and kept.startswith(value[:-1]) else value
