"""How many worker processes there are, and what says so: on the command line, and as a manifest of Kubernetes."""

from __future__ import annotations

from typing import Annotated

import typer

from flyball.cli.app import Home, Json, app, opened
from flyball.cli.show import emit, note, say, yaml_text


@app.command()
def scaling(
    hpa: Annotated[
        bool, typer.Option("--hpa", help="Print the policy as a HorizontalPodAutoscaler of Kubernetes.")
    ] = False,
    name: Annotated[str, typer.Option("--name", help="With --hpa: the Deployment of Kubernetes that is scaled.")] = (
        "flyball-data-plane"
    ),
    home: Home = None,
    json: Json = False,
) -> None:
    """Say how many worker processes answer predictions, how many there may be, and by what that is decided."""
    from flyball import settings
    from flyball.clock import SYSTEM
    from flyball.errors import Corrupt, NotFound
    from flyball.serving.keys import ServingSettings
    from flyball.serving.scaling import ScalingSettings, horizontal_autoscaler
    from flyball.serving.status import read_status

    with opened(home) as platform:
        path = platform.home
    serving = settings.load(ServingSettings, "serving", path)
    policy = settings.load(ScalingSettings, "scaling", path).policy(serving.workers)
    now = SYSTEM.now()
    if hpa:
        manifest = horizontal_autoscaler(policy, now, name)
        if policy.windows:
            note("a HorizontalPodAutoscaler knows no schedule: its bounds are those of now")
        if json:
            emit(manifest)
        else:
            say(yaml_text(manifest))
        return
    try:
        status = read_status(path / "serving" / "status.json")
        running = len(status.workers) or 1
    except (NotFound, Corrupt):
        running = 0
    least, most = policy.bounds(now)
    if json:
        tracked = {"metric": policy.metric, "target": policy.target} if policy.target else None
        emit({"workers": running, "minimum": least, "maximum": most, "tracks": tracked})
        return
    by = f"{policy.metric} {policy.target:g}" if policy.target else "the schedule" if policy.windows else "the setting"
    say(f"{running} workers; {least} to {most} by {by}")
