"""What is in service: predict, label, approve, rollback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from flyball.cli.app import Home, Json, WrongUse, app, opened, reference
from flyball.cli.show import emit, say, table, working
from flyball.errors import InvalidInput

_ROWS_A_REQUEST = 1000


@app.command()
def predict(
    deployment: Annotated[str, typer.Argument(help="A deployment.")],
    data: Annotated[str, typer.Argument(help="A JSON record or list; a file of JSON or NDJSON; - for stdin.")],
    key: Annotated[str | None, typer.Option("--key", help="Keeps a caller on one variant.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say too what each input did.")] = False,
    approximate: Annotated[
        bool, typer.Option("--approximate", help="Sample the explanation of a model that has no exact one.")
    ] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Predict, through the running data plane if there is one. Else the model is loaded in this process."""
    from flyball.cli.supervisor import live_data_plane

    records = _records(data)
    with opened(home) as platform, working(f"predicting {len(records):,} records"):
        name = _named("deployment", deployment)
        plane = live_data_plane(platform.home)
        answers: list[dict[str, Any]] = []
        wishes: dict[str, bool] = {"explain": True, "approximate": approximate} if explain else {}
        at_once = (10 if approximate else 100) if explain else _ROWS_A_REQUEST
        for start in range(0, len(records), at_once):
            part = records[start : start + at_once]
            if plane is not None:
                answers += _ask(plane.address, name, part, key, wishes)
            else:
                answers += platform.predict(name, part, key, **wishes)
        if plane is None:
            platform.engine.close()
    if json:
        emit({"items": answers, "next": None})
        return
    for answer in answers:
        outputs = "  ".join(f"{output} {_figure(value)}" for output, value in answer["outputs"].items())
        say(f"{outputs}  ({answer['version']}, {answer['id']})")
        if "explanation" in answer:
            _tell(answer["explanation"])


@app.command(name="explain")
def explain_prediction(
    prediction: Annotated[str, typer.Argument(help="A prediction's id.")],
    approximate: Annotated[
        bool, typer.Option("--approximate", help="Sample the explanation of a model that has no exact one.")
    ] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Say what each input did for a logged prediction, from its log row and the model that answered it."""
    id = prediction.removeprefix("prediction/")
    with opened(home) as platform, working("explaining"):
        found = platform.explanation(id, approximate)
    emit(found) if json else _tell(found)


@app.command()
def label(
    deployment: Annotated[str, typer.Argument(help="A deployment.")],
    prediction: Annotated[str, typer.Argument(help='A prediction\'s id; or a file, or -, of {"id": …, "label": …}.')],
    value: Annotated[str | None, typer.Argument(help="The truth: a number, true, false or a text.")] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Tell the truth of predictions, now that it is known."""
    if value is not None:
        pairs = [(prediction, _value(value))]
    else:
        pairs = []
        for number, record in enumerate(_records(prediction), start=1):
            if not isinstance(record, dict) or set(record) != {"id", "label"}:
                raise InvalidInput(f'label {number} is not {{"id": …, "label": …}}; nothing was written')
            pairs.append((record["id"], record["label"]))
    with opened(home) as platform, working("writing labels"):
        platform.resource(f"deployment/{_named('deployment', deployment)}")
        count = platform.label(pairs)
    emit({"labelled": count}) if json else say(f"{count:,} labels written")


@app.command()
def approve(
    version: Annotated[str, typer.Argument(help="A model version: late@2; without a number, the newest.")],
    home: Home = None,
    json: Json = False,
) -> None:
    """Agree to a model version that waits for a person."""
    with opened(home) as platform:
        found = platform.approve(reference(version if "/" in version else f"model/{version}"))
    if json:
        from flyball.wire.native.values import version_value

        emit(version_value(found))
    else:
        say(f"{found.ref.short} is approved")


@app.command()
def rollback(
    deployment: Annotated[str, typer.Argument(help="A deployment; model/late: by the model, stage and all.")],
    home: Home = None,
    json: Json = False,
) -> None:
    """Send a deployment back to the champion before. A rollout that goes on is ended first."""
    with opened(home) as platform:
        found = reference(deployment if "/" in deployment else f"deployment/{deployment}")
        if not found.startswith(("deployment/", "model/")):
            raise WrongUse(f'"{deployment}" is not a deployment; write it like deployment/late, or model/late')
        serves = platform.rollback(found)
    emit({"serves": serves}) if json else say(f"{serves} serves {found} from now on")


def _named(kind: str, text: str) -> str:
    found = reference(text if "/" in text else f"{kind}/{text}")
    if not found.startswith(f"{kind}/"):
        raise WrongUse(f'"{text}" is not a {kind}; write it like {kind}/late')
    return found.partition("/")[2]


def _records(data: str) -> list[Any]:
    """Return the records in an argument, a file, or stdin: one JSON object, a list of them, or one a line."""
    import orjson

    text, where = data, "the record"
    if data == "-":
        text, where = sys.stdin.read(), "stdin"
    elif data.lstrip()[:1] not in ("{", "["):
        path, where = Path(data), data
        if not path.is_file():
            raise WrongUse(f'{data!r} is neither JSON nor a file; write a record like {{"distance": 1400}}, or -')
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"{path} cannot be read as UTF-8 text: {error}") from None
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if "\n" not in text.strip():
            raise InvalidInput(f"{where} is not JSON: {error}") from None
        found = list(_lines(text, where))
    records = found if isinstance(found, list) else [found]
    if not records:
        raise InvalidInput(f"{where} has no records; expected at least one")
    return records


def _lines(text: str, where: str) -> Iterator[Any]:
    import orjson

    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                yield orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise InvalidInput(f"{where}, line {number}, is not JSON: {error}") from None


def _ask(address: str, name: str, records: list[Any], key: str | None, wishes: dict[str, bool]) -> list[dict[str, Any]]:
    """Ask the data plane over HTTP."""
    from flyball.cli.supervisor import post

    question: dict[str, Any] = {"records": records, **wishes}
    if key is not None:
        question["key"] = key
    answer: list[dict[str, Any]] = post(f"{address}/v1/models/{name}:predict", question)["predictions"]
    return answer


def _tell(explanation: dict[str, Any]) -> None:
    """Print what inputs did, the largest first."""
    of = f" of {explanation['class']}" if "class" in explanation else ""
    say(f"{explanation['output']}{of}, in {explanation['scale']} ({explanation['method'].replace('_', ' ')})")
    rows = [["base", f"{explanation['base']:+.4g}"]]
    done = explanation["contributions"]
    rows += [[name, f"{done[name]:+.4g}"] for name in sorted(done, key=lambda name: -abs(done[name] or 0))]
    table(["input", "did"], [*rows, ["score", f"{explanation['score']:+.4g}"]])


def _value(text: str) -> Any:
    import orjson

    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return found if isinstance(found, bool | int | float | str) else text


def _figure(value: Any) -> str:
    from flyball.web.formats import number_text

    return number_text(value) if isinstance(value, float) else str(value)
