"""The life of versions on the command line: promote, review, approvals, withdraw, history; cards and risk forms."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flyball.cli.app import Home, Json, Limit, WrongUse, app, opened, reference
from flyball.cli.show import ago, emit, heading, note, say, state, table
from flyball.errors import InvalidInput

if TYPE_CHECKING:
    from flyball.ledger.papers import Paper
    from flyball.ledger.promotions import Request, Verdict

Version = Annotated[str, typer.Argument(metavar="VERSION", help="As late@3; late: its newest.")]


@app.command()
def promote(
    version: Version,
    to: Annotated[str, typer.Option("--to", metavar="STAGE", help="Such as staging, production, archived.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; reviewers read it, and the journal keeps it.")] = "",
    home: Home = None,
    json: Json = False,
) -> None:
    """Ask that a version enters a stage. Where nobody needs to agree it does at once."""
    with opened(home) as platform:
        request = platform.promote(_version(version), to, reason)
    if json:
        _emit(request)
    elif request.state == "approved":
        say(f"{request.ref.short} is in {request.to}")
    else:
        until = f", until {request.expires_at:%Y-%m-%d %H:%M} UTC" if request.expires_at else ""
        say(f"request {request.id} waits for its reviews{until}: flyball review {request.id} --approve")


@app.command()
def review(
    request: Annotated[int, typer.Argument(metavar="REQUEST", help="Its number; flyball approvals lists them.")],
    approve: Annotated[bool, typer.Option("--approve", help="Agree.")] = False,
    refuse: Annotated[bool, typer.Option("--refuse", help="Refuse, with a comment.")] = False,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take your own request back.")] = False,
    comment: Annotated[str, typer.Option("--comment", help="What you found, or what must change.")] = "",
    home: Home = None,
    json: Json = False,
) -> None:
    """Show a promotion request with its evidence; agree to it, refuse it, or take it back."""
    if approve + refuse + withdraw > 1:
        raise WrongUse("say one of --approve, --refuse and --withdraw")
    with opened(home) as platform:
        if withdraw:
            done = platform.withdraw(request, comment)
        elif approve or refuse:
            verdict: Verdict = "approved" if approve else "refused"
            done = platform.review(request, verdict, comment)
        else:
            case = platform.request(request)
            _emit(case.request) if json else _show(case)
            return
        missing = platform.request(request).missing
    if json:
        _emit(done)
    elif done.state == "open":
        say(f"request {done.id} has your agreement and needs {missing} more")
    else:
        say(f"request {done.id} is {done.state}: {done.ref.short} for {done.to}")


@app.command()
def approvals(
    everything: Annotated[bool, typer.Option("--all", help="Those that are decided, too.")] = False,
    model: Annotated[str | None, typer.Option("--model", help="Of one model only.")] = None,
    limit: Limit = 50,
    home: Home = None,
    json: Json = False,
) -> None:
    """List the promotion requests that wait, and for whom."""
    from flyball.wire.native.lifecycle import case_value
    from flyball.wire.native.values import listing

    with opened(home) as platform:
        cases = platform.requests(model, None if everything else ["open"], limit=limit)
    if json:
        emit(listing(map(case_value, cases)))
        return
    rows = [
        (c.request.id, c.request.ref.short, state(c.state), c.request.to, _short(c.request.asked_by),
         ago(c.request.asked_at), c.waits_for, c.request.reason or None)
        for c in cases
    ]  # fmt: skip
    table(("id", "version", "state", "to", "asked by", "asked", "waits for", "reason"), rows, "nothing waits")


@app.command()
def history(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As model/late; deployment/late: its traffic.")],
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="As 2026-05-03T14:00; without a zone: this machine's.")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Say which version was in which stage, or served, when, who put it there and on what evidence."""
    from flyball.wire.native.lifecycle import served_value, standing_value
    from flyball.wire.native.values import listing

    instant = _instant(at) if at is not None else None
    with opened(home) as platform:
        if model.startswith("deployment/"):
            tables = platform.served(reference(model), instant)
            if json:
                emit(listing(map(served_value, tables)))
                return
            moves = [
                (f"{t.since:%Y-%m-%d %H:%M:%S}", f"{t.until:%Y-%m-%d %H:%M:%S}" if t.until else "now", t.text, t.action,
                 _short(t.actor), t.reason)
                for t in tables
            ]  # fmt: skip
            table(("since (UTC)", "until", "served", "event", "by", "because"), moves, "nothing served then")
            return
        found = platform.history(reference(model if "/" in model else f"model/{model}"), instant)
    if json:
        emit(listing(map(standing_value, found)))
        return
    rows = []
    for one in found:
        reviews = one.request.reviews if one.request is not None else ()
        agreed = ", ".join(f"{_short(r.actor)}: {r.comment}" if r.comment else _short(r.actor) for r in reviews)
        gates = "; ".join(f"{gate['gate']} ({gate['reason']})" for gate in one.gates)
        until = f"{one.until:%Y-%m-%d %H:%M}" if one.until else "now"
        since = f"{one.since:%Y-%m-%d %H:%M}"
        rows.append((one.stage, one.ref.short, since, until, _short(one.actor), agreed or None, gates or None))
    columns = ("stage", "version", "since (UTC)", "until", "by", "reviews", "checks")
    table(columns, rows, "nothing was in a stage then" if at else "no version was put in a stage yet")


