"""Data contracts on the command line: propose one, check data against one, compare two, read one.

Data is a path or glob, or a dataset of the home: `dataset/flights` or `dataset/flights@3`. What a contract refers to
(`relationships`) is looked for among the home's datasets.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flyball.cli.app import Home, Json, WrongUse, app, opened
from flyball.cli.show import emit, note, say, state, table, working, yaml_text
from flyball.errors import InvalidInput

if TYPE_CHECKING:
    import polars as pl

    from flyball.data.checks import Resolve
    from flyball.data.reports import ContractReport, RuleResult
    from flyball.data.terms import Contract, Rule

contract = typer.Typer(help="Data contracts: infer, check, diff, show.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(contract, name="contract")

Data = Annotated[str, typer.Argument(metavar="DATA", help="A path or glob, or dataset/NAME[@VERSION].")]
File = Annotated[Path, typer.Argument(metavar="CONTRACT", help="An ODCS document.")]
Schema = Annotated[str | None, typer.Option("--schema", metavar="NAME", help="Which table, where it has several.")]


@contract.command()
def infer(
    data: Data,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it there.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Of the contract; default: as the data is named.")] = None,
    text: Annotated[bool, typer.Option("--text", help="Read every column of files as text.")] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Propose a contract from data. It is a draft: read it, tighten it, keep it beside the code."""
    from flyball.data.contracts import read_contract
    from flyball.data.inference import infer_contract

    if output is not None and output.exists():
        raise InvalidInput(f"{output} is there already; remove it or name another file")
    with _rows(data, home, text=text) as (frame, _), working(f"looking at {data}"):
        document = infer_contract(frame, name or _name_of(data))
    rules = len(read_contract(document).rules)
    if output is not None:
        output.write_text(yaml_text(document) + "\n", encoding="utf-8")
        note(f"wrote {output}: {rules} rules")
    if json:
        emit(document)
    elif output is None:
        say(yaml_text(document))


