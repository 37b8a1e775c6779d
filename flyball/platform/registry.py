"""The registry: models as people name, describe, tag and find them, whoever made their versions.

A registered model is the resource `model/<name>`, its versions and aliases are the ledger's; what may change of them
are notes. Names here are as people write them; `ledger_name` says how they stand in the ledger. Models that are made
here are promoted "by hand": no alias appears that nobody set.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

import orjson

from flyball.errors import Conflict, InvalidInput, NotFound
from flyball.ledger import Transaction
from flyball.ledger.notes import Note, NoteCondition, NoteOrder, StageChange
from flyball.ledger.refs import Ref, ledger_name, shown_name
from flyball.ledger.resources import Resource
from flyball.ledger.versions import Version
from flyball.platform.home import Home
from flyball.platform.lifecycle import Known

__all__ = ["IS_PROMPT", "RegisteredModel", "RegisteredVersion", "RegistryActs"]

T = TypeVar("T")

IS_PROMPT = "mlflow.prompt.is_prompt"
"""The tag of models and versions that are prompts; ordinary searches leave those out."""
_REGISTRATIONS = "mlflow.modelVersions"  # tag of a logged model: which versions it became
_LONGEST_KEY = 250
_LONGEST_VALUE = 100_000
_FIELDS = {
    "name": "name",
    "run_id": "run",
    "source_path": "source",
    "version_number": "number",
    "creation_timestamp": "created_at",
    "last_updated_timestamp": "updated_at",
}


@dataclass(frozen=True)
class RegisteredVersion:
    """A version with what is said of it; `location` is the address of its files."""

    made: Version
    note: Note
    aliases: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return shown_name(self.made.name)

    @property
    def number(self) -> int:
        return self.made.number

    @property
    def run(self) -> str | None:
        return self.note.run or self.made.run

    @property
    def source(self) -> str:
        """Where it came from; a version that Flyball bundled itself has the digest of its bundle."""
        return self.note.source or f"flyball:/{self.made.digest}"

    @property
    def location(self) -> str:
        return str(self.made.metadata.get("location") or self.source)

    @property
    def created_at(self) -> datetime:
        return self.made.created_at

    @property
    def updated_at(self) -> datetime:
        return self.note.updated_at or self.made.created_at


@dataclass(frozen=True)
class RegisteredModel:
    """A model with what is said of it, where its aliases point, and its newest version of each stage."""

    resource: Resource
    note: Note
    aliases: Mapping[str, int]
    latest: tuple[RegisteredVersion, ...] = ()

    @property
    def name(self) -> str:
        return shown_name(self.resource.name)

    @property
    def description(self) -> str:
        return self.note.description or str(self.resource.spec.get("description", ""))

    @property
    def created_at(self) -> datetime | None:
        return self.resource.created_at

    @property
    def updated_at(self) -> datetime | None:
        return self.note.updated_at or self.resource.updated_at

    @property
    def is_prompt(self) -> bool:
        return self.note.tags.get(IS_PROMPT, "").lower() == "true"


class RegistryActs(Home):
    """Models, their versions and aliases, as a registry has them."""

    # -- models

    def create_model(
        self, name: str, tags: Mapping[str, str] | None = None, description: str | None = None
    ) -> RegisteredModel:
        """Make a model without a version. Raises Conflict when the name is taken, InvalidInput when it is too long."""
        kept = ledger_name(name)

        def create(world: Transaction) -> RegisteredModel:
            world.versions.hold()
            there = world.resources.find("model", kept)
            if there is not None:
                raise Conflict(_taken(name, world.notes.get("model", kept).tags, tags or {}))
            applied = world.resources.apply("model", kept, {"promotion": "by hand"})
            cause = applied.event.seq if applied.event else None
            world.notes.change("model", kept, description=description, tags=tags, is_new=True, cause=cause)
            return _model(world, name)

        return self._registering(create)

    def model(self, name: str) -> RegisteredModel:
        """Return a model. Raises NotFound."""
        with self._reading() as world:
            return _model(world, name)

    def describe_model(self, name: str, description: str) -> RegisteredModel:
        """Say what a model is; the empty text takes it back. Raises NotFound."""
        return self._changing_model(name, description=description)

    def tag_model(self, name: str, key: str, value: str) -> RegisteredModel:
        """Set a tag of a model. Raises NotFound, InvalidInput."""
        _check_tag(key, value)
        return self._changing_model(name, tags={key: value})

    def untag_model(self, name: str, key: str) -> RegisteredModel:
        """Remove a tag of a model; one that it lacks is no error. Raises NotFound."""
        return self._changing_model(name, remove_tags=[key])

    def rename_model(self, name: str, new: str) -> RegisteredModel:
        """Give a model another name. Raises NotFound; Conflict when that is taken or a resource refers to the model."""

        def rename(world: Transaction) -> RegisteredModel:
            _check_there(world, name)
            world.notes.rename("model", ledger_name(name), ledger_name(new))
            return _model(world, new)

        return self._registering(rename)

    def delete_model(self, name: str) -> None:
        """Remove a model with its versions. Raises NotFound; Conflict when a resource refers to it."""
        self._may("delete")

        def delete(world: Transaction) -> None:
            _check_there(world, name)
            world.notes.drop("model", ledger_name(name))

        self._registering(delete)

    def search_models(
        self, filter: str = "", order_by: Sequence[str] = (), limit: int = 100, offset: int = 0
    ) -> tuple[list[RegisteredModel], bool]:
        """Return models by name unless ordered otherwise, and whether there are more.

        Raises:
            InvalidInput: the filter or the order is none of `tracking.grammars.REGISTERED_MODELS`.
        """
        from flyball.tracking.filters import parse_filter, parse_order
        from flyball.tracking.grammars import REGISTERED_MODELS

        conditions, without = _conditions(parse_filter(filter, REGISTERED_MODELS))
        order = _order(parse_order(order_by, REGISTERED_MODELS))
        with self._reading() as world:
            found, more = world.notes.resources("model", conditions, without, order, limit, offset)
            return _models(world, found), more

    # -- versions

    def create_version(
        self,
        name: str,
        source: str,
        *,
        run: str | None = None,
        model_id: str | None = None,
        run_link: str | None = None,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> RegisteredVersion:
        """Make the next version of a model from files that are elsewhere.

        Args:
            source: the address of its files; `models:/m-…` is a logged model, `models:/name/2` another version.
            run: the run that made it; by default that of the logged model.

        Raises:
            NotFound: there is no such model, or the source is a model that is not there.
        """
        kept = ledger_name(name)

        def create(world: Transaction) -> RegisteredVersion:
            _check_there(world, name)
            logged, location, maker = _origin(world, source, model_id, run)
            facts = {"source": source, "location": location, "run_link": run_link, "model_id": logged}
            facts = {key: value for key, value in facts.items() if value}
            told = orjson.dumps({**facts, "run": maker, "nonce": secrets.token_hex(16)}, option=orjson.OPT_SORT_KEYS)
            digest = hashlib.sha256(told).hexdigest()
            known = maker if maker and world.runs.named([maker]) else None
            behind = [(Ref("logged-model", logged), "registered from")] if logged else []
            made = world.versions.publish("model", kept, digest, metadata=facts, run=known, made_from=behind)
            note = world.notes.change(
                "model",
                kept,
                made.number,
                description=description,
                tags=tags,
                source=source,
                run=maker,
                is_new=True,
                cause=made.event,
            )
            if logged and model_id:
                _register_on(world, logged, name, made.number)
            return RegisteredVersion(made, note)

        return self._registering(create)

    def model_version(self, name: str, number: int) -> RegisteredVersion:
        """Return a version. Raises NotFound."""
        with self._reading() as world:
            return _version(world, name, number)

    def model_version_by_alias(self, name: str, alias: str) -> RegisteredVersion | None:
        """Return the version that an alias points to, or the newest by `latest`; None: it has no such alias.

        Raises:
            NotFound: there is no such model, or it has no version.
        """
        with self._reading() as world:
            _check_there(world, name)
            if alias.lower() == "latest":
                newest = world.versions.all("model", ledger_name(name), limit=1)
                if not newest:
                    raise NotFound(f"Latest version not found for model {name}.")
                return _version(world, name, newest[0].number)
            number = world.versions.aliases("model", ledger_name(name)).get(_alias(alias))
            return _version(world, name, number) if number is not None else None

    def describe_version(self, name: str, number: int, description: str) -> RegisteredVersion:
        """Say what a version is; the empty text takes it back. Raises NotFound."""
        return self._changing_version(name, number, description=description)

    def tag_version(self, name: str, number: int, key: str, value: str) -> RegisteredVersion:
        """Set a tag of a version. Raises NotFound, InvalidInput."""
        _check_tag(key, value)
        return self._changing_version(name, number, tags={key: value})

    def untag_version(self, name: str, number: int, key: str) -> RegisteredVersion:
        """Remove a tag of a version; one that it lacks is no error. Raises NotFound."""
        return self._changing_version(name, number, remove_tags=[key])

    def set_stage(self, name: str, number: int, stage: str, archived: str | None = None) -> RegisteredVersion:
        """Put a version in a stage, or out of all by the empty text.

        Args:
            archived: where the other versions that are in this stage go; None: they stay.

        Raises:
            NotFound: there is no such version.
            Forbidden: the model declares stages, and people must agree to this one.
            InvalidInput, Conflict: it declares stages, and this is none, or the version may not enter it.
        """
        from flyball.delivery.requests import stage_by_hand

        kept = ledger_name(name)
        known = Known(self.blobs, self.home, self.project)

        def change(world: Transaction) -> RegisteredVersion:
            made = _version(world, name, number).made
            now = self.clock.now()
            is_done = stage_by_hand(world, made, stage, now, known)
            if archived is not None:
                others, _ = world.notes.versions("model", [_equal("name", name)], limit=1_000_000)
                for other, note in others:
                    is_there = other.number != number and (note.stage or "").lower() == stage.lower()
                    if is_there and not stage_by_hand(world, other, archived, now, known):
                        world.notes.change("model", kept, other.number, stage=archived)
            if not is_done:
                world.notes.change("model", kept, number, stage=stage)
            return _version(world, name, number)

        return self._registering(change)

    def stage_changes(self, name: str, number: int | None = None) -> list[StageChange]:
        """Return every change of stages of a model's versions, oldest first."""
        with self._reading() as world:
            return world.notes.stage_history("model", ledger_name(name), number)

    def delete_version(self, name: str, number: int) -> None:
        """Let a version be found no more; its number is never given again.

        Raises:
            NotFound: there is no such version.
            Forbidden: a declared stage has it in use.
        """
        from flyball.delivery.requests import check_free

        self._may("delete")

        def delete(world: Transaction) -> None:
            _version(world, name, number)
            check_free(world, ledger_name(name), number=number)
            world.notes.forget("model", ledger_name(name), number)

        self._registering(delete)

    def search_versions(
        self, filter: str = "", order_by: Sequence[str] = (), limit: int = 10_000, offset: int = 0
    ) -> tuple[list[RegisteredVersion], bool]:
        """Return versions, the last changed first unless ordered otherwise, and whether there are more.

        Raises:
            InvalidInput: the filter or the order is none of `tracking.grammars.MODEL_VERSIONS`.
        """
        from flyball.tracking.filters import parse_filter, parse_order
        from flyball.tracking.grammars import MODEL_VERSIONS

        conditions, without = _conditions(parse_filter(filter, MODEL_VERSIONS))
        order = _order(parse_order(order_by or ["last_updated_timestamp DESC", "name ASC"], MODEL_VERSIONS))
        with self._reading() as world:
            found, more = world.notes.versions("model", conditions, without, order, limit, offset)
            return [RegisteredVersion(made, note) for made, note in found], more

    def latest_versions(self, name: str, stages: Iterable[str] | None = None) -> list[RegisteredVersion]:
        """Return the newest version of each stage, or of some stages, whatever their case. Raises NotFound.

        The empty text is in no stage.
        """
        wanted = None if stages is None else {stage.lower() for stage in stages}
        model = self.model(name)
        return [
            replace(version, aliases=_pointing(model.aliases, version.number))
            for version in model.latest
            if wanted is None or (version.note.stage or "").lower() in wanted
        ]

    def model_version_source(self, name: str, version: str) -> str:
        """Return the address of a version's files. Raises NotFound."""
        number = int(version) if version.isascii() and version.isdecimal() else -1
        return self.model_version(name, number).location

    # -- aliases

    def set_alias(self, name: str, alias: str, number: int) -> None:
        """Point an alias at a version. Raises NotFound; Forbidden when a declared stage is bound to it."""
        from flyball.delivery.requests import check_free

        def point(world: Transaction) -> None:
            _version(world, name, number)
            check_free(world, ledger_name(name), alias=_alias(alias))
            world.versions.set_alias("model", ledger_name(name), _alias(alias), number)

        self._registering(point)

    def remove_alias(self, name: str, alias: str) -> None:
        """Remove an alias; one that is not there is no error.

        Raises:
            NotFound: there is no such model.
            Forbidden: a declared stage is bound to the alias.
        """
        from flyball.delivery.requests import check_free

        def remove(world: Transaction) -> None:
            _check_there(world, name)
            check_free(world, ledger_name(name), alias=_alias(alias))
            world.versions.set_alias("model", ledger_name(name), _alias(alias), None)

        self._registering(remove)

    # -- within

    def _registering(self, change: Callable[[Transaction], T]) -> T:
        self._may("register")
        return self.recorder.change(change).result()

    def _changing_model(self, name: str, **change: Any) -> RegisteredModel:
        def act(world: Transaction) -> RegisteredModel:
            _check_there(world, name)
            world.notes.change("model", ledger_name(name), **change)
            return _model(world, name)

        return self._registering(act)

    def _changing_version(self, name: str, number: int, **change: Any) -> RegisteredVersion:
        def act(world: Transaction) -> RegisteredVersion:
            _version(world, name, number)
            world.notes.change("model", ledger_name(name), number, **change)
            return _version(world, name, number)

        return self._registering(act)


