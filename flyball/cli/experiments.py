"""Experiments on the command line: how large one must be before it is started, and how one stands."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flyball.cli.app import Home, Json, WrongUse, app, opened, reference
from flyball.cli.show import emit, say, table

experiment = typer.Typer(help="Experiments on live traffic: plan, status.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(experiment, name="experiment")

Name = Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="A deployment: late, or deployment/late.")]


@experiment.command()
def plan(
    deployment: Name,
    effect: Annotated[float | None, typer.Option("--effect", help="The smallest difference that matters.")] = None,
    alpha: Annotated[float | None, typer.Option("--alpha", help="Chance of a false verdict.")] = None,
    power: Annotated[float | None, typer.Option("--power", help="Chance of a verdict at that difference.")] = None,
    share: Annotated[float | None, typer.Option("--share", help="The challenger's share in percent.")] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Say how many keys an A/B needs, and how long it lasts, from the answers that the log has."""
    with opened(home) as platform:
        found = platform.experiment_plan(_named(deployment), effect, alpha, power, share)
    if json:
        emit(found)
        return
    base, size = found["baseline"], found["size"]
    mean, deviation = f"{base['mean']:.4g}", f"{base['deviation']:.4g}"
    say(f"{found['metric']} is {mean} on average over {base['units']:,} keys, deviation {deviation}")
    if base["correlation"] is not None:
        say(f"its correlation with the covariate is {base['correlation']:.2f}")
    days = f", about {size['days']:,.1f} days" if size["days"] is not None else ""
    say(
        f"to find a difference of {size['effect']:g} with a chance of {size['power']:.0%}, looking all the time: "
        f"planned_units: {size['sequential_units']}{days}"
    )
    say(f"a test at one fixed look would need {size['fixed_units']:,}")


@experiment.command()
def status(deployment: Name, home: Home = None, json: Json = False) -> None:
    """Say how a deployment's rollout stands, or how the last one ended."""
    with opened(home) as platform:
        found = platform.experiment_status(_named(deployment))
    if json:
        emit(found)
        return
    if found["state"] == "none":
        say(f"{found['reason']}; a version that passes its gates begins the {found['strategy']}")
        return
    verdict = found["verdict"] or "running"
    say(f"{found['strategy']} of {found['challenger']} beside {found['champion']}: {verdict}")
    say(str(found["reason"]))
    if found["experiment"] is not None:
        _show_arms(found["experiment"])
    if found["agreement"] is not None:
        _show_agreement(found["agreement"])


def _show_arms(experiment: dict[str, Any]) -> None:
    rows = [
        (variant, f"{arm['share']:g} %", f"{arm['units']:,}", f"{arm['known']:,}", _figure(arm["mean"]))
        for variant, arm in experiment["arms"].items()
    ]
    table(("arm", "share", "keys", "known", experiment["metric"]), rows, "no arms")
    looks = {experiment["metric"]: experiment["difference"], **experiment["guardrails"]}
    differences = [
        (name, _figure(one["value"]), _figure(one["low"]), _figure(one["high"]), _figure(one["p_value"]))
        for name, one in looks.items()
    ]
    table(("challenger - champion", "difference", "low", "high", "p"), differences, "nothing measured")
    if experiment["sample_ratio_p"] is not None:
        say(f"the split: p {experiment['sample_ratio_p']:.3g} (below 0.001: broken)")


def _show_agreement(agreement: dict[str, Any]) -> None:
    rows = [
        (name, f"{one['equal']:.1%}", _figure(one["difference"]), _figure(one["psi"]))
        for name, one in agreement["outputs"].items()
    ]
    table(("output", "equal", "mean difference", "psi"), rows, "no output in common")
    latency = [
        (variant, f"{one['p50']:.2f} ms", f"{one['p99']:.2f} ms") for variant, one in agreement["latency_ms"].items()
    ]
    table(("answered by", "median", "p99"), latency, "nothing answered")


def _figure(value: float | None) -> str | None:
    return None if value is None else f"{value:.4g}"


def _named(text: str) -> str:
    found = reference(text if "/" in text else f"deployment/{text}")
    if not found.startswith("deployment/"):
        raise WrongUse(f'"{text}" is not a deployment; write it like deployment/late')
    return found.partition("/")[2]
