"""Privacy: erase a subject and show the certificates; take out rows that are older than they may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from flyball.cli.app import Home, Json, WrongUse, app, opened
from flyball.cli.show import ago, emit, heading, note, say, table, working

if TYPE_CHECKING:
    from flyball.platform import Platform
    from flyball.privacy.erasure import Erased


@app.command()
def erase(
    subject: Annotated[
        str | None, typer.Option("--subject", metavar="[COLUMN=]VALUE", help="Who; COLUMN says where the value stands.")
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option("--column", metavar="NAME", help="A further column that holds the value.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would go.")] = False,
    show: Annotated[
        str | None, typer.Option("--show", metavar="NAME", help="Show a certificate; all: list them.")
    ] = None,
    allow_again: Annotated[
        bool, typer.Option("--allow-again", help="Let the erased subject's rows be published again.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Carry out erasures that were interrupted.")] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Erase one subject from every version, log and store, and keep a certificate without personal data.

    Models that learnt from the subject are named in the certificate and stay. Exit code 1 when something is left.
    """
    wanted = sum([subject is not None, show is not None, resume])
    if wanted != 1:
        raise WrongUse("say one of --subject COLUMN=VALUE, --show NAME and --resume")
    if subject is None and (column or dry_run or allow_again):
        raise WrongUse("--column, --dry-run and --allow-again go with --subject")
    with opened(home) as platform:
        if show is not None:
            _show(platform, show, json)
            return
        if subject is None:
            with working("carrying out erasures"):
                done = platform.resume_erasures()
            if json:
                emit({"items": [dict(one.certificate) for one in done], "next": None})
            elif not done:
                say("no erasure was interrupted")
            for one in done:
                _tell(one) if not json else None
            _end(done)
            return
        value, columns = _subject(platform, subject, column or [])
        if allow_again:
            count = platform.allow_again(value, columns)
            emit({"allowed": count}) if json else say(f"allowed again; {count} erasures held it back")
            return
        with working("erasing"):
            found = platform.erase(value, columns, dry_run=dry_run)
        emit(dict(found.certificate)) if json else _tell(found)
        _end([] if dry_run else [found])


@app.command()
def retention(
    apply: Annotated[bool, typer.Option("--apply/--dry-run", help="Take the rows out; default: only count.")] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Take out rows that are older than their dataset or a policy allows, or count them."""
    with opened(home) as platform, working("looking for rows past their time"):
        found = platform.retention(dry_run=not apply)
    if json:
        emit({"items": [expired.to_dict() for expired in found], "next": None})
    else:
        rows = []
        for e in found:
            kept = f"{e.kept.days:,} d" if e.kept.days else str(e.kept)
            counts = (f"{e.rows:,}", f"{e.predictions:,}", f"{e.online:,}")
            rows.append((e.dataset, kept, e.because, *counts, e.problem or e.note or None))
        titles = ("dataset", "kept", "says", "rows of versions", "predictions", "online", "note")
        table(titles, rows, "no dataset has a retention")
        if found and not apply:
            note("nothing was changed; take them out with: flyball retention --apply")
    if any(expired.problem for expired in found):
        raise typer.Exit(1)


def _subject(platform: Platform, text: str, more: list[str]) -> tuple[str, list[str]]:
    from flyball.privacy.subjects import one_column

    column, value = one_column(text, platform.subjects())
    return value, [column, *more]


def _show(platform: Platform, name: str, json: bool) -> None:
    if name != "all":
        emit(platform.certificate(name))
        return
    found = platform.certificates()
    if json:
        items: list[Any] = [{"name": v.name, "made": v.created_at, "by": v.actor, **v.metadata} for v in found]
        emit({"items": items, "next": None})
        return
    rows = [
        (v.name, ", ".join(v.metadata["columns"]), f"{v.metadata['rows']:,}", _state(v.metadata), ago(v.created_at))
        for v in found
    ]
    table(("certificate", "columns", "rows", "state", "made"), rows, "nobody was erased")


def _state(metadata: Any) -> str:
    if metadata.get("lifted"):
        return "allowed again"
    return "complete" if metadata["complete"] else f"{metadata['left']} left"


def _tell(erased: Erased) -> None:
    certificate = erased.certificate
    found = {place: rows for place, rows in certificate["removed"].items() if rows}
    is_dry = certificate["is_dry_run"]
    heading("would go" if is_dry else f"certificate {certificate['request']}")
    table(("place", "rows"), [(place, f"{rows:,}") for place, rows in found.items()], "the subject is nowhere")
    if certificate["models_that_learnt_from_it"]:
        say(f"models that learnt from it: {', '.join(certificate['models_that_learnt_from_it'])}")
    for sentence in certificate["left"]:
        note(f"left: {sentence}")


def _end(done: list[Erased]) -> None:
    if any(not one.is_complete for one in done):
        raise typer.Exit(1)
