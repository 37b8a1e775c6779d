"""Access keys on the command line: create, list, revoke."""

from __future__ import annotations

from typing import Annotated

import typer

from flyball.cli.app import Home, Json, app, opened
from flyball.cli.show import ago, emit, note, say, table

key = typer.Typer(help="Access keys: create, list, revoke.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(key, name="key")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Whoever asks with it acts as key/NAME.")]


@key.command()
def create(
    name: Name,
    role: Annotated[str, typer.Option("--role", help="What it may do: viewer, operator, editor or admin.")],
    deployments: Annotated[
        str, typer.Option("--deployments", metavar="NAMES", help="Only for predictions of these: late,fraud.")
    ] = "",
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="AGE", help="How long it holds, like 90d; default: for ever.")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Make an access key, and print its secret this one time."""
    from flyball.clock import parse_duration

    span = None if expires is None else parse_duration(expires)
    named = [one.strip() for one in deployments.split(",") if one.strip()]
    with opened(home, create=True) as platform:  # a key may come before the first start
        made, secret = platform.create_key(name, role, deployments=named, expires=span)
    if json:
        from flyball.wire.native.access_keys import access_key_value

        emit({**access_key_value(made), "secret": secret})
        return
    print(secret)
    note("it is shown never again; send it as MLFLOW_TRACKING_TOKEN, FLYBALL_TOKEN or Authorization: Bearer …")


@key.command("list")
def show_all(home: Home = None, json: Json = False) -> None:
    """List who may ask from afar."""
    with opened(home) as platform:
        found, now = platform.access_keys(), platform.clock.now()
    if json:
        from flyball.wire.native.access_keys import access_key_value

        emit({"items": list(map(access_key_value, found))})
        return
    rows = [
        (
            one.name,
            one.role,
            ", ".join(one.deployments) or None,
            one.made_by,
            ago(one.made_at),
            ago(one.last_used_at),
            "expired" if one.has_expired(now) else one.expires_at and f"{one.expires_at:%Y-%m-%d %H:%M}",
        )
        for one in found
    ]
    columns = ("key", "role", "only for", "made by", "made", "last used", "expires")
    table(columns, rows, "nobody has a key; make one with: flyball key create NAME --role viewer")


@key.command()
def revoke(name: Name, home: Home = None) -> None:
    """End an access key, and all logins by it; a running server follows within a second."""
    with opened(home) as platform:
        platform.revoke_key(name)
    say(f"the access key {name} is revoked")
