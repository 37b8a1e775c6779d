"""The life of a model's versions: stages, promotion requests, reviews, and who was in use when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flyball.errors import Conflict, FlyballError, InvalidInput
from flyball.ledger import Transaction
from flyball.ledger.promotions import STATES, Request, State, Verdict
from flyball.ledger.refs import Ref, ref
from flyball.ledger.versions import Version
from flyball.platform.home import Home

if TYPE_CHECKING:
    from flyball.delivery.served import Served
    from flyball.delivery.standing import Standing
    from flyball.models.kinds import Model, Question, Stage
    from flyball.storage.blobs import BlobStore

__all__ = ["Case", "Inbox", "Known", "LifecycleActs", "StageNow", "named_version"]

_INBOX = 200  # requests of each part of the inbox


@dataclass(frozen=True)
class Case:
    """A request as whoever asks sees it.

    `why_not` says why they may not review it, None when they may; `missing` is how many approvals it still needs, and
    `waits_for` a phrase that says whose: "you", "1 of editor or olga".
    """

    request: Request
    state: State
    why_not: str | None
    stage: Stage | None = None
    missing: int = 0
    waits_for: str = ""


@dataclass(frozen=True)
class Inbox:
    """What waits for whoever asks, what waits for others, and what was decided last."""

    mine: tuple[Case, ...]
    others: tuple[Case, ...]
    decided: tuple[Case, ...]


@dataclass(frozen=True)
class StageNow:
    """A stage of a model and the versions that are in it, newest first."""

    stage: Stage
    versions: tuple[Ref, ...]


class Known:
    """What `delivery.entering` asks of a home besides its ledger."""

    def __init__(self, blobs: BlobStore, home: Path, project: Path) -> None:
        self._blobs = blobs
        self._home = home
        self._project = project

    def is_signed(self, version: Version) -> bool:
        from flyball.models.bundle import read_manifest
        from flyball.models.trust import Trust

        try:
            found = read_manifest(self._blobs, version.digest)
        except FlyballError:
            return False
        return any(signed.is_trusted for signed in Trust(self._home).signed(found))

    def questions(self, model: Model) -> Sequence[Question]:
        from flyball.models.risk import questions_of

        return questions_of(model.risk, self._project)


class LifecycleActs(Home):
    """Stages, promotion requests and their reviews. Where a version is named without a number, its newest is meant."""

    @property
    def known(self) -> Known:
        """What is known of signatures and of questions in files."""
        return Known(self.blobs, self.home, self.project)

    # -- stages

    def stages(self, name: str) -> list[StageNow]:
        """Return a model's stages in order, each with who is in it. Raises NotFound."""
        from flyball.delivery.requests import model_of
        from flyball.models.stages import stage_now, stages_of

        with self._reading() as world:
            declared = stages_of(model_of(world, name))
            aliases = world.versions.aliases("model", name)
            noted = {change.number: change.stage for change in world.notes.stage_history("model", name)}
            versions = world.versions.all("model", name)
        at = {v.number: stage_now(declared, v.number, noted.get(v.number), aliases).name for v in versions}
        return [StageNow(s, tuple(v.ref for v in versions if at[v.number] == s.name)) for s in declared]

    def stage_of(self, target: str | Ref) -> Stage:
        """Return the stage in which a version is. Raises NotFound."""
        from flyball.delivery.requests import stage_of

        with self._reading() as world:
            return stage_of(world, named_version(world, target))

    def history(self, name: str, at: datetime | None = None) -> list[Standing]:
        """Return which versions were in which stages, newest first; with `at` those that were at that instant.

        Raises:
            NotFound: there is no such model.
        """
        from flyball.delivery.standing import standings

        with self._reading() as world:
            return standings(world, ref(name, "model").name if "/" in name else name, at)

    def served(self, name: str, at: datetime | None = None) -> list[Served]:
        """Return a deployment's traffic tables, newest first; with `at` the one that held at that instant.

        Raises:
            NotFound: there is and was no such deployment.
        """
        from flyball.delivery.served import served

        with self._reading() as world:
            return served(world, ref(name, "deployment").name if "/" in name else name, at)

    # -- requests

    def promote(self, target: str | Ref, to: str, reason: str = "") -> Request:
        """Ask that a version enters a stage; where nobody needs to agree it does at once (`state` says so).

        Raises:
            NotFound: there is no such version.
            InvalidInput: there is no such stage.
            Conflict: it is there, left a stage out, does not meet what is asked, or this was asked already.
        """
        from flyball.delivery.requests import ask

        with self._writing("promote") as world:
            version = named_version(world, target)
            return ask(world, version, to, reason.strip(), self.clock.now(), self.known)

    def review(self, id: int, verdict: Verdict, comment: str = "") -> Request:
        """Agree to a request, or refuse it; the comment of a refusal says why.

        Raises:
            NotFound: there is no such request.
            InvalidInput: a refusal without a comment.
            Conflict: it is decided or over, or the version may no longer enter.
            Forbidden: it is not for this person to decide.
        """
        from flyball.delivery.requests import review

        said = comment.strip()
        if verdict not in ("approved", "refused"):
            raise InvalidInput(f'"{verdict}" is no verdict; expected approved or refused')
        if verdict == "refused" and not said:
            raise InvalidInput("a refusal needs a comment that says what must change")
        self._run_out()
        with self._writing("review") as world:
            return review(world, id, verdict, said, self.principal, self.clock.now(), self.known)

    def withdraw(self, id: int, comment: str = "") -> Request:
        """Take a request back. Raises NotFound, Conflict, Forbidden."""
        from flyball.delivery.requests import withdraw

        self._run_out()
        with self._writing("promote") as world:
            return withdraw(world, id, comment.strip(), self.principal, self.clock.now())

    def approve(self, target: str | Ref, comment: str = "") -> Version:
        """Agree to the open request of a model version. Where none is open yet but a person must agree, ask as well.

        Raises:
            NotFound: there is no such version.
            Conflict: it waits for nobody.
            Forbidden: it is not for this person to decide.
        """
        from flyball.delivery.requests import model_of
        from flyball.models.stages import goal_of, stages_of

        with self._reading() as world:
            version = named_version(world, target)
            place: dict[str, Any] = {"kind": "model", "name": version.name, "number": version.number}
            requests = world.promotions.find(**place, states=["open"], limit=2)
            model = model_of(world, version.name)
            champion = world.versions.aliases("model", version.name).get("champion")
        if len(requests) > 1:
            numbers = " and ".join(str(request.id) for request in requests)
            raise Conflict(f"{version.ref.short} has the requests {numbers}; say which: flyball review ID --approve")
        goal = goal_of(stages_of(model))
        if not requests:
            if model.approve.by != "person" or goal is None or version.number <= (champion or 0):
                raise Conflict(f"{version.ref.short} waits for nobody's agreement; flyball approvals lists what does")
            requests = [self.promote(version.ref, goal.name, "agreed to before it was asked")]
        self.review(requests[0].id, "approved", comment)
        return version

    def request(self, id: int) -> Case:
        """Return a request as whoever asks sees it. Raises NotFound."""
        with self._reading() as world:
            return self._case(world, world.promotions.get(id))

    def requests(
        self, name: str | None = None, states: Sequence[str] | None = None, limit: int = 100, before: int | None = None
    ) -> list[Case]:
        """Return requests, newest first. Raises InvalidInput: no such state."""
        for state in states or ():
            if state not in STATES:
                raise InvalidInput(f'"{state}" is no state of a request; expected one of: {", ".join(STATES)}')
        with self._reading() as world:
            wanted = cast("Sequence[State]", states or STATES)
            kept: set[State] = {*wanted, *(("open",) if "expired" in wanted else ())}
            found = world.promotions.find(kind="model", name=name, states=kept, limit=limit, before=before)
            cases = [self._case(world, request) for request in found]
        return [case for case in cases if states is None or case.state in states]

    def inbox(self) -> Inbox:
        """Return what waits for whoever asks, what waits for others, and what was decided last."""
        waiting = self.requests(states=["open"], limit=_INBOX)
        mine = tuple(case for case in waiting if case.waits_for == "you")
        others = tuple(case for case in waiting if case.waits_for != "you")
        decided = self.requests(states=[state for state in STATES if state != "open"], limit=_INBOX)
        return Inbox(mine, others, tuple(decided))

    def waits_for_me(self) -> list[Case]:
        """Return the requests that wait for whoever asks."""
        return [case for case in self.requests(states=["open"], limit=_INBOX) if case.waits_for == "you"]

    def _case(self, world: Transaction, request: Request) -> Case:
        from flyball.delivery.requests import model_of, why_not
        from flyball.models.kinds import Approvers
        from flyball.models.stages import stage_named, stages_of

        state = request.standing(self.clock.now())
        try:
            stage = stage_named(stages_of(model_of(world, request.ref.name)), request.to)
            reason = why_not(world, request, stage, self.principal)
        except FlyballError as error:  # its model, version or stage is gone; the request still tells what was
            return Case(request, state, str(error))
        if state != "open":
            return Case(request, state, reason, stage)
        approvers = stage.approvers or Approvers()
        missing = max(0, approvers.at_least - len(request.approvals()))
        named = [approvers.asked_role] if approvers.asked_role else []
        named += [person.removeprefix("user/") for person in approvers.people]
        is_mine = reason is None and self.actor not in request.approvals()
        return Case(request, state, reason, stage, missing, "you" if is_mine else f"{missing} of {' or '.join(named)}")

    def _run_out(self) -> None:
        """Close requests whose time is over, so that the journal says so before anybody is told."""
        from flyball.delivery.requests import expire

        now = self.clock.now()
        with self._reading() as world:
            waiting = world.promotions.find(states=["open"], limit=1000)
        if any(request.standing(now) == "expired" for request in waiting):
            with self.ledger.write("controller/model") as world:
                expire(world, None, now)


def named_version(world: Transaction, target: str | Ref) -> Version:
    """Return the version that people name, `late@3` or `model/late`: its newest. Raises NotFound, InvalidInput."""
    found = ref(str(target)) if "/" in str(target) else ref(str(target), "model")
    if found.kind != "model":
        raise InvalidInput(f"{found} is no version of a model; write it like late@3")
    return world.versions.get("model", found.name, found.version or "latest")