def _check_tag(key: str, value: str) -> None:
    if not key or len(key) > _LONGEST_KEY:
        raise InvalidInput(f"a tag's key has 1 to {_LONGEST_KEY} characters; this one has {len(key):,}")
    if len(value) > _LONGEST_VALUE:
        raise InvalidInput(f"the tag {key!r} has {len(value):,} characters; at most {_LONGEST_VALUE:,} are kept")


def _check_there(world: Transaction, name: str) -> Resource:
    found = world.resources.find("model", ledger_name(name))
    if found is None:
        raise NotFound(f"Registered Model with name={name} not found")
    return found


def _model(world: Transaction, name: str) -> RegisteredModel:
    resource = _check_there(world, name)
    return _models(world, [(resource, world.notes.get("model", resource.name))])[0]


def _models(world: Transaction, found: Sequence[tuple[Resource, Note]]) -> list[RegisteredModel]:
    """Return models with their aliases and newest versions, all asked for together."""
    names = [resource.name for resource, _ in found]
    newest = world.notes.newest_by_stage("model", names)
    places = [(name, number) for name in names for number in newest.get(name, ())]
    versions: dict[str, list[RegisteredVersion]] = {}
    for made, note in world.notes.of_versions("model", places):
        versions.setdefault(made.name, []).append(RegisteredVersion(made, note))
    aliases = world.versions.aliases_of("model", names)
    return [
        RegisteredModel(resource, note, _shown(aliases.get(resource.name, {})), tuple(versions.get(resource.name, ())))
        for resource, note in found
    ]