@app.command()
def card(
    version: Version,
    markdown: Annotated[bool, typer.Option("--markdown", help="As Markdown, the default.")] = False,
    hugging_face: Annotated[bool, typer.Option("--hugging-face", help="With the YAML that its hub reads.")] = False,
    edit: Annotated[
        Path | None, typer.Option("--edit", metavar="FILE", help="Keep what people wrote in this Markdown card.")
    ] = None,
    revision: Annotated[int | None, typer.Option("--as-of", metavar="N", help="As it was by this edit.")] = None,
    edits: Annotated[bool, typer.Option("--edits", help="List who edited it when.")] = False,
    remark: Annotated[str, typer.Option("--note", help="With --edit: what was changed, and why.")] = "",
    home: Home = None,
    json: Json = False,
) -> None:
    """Print a version's model card, or write what people say in it: print it, change the file, --edit it."""
    if markdown + hugging_face + (edit is not None) + edits > 1:
        raise WrongUse("say one of --markdown, --hugging-face, --edit and --edits")
    from flyball.models import card as cards
    from flyball.wire.native.lifecycle import card_value

    with opened(home) as platform:
        target = _version(version)
        if edits:
            _list_edits(platform.card_edits(target), json)
            return
        if edit is not None:
            texts, sections = cards.parse(_text(edit))
            found = platform.write_card(target, texts, sections, remark)
        else:
            found = platform.card(target, revision)
    if json:
        emit(card_value(found))
    elif edit is not None:
        note(f"the card of {found.title} has edit {found.revision}")
    else:
        say((cards.hugging_face(found) if hugging_face else cards.markdown(found)).rstrip("\n"))


@app.command()
def risk(
    version: Version,
    answer: Annotated[
        list[str] | None, typer.Option("--answer", metavar="ID=TEXT", help="May be given several times; empty removes.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="Answers as YAML: a text for each question's id.")
    ] = None,
    edits: Annotated[bool, typer.Option("--edits", help="List who answered when.")] = False,
    remark: Annotated[str, typer.Option("--note", help="What was changed, and why.")] = "",
    home: Home = None,
    json: Json = False,
) -> None:
    """Show a version's risk assessment, or answer its questions."""
    from flyball.wire.native.lifecycle import risk_value

    answers = {**(_answers(file) if file is not None else {}), **dict(_pair(text) for text in answer or ())}
    with opened(home) as platform:
        target = _version(version)
        if edits:
            _list_edits(platform.risk_edits(target), json)
            return
        form = platform.assess_risk(target, answers, remark) if answers else platform.risk(target)
    if json:
        emit(risk_value(form))
        return
    rows = [
        (q.section, q.id, form.answers.get(q.id), q.ask + (f" ({' | '.join(q.choices)})" if q.choices else ""))
        for q in form.questions
    ]
    table(("section", "id", "answer", "question"), rows)
    note("; ".join(form.missing) if form.missing else f"assessed, edit {form.revision}")


def _show(case: Any) -> None:
    request = case.request
    say(f"request {request.id}: {request.ref.short} from {request.before} to {request.to}, {case.state}")
    say(
        f"asked by {_short(request.asked_by)} {ago(request.asked_at)}"
        + (f": {request.reason}" if request.reason else "")
    )
    if case.state == "open":
        say(
            f"waits for {case.waits_for}"
            + (f", until {request.expires_at:%Y-%m-%d %H:%M} UTC" if request.expires_at else "")
        )
    heading("checks")
    checks = [
        (state("passed" if one["passed"] else "failed"), one["gate"], one["reason"])
        for one in request.evidence.get("checks", [])
    ]
    table(("", "check", "found"), checks, "the stage checks nothing")
    heading("figures")
    asked, current = (request.evidence.get(word, {}) for word in ("version", "current"))
    names = list(dict.fromkeys([*asked.get("metrics", {}), *current.get("metrics", {})]))
    figures = [(name, _figure(asked, name), _figure(current, name)) for name in names]
    table(("metric", request.ref.short, current.get("ref", "nothing in use")), figures, "it was not evaluated")
    heading("reviews")
    said = [(state(r.verdict), _short(r.actor), ago(r.at), r.comment or None) for r in request.reviews]
    table(("", "by", "when", "comment"), said, "nobody has said anything yet")


def _figure(figures: Any, name: str) -> str | None:
    found = figures.get("metrics", {}).get(name)
    return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]" if found else None


def _short(actor: str) -> str:
    return actor.removeprefix("user/")


def _version(text: str) -> str:
    return reference(text if "/" in text else f"model/{text}")


def _list_edits(found: list[Paper], json: bool) -> None:
    if json:
        items = [
            {"edit": one.revision, "by": one.actor, "at": one.at.isoformat(), "note": one.note, "event": one.event}
            for one in found
        ]
        emit({"items": items, "next": None})
        return
    rows = [(one.revision, _short(one.actor), ago(one.at), one.note or None) for one in found]
    table(("edit", "by", "when", "note"), rows, "nobody has written anything yet")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read as UTF-8 text: {error}") from None


def _answers(path: Path) -> dict[str, str]:
    import yaml

    try:
        found = yaml.safe_load(_text(path))
    except yaml.YAMLError as error:
        raise InvalidInput(f"{path} is not YAML: {error}") from None
    if not isinstance(found, dict):
        raise InvalidInput(f"{path} must hold a text for each question's id, such as residual: low")
    words = {True: "yes", False: "no"}  # YAML reads a bare yes and no as truth values
    return {
        str(name): words.get(value, str(value)) if isinstance(value, bool) else str(value or "")
        for name, value in found.items()
    }


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise WrongUse(f'--answer is "{text}"; write it like --answer residual=low')
    return name.strip(), value


def _instant(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise WrongUse(f"--at is {text!r}; write a time like 2026-05-03T14:00 or 2026-05-03T14:00:00Z") from None


def _emit(request: Request) -> None:
    from flyball.wire.native.lifecycle import request_value

    emit(request_value(request))