@contract.command()
def check(
    file: File,
    data: Data,
    schema: Schema = None,
    sample: Annotated[int, typer.Option("--sample", min=0, max=100, help="Failing rows to show of each rule.")] = 3,
    every: Annotated[bool, typer.Option("--all", help="Show the rules that passed too.")] = False,
    text: Annotated[bool, typer.Option("--text", help="Read every column of files as text.")] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Check data against a contract: rule, rows checked, rows failed, samples. Exit code 1 when it fails."""
    from flyball.data.checking import check as check_rows
    from flyball.data.contracts import read_contract

    rules = read_contract(file, schema)
    with _rows(data, home, rules, text=text) as (frame, resolve), working(f"checking {data}"):
        report = check_rows(frame, rules, sample=sample, resolve=resolve)
    if json:
        emit(report.to_dict())
    else:
        _print(report, every)
    if not report.passed:
        raise typer.Exit(1)


@contract.command()
def diff(
    old: Annotated[Path, typer.Argument(help="The contract as it was.")],
    new: Annotated[Path, typer.Argument(help="The contract as it is to be.")],
    schema: Schema = None,
    json: Json = False,
) -> None:
    """List what changed between two versions. Exit code 1 when the version number does not say so."""
    from flyball.data.contracts import read_contract
    from flyball.data.evolution import changes, check_version

    before, after = read_contract(old, schema), read_contract(new, schema)
    found = changes(before, after)
    refused = ""
    try:
        check_version(before, after)
    except InvalidInput as error:
        refused = str(error)
    if json:
        items = [change.to_dict() for change in found]
        emit({"old": before.version, "new": after.version, "changes": items, "refused": refused or None})
    else:
        rows = [(state("breaking" if c.is_breaking else "compatible"), c.subject, c.what) for c in found]
        table(("change", "of", "what"), rows, empty="both mean the same")
    if refused:
        if not json:
            note(f"refused: {refused}")
        raise typer.Exit(1)


@contract.command()
def show(file: File, schema: Schema = None, json: Json = False) -> None:
    """Show the rules that a contract makes, and what it states that is not enforced."""
    from flyball.data.contracts import read_contract

    rules = read_contract(file, schema)
    if json:
        items = [{"id": r.id, "check": r.check, "column": r.column, "severity": r.severity,
                  "limit": _limit(r), "description": r.description} for r in rules.rules]  # fmt: skip
        emit({"name": rules.name, "version": rules.version, "schema": rules.schema_name, "rules": items,
              "unenforced": list(rules.unenforced)})  # fmt: skip
        return
    say(f"{rules.name} {rules.version}, {rules.schema_name}: {len(rules.columns)} columns, {len(rules.rules)} rules")
    table(("rule", "severity", "limit"), [(r.id, r.severity, _limit(r)) for r in rules.rules])
    for unenforced in rules.unenforced:
        note(f"not enforced: {unenforced}")


@contextlib.contextmanager
def _rows(
    data: str, home: Path | None, rules: Contract | None = None, *, text: bool = False
) -> Iterator[tuple[pl.LazyFrame, Resolve | None]]:
    """Open the rows that an argument names, and what finds the datasets that a contract refers to."""
    from flyball.data.sources import open_source

    is_dataset = data.startswith("dataset/")
    if is_dataset and text:
        raise WrongUse("--text is for files; the columns of a dataset have their types")
    needs_home = is_dataset or (rules is not None and any(r.check == "reference" for r in rules.rules))
    with opened(home) if needs_home else contextlib.nullcontext() as platform:
        resolve = platform.frame if platform is not None else None
        if is_dataset and platform is not None:
            yield platform.frame(data), resolve
            return
        strings = rules.string_columns if rules is not None else ()
        yield open_source(data, as_text=True) if text else open_source(data, string_columns=strings), resolve


def _name_of(data: str) -> str:
    import re

    if data.startswith("dataset/"):
        return data.removeprefix("dataset/").partition("@")[0]
    stem = Path(data).name.partition(".")[0]
    return re.sub(r"[^A-Za-z0-9_]+", "_", stem).strip("_") or "table"


def _print(report: ContractReport, every: bool) -> None:
    shown = [r for r in report.results if every or not r.passed]
    rows = [(state(_word(r)), r.id, f"{report.rows:,}", f"{r.failed:,}" if r.failed else "", _told(r)) for r in shown]
    verdict = "passed" if report.passed else "failed"
    say(f"{report.contract} {report.version} {verdict}: {report.checks} rules, {report.rows:,} rows, "
        f"{report.rows_failed:,} failing")  # fmt: skip
    if rows:
        table(("", "rule", "checked", "failed", "samples"), rows)


def _word(result: RuleResult) -> str:
    if result.passed:
        return "passed"
    return "failed" if result.severity == "error" else "warning"


def _told(result: RuleResult) -> str:
    """Return sample rows in a few words, or what a rule about the table measured."""
    if not result.sample:
        return result.message
    told = []
    for kept in result.sample:
        values = dict(list(kept["values"].items())[:2]) if result.column is None else kept["values"]
        name = result.column if result.column in values else next(iter(values), None)
        told.append(f"row {kept['row']}: {name} = {values.get(name)!r}" if name else f"row {kept['row']}")
    return "; ".join(told)


def _limit(rule: Rule) -> str:
    shown = {k: v for k, v in rule.params.items() if v is not None and k not in ("logical",)}
    if rule.check == "type":
        shown = {"": rule.params.get("logical") or "any", **({"format": f} if (f := rule.params.get("format")) else {})}
    words = [f"{name} {_value(value)}".strip() for name, value in shown.items()]
    return ", ".join([*words, *([str(rule.bounds)] if rule.bounds else [])])


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value[:6])) + (f" and {len(value) - 6} more" if len(value) > 6 else "")
    return str(value)