def _version(world: Transaction, name: str, number: int) -> RegisteredVersion:
    kept = ledger_name(name)
    found = world.notes.of_versions("model", [(kept, number)]) if 0 < number < 1 << 31 else []
    if not found:
        raise NotFound(f"Model Version (name={name}, version={number}) not found")
    aliases = _shown(world.versions.aliases("model", kept))
    return RegisteredVersion(*found[0], _pointing(aliases, number))


def _pointing(aliases: Mapping[str, int], number: int) -> tuple[str, ...]:
    return tuple(alias for alias, target in aliases.items() if target == number)


def _shown(aliases: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted((shown_name(alias), number) for alias, number in aliases.items()))


def _alias(text: str) -> str:
    """Return how an alias stands in the ledger, where a number means a version."""
    kept = ledger_name(text)
    return f"%{ord(kept[0]):02X}{kept[1:]}" if kept.isdecimal() else kept


def _origin(
    world: Transaction, source: str, model_id: str | None, run: str | None
) -> tuple[str | None, str, str | None]:
    """Return the logged model that a source is, the address of its files, and the run that made it."""
    scheme, _, path = source.partition(":/")
    path = path.strip("/")
    logged, location = model_id, source
    if scheme == "models" and "/" not in path and "@" not in path:
        found = world.logged_models.get(path)
        logged, location, run = logged or found.id, found.location, run or found.run
    elif scheme == "models":
        name, _, number = path.rpartition("/")
        if number.isascii() and number.isdecimal():
            location = _version(world, name, int(number)).location
    if not run and logged:
        run = world.logged_models.get(logged).run
    return logged, location, run


