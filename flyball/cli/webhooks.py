"""Webhooks on the command line: list, secret, test, deliveries, redeliver. They are declared by `flyball apply`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flyball.cli.app import Before, Home, Json, Limit, WrongUse, app, opened
from flyball.cli.show import ago, emit, note, say, state, table

if TYPE_CHECKING:
    from flyball.ledger.deliveries import Delivery
    from flyball.platform.webhooks import Hook

webhooks = typer.Typer(
    help="Webhooks: list, secret, test, deliveries, redeliver.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(webhooks, name="webhooks")

Name = Annotated[str, typer.Argument(metavar="WEBHOOK", help="Its name: ci, or webhook/ci.")]


@webhooks.command("list")
def show_all(home: Home = None, json: Json = False) -> None:
    """List who is told what, and how it is taken."""
    with opened(home) as platform:
        found = platform.webhooks()
    if json:
        emit({"items": [_hook_value(hook) for hook in found]})
        return
    rows = [
        (
            hook.name,
            hook.resource.spec.get("display_name") or None,
            hook.url,
            ", ".join(hook.events),
            "active" if hook.is_active else "off",
            "yes" if hook.is_signed else "no",
            *(hook.counts.get(one, 0) for one in ("delivered", "waiting", "failed")),
        )
        for hook in found
    ]
    columns = ("name", "called", "url", "events", "state", "signed", "delivered", "waiting", "failed")
    table(columns, rows, "no webhook; declare one with: flyball apply, see docs/webhooks.md")


@webhooks.command()
def secret(
    name: Name,
    generate: Annotated[bool, typer.Option("--generate", help="Make one, and print it this one time.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Sign no more.")] = False,
    home: Home = None,
) -> None:
    """Set what a webhook's messages are signed by: read from standard input, unless it is generated."""
    if generate and remove:
        raise WrongUse("say one of --generate and --remove")
    with opened(home) as platform:
        if remove:
            platform.update_webhook(_name(name), secret="")
            say(f"messages of {_name(name)} are signed no more")
            return
        from flyball.delivery.webhooks.secrets import new_secret

        platform.webhook(_name(name))
        chosen = new_secret() if generate else _read_secret()
        platform.update_webhook(_name(name), secret=chosen)
    if generate:
        print(chosen)
        note("the receiver needs it too; it is shown never again")
    else:
        say(f"messages of {_name(name)} are signed from now on")


@webhooks.command()
def test(
    name: Name,
    event: Annotated[str | None, typer.Option("--event", help="Which; default: the first it subscribes to.")] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Send an example of an event now, once, and show the answer. Exit code 1 when it is not taken."""
    with opened(home) as platform:
        answer = platform.test_webhook(_name(name), event)
    if json:
        emit({"taken": answer.is_taken, "status": answer.status, "body": answer.body, "error": answer.told})
    elif answer.is_taken:
        say(f"taken: {answer.status}")
    else:
        say(f"not taken: {answer.told}")
        if answer.body:
            note(answer.body[:500])
    if not answer.is_taken:
        raise typer.Exit(1)


@webhooks.command()
def deliveries(
    name: Annotated[str | None, typer.Argument(metavar="[WEBHOOK]", help="Of one only.")] = None,
    only: Annotated[str | None, typer.Option("--state", help="waiting, delivered or failed.")] = None,
    limit: Limit = 50,
    before: Before = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """List what was sent or is to be, the newest event first, with how the last attempt ended."""
    if only not in (None, "waiting", "delivered", "failed"):
        raise WrongUse(f'there is no state "{only}"; say waiting, delivered or failed')
    if before is not None and not before.isdecimal():
        raise WrongUse(f"--before is {before!r}; expected the number of an event")
    with opened(home) as platform:
        of = _name(name) if name is not None else None
        found = platform.deliveries(of, only, limit, int(before) if before else None)  # type: ignore[arg-type]
    if json:
        emit({"items": [_delivery_value(one) for one in found]})
        return
    rows = [
        (
            one.webhook,
            one.event,
            one.name,
            state(one.state),
            one.attempts,
            ago(one.made_at),
            (one.log[-1].error or one.log[-1].status) if one.log else None,
        )
        for one in found
    ]
    table(("webhook", "event", "what", "state", "attempts", "happened", "last answer"), rows, "nothing was sent yet")


@webhooks.command()
def redeliver(
    name: Name,
    event: Annotated[int | None, typer.Argument(metavar="[EVENT]", help="Its number; deliveries lists them.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="All that failed.")] = False,
    home: Home = None,
) -> None:
    """Send a delivery again, under the same id; `flyball up` does it."""
    if (event is None) != failed:
        raise WrongUse("say the number of an event, or --failed")
    with opened(home) as platform:
        if event is not None:
            platform.redeliver(_name(name), event)
            say(f"event {event} is sent to {_name(name)} again")
            return
        sent, before = 0, None
        while found := platform.deliveries(_name(name), "failed", 500, before):
            for one in found:
                platform.redeliver(one.webhook, one.event)
            sent, before = sent + len(found), found[-1].event  # each once, also when it fails again meanwhile
        say(f"{sent:,} deliveries are sent to {_name(name)} again")


def _name(text: str) -> str:
    return text.removeprefix("webhook/")


def _read_secret() -> str:
    if sys.stdin.isatty():
        found = str(typer.prompt("secret", hide_input=True))
    else:
        found = sys.stdin.read(4096).rstrip("\r\n")
    if not found:
        raise WrongUse("there is no secret on standard input; pipe it in, or say --generate")
    return found


def _hook_value(hook: Hook) -> dict[str, Any]:
    return {
        "name": hook.name,
        "display_name": hook.title,
        "url": hook.url,
        "events": list(hook.events),
        "format": hook.format,
        "active": hook.is_active,
        "signed": hook.is_signed,
        "description": hook.description,
        "deliveries": dict(hook.counts),
    }


def _delivery_value(one: Delivery) -> dict[str, Any]:
    from flyball.clock import format_instant

    log = [
        {"at": format_instant(a.at), "took_ms": a.took_ms, "status": a.status, "error": a.error} for a in one.log
    ]  # fmt: skip
    return {
        "webhook": one.webhook,
        "event": one.event,
        "id": one.id,
        "name": one.name,
        "state": one.state,
        "attempts": one.attempts,
        "made_at": format_instant(one.made_at),
        "due_at": format_instant(one.due_at),
        "log": log,
        "body": one.body,
    }