def _register_on(world: Transaction, id: str, name: str, number: int) -> None:
    """Say on a logged model which version it became, where MLflow's clients look for it."""
    tags = world.logged_models.get(id).tags
    try:
        there = json.loads(tags.get(_REGISTRATIONS, "[]"))
    except ValueError:
        there = []
    one = {"name": name, "version": number}
    if isinstance(there, list) and one not in there:
        world.logged_models.update(id, tags={_REGISTRATIONS: json.dumps([*there, one])})


def _taken(name: str, there: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    old, new = ("Prompt" if IS_PROMPT in tags else "Registered Model" for tags in (there, wanted))
    if old != new:
        return (
            f"Tried to create a {new.lower()} with name {name!r}, but the name is already taken by a {old.lower()}. "
            "MLflow does not allow creating a model and a prompt with the same name."
        )
    return f"{new} (name={name}) already exists."


def _equal(key: str, value: str) -> NoteCondition:
    return NoteCondition("attribute", key, "=", value, lambda found: bool(found == value))


def _conditions(parsed: Iterable[Any]) -> tuple[list[NoteCondition], tuple[str, str] | None]:
    """Return what a search asks, and the tag of those that it leaves out: prompts, unless it asks for them."""
    from flyball.tracking.filters import judge

    comparisons = list(parsed)
    about = next((one for one in comparisons if one.kind == "tag" and one.key == IS_PROMPT), None)
    value = str(about.value).lower() if about is not None else ""
    wants_prompts = about is not None and (about.operator, value) in (("=", "true"), ("!=", "false"))
    found = []
    for one in comparisons:
        if one.kind == "tag" and one.key == IS_PROMPT and not wants_prompts:
            continue  # models have no such tag, so as a condition it would find nothing
        key = _FIELDS[one.key] if one.kind == "attribute" else one.key
        found.append(NoteCondition(one.kind, key, one.operator, one.value, judge(one)))
    return found, None if wants_prompts else (IS_PROMPT, "true")


def _order(parsed: Iterable[Any]) -> list[NoteOrder]:
    return [NoteOrder(_FIELDS[one.key], one.ascending) for one in parsed]
