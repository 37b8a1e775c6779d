"""Write docs/reference.md from the code: kinds, settings, commands, Python names, plug-ins, who may do what.

    python scripts/reference.py           write it
    python scripts/reference.py --check   exit 1 when it is not up to date

Whatever is declared in code gets its entry here without anybody thinking of it; tests/test_docs.py holds it.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference.md"

# Families of plug-ins (see flyball/plugins.py): package → what its name is written in.
FAMILIES = {
    "flyball.models.flavors": ("Model flavours", "what can be registered; found by the model itself"),
    "flyball.data.sources": ("Sources", "where a Dataset's own rows come from, found by the scheme of what is named"),
    "flyball.data.checks": ("Contract checks", "what the rules of a data contract come down to"),
    "flyball.rollouts": ("Rollout strategies", "`rollout: {strategy: …}` of a Deployment"),
}


def main() -> int:
    """Write the page, or compare it with what would be written."""
    text = page()
    if "--check" in sys.argv[1:]:
        return 0 if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text else 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


def page() -> str:
    """Return the reference as Markdown."""
    parts = ["# Reference\n\nWritten from the code by `scripts/reference.py`; change the code, not this page.\n"]
    parts += [
        "## Kinds\n\nWhat can stand in `flyball.yaml`. Every document has a `kind`, a `name` and perhaps `labels`."
    ]
    parts += kinds()
    parts += [
        "## Settings\n\n`flyball.toml` in the home has a table for each room; an environment variable wins over it, "
        "for example `FLYBALL_CONTROL_WORKERS` over `workers` in `[control]`."
    ]
    parts += settings()
    parts += ["## Commands\n\n`flyball COMMAND --help` says the same."]
    parts += commands()
    parts += ["## Python\n\n`import flyball as fb`; each has a docstring with its arguments and errors.\n\n" + names()]
    parts += ["## Plug-ins\n\nA file in the family's folder, or an entry point `flyball.<family>` of another package."]
    parts += plugins()
    parts += ["## Metrics\n\n" + metrics()]
    parts += ["## Drift tests\n\n" + drift_tests()]
    parts += ["## Who may do what\n\n" + roles()]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def kinds() -> Iterator[str]:
    """Yield a section for each kind, with the fields of its spec."""
    from flyball.ledger.kinds import all_kinds
    from flyball.platform import KIND_MODULES

    for module in KIND_MODULES:
        importlib.import_module(module)
    for kind in all_kinds():
        if not kind.spec.__module__.endswith(".kinds"):
            continue  # a kind that only tests have
        yield f"### {kind.title}\n\n{_first(kind.spec)}\n\n{_fields(kind.spec)}"


def settings() -> Iterator[str]:
    """Yield a section for each room's settings: the fields with the comments that stand behind them."""
    for path in sorted((ROOT / "flyball").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for node in ast.parse(text).body:
            room = re.match(r"`\[(\w+)\]`", ast.get_docstring(node) or "") if isinstance(node, ast.ClassDef) else None
            if room is None or not isinstance(node, ast.ClassDef):
                continue
            rows = [_setting(line) for line in _field_lines(text, node)]
            table = _table(["key", "type", "default", "meaning"], rows)
            yield f"### [{room[1]}]\n\n{table}"


def commands() -> Iterator[str]:
    """Yield a section for each command with its arguments and options."""
    import typer

    from flyball.cli import app

    yield from _commands(typer.main.get_command(app), "flyball")


def names() -> str:
    """Return the table of public Python names."""
    import flyball

    rows = []
    for name in flyball.__all__:
        found = getattr(flyball, name)
        if not name.startswith("__"):
            call = f"{name}{_signature(found)}" if inspect.isfunction(found) else name
            rows.append([f"`fb.{call}`", _first(found)])
    return _table(["name", "what it is"], rows)


def plugins() -> Iterator[str]:
    """Yield a section for each family with the names that are built in."""
    from flyball import plugins as found

    for package, (title, how) in FAMILIES.items():
        rows = [[f"`{name}`", _first(found.find(package, name))] for name in found.names(package)]
        yield f"### {title}\n\n{how[0].upper()}{how[1:]}.\n\n" + _table(["name", "what it is"], rows)


def metrics() -> str:
    """Return the table of metrics."""
    from flyball.stats.metrics import metrics_for

    rows: dict[str, list[str]] = {}
    for task in ("binary", "multiclass", "regression"):
        for found in metrics_for(task):
            tasks = [*rows.get(found.name, ["", ""])[1].split(", "), task]
            better = "higher" if found.higher_is_better else "lower"
            rows[found.name] = [f"`{found.name}`", ", ".join(t for t in tasks if t), better]
    return _table(["name", "task", "better when"], list(rows.values()))


def drift_tests() -> str:
    """Return the table that the module of the tests has in its docstring."""
    from flyball.stats import drift

    return "\n".join(line for line in inspect.getdoc(drift).splitlines() if line.startswith("|"))  # type: ignore[union-attr]


def roles() -> str:
    """Return the table of acts and the lowest role that may do each."""
    from flyball.governance.identity import ROLES
    from flyball.platform import MAY

    rows = [
        [role, ", ".join(sorted(act for act, least in MAY.items() if least == role)) or "all of it"] for role in ROLES
    ]
    return _table(["role", "may also"], rows)


def _fields(model: type[BaseModel], prefix: str = "") -> str:
    return _table(["field", "type", "default", "meaning"], list(_field_rows(model, prefix)))


def _field_rows(model: type[BaseModel], prefix: str) -> Iterator[list[str]]:
    for name, info in model.model_fields.items():
        inner = [m for m in _models_in(info.annotation) if m is not model]
        yield [
            f"`{prefix}{name}`",
            _type(info),
            _default(info),
            info.description or (_first(inner[0]) if inner else ""),
        ]
        for nested in inner:
            dot = "[]." if "list[" in str(info.annotation) else "."
            yield from _field_rows(nested, f"{prefix}{name}{dot}")


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in typing.get_args(annotation) for model in _models_in(inner)]


def _type(info: FieldInfo) -> str:
    from flyball.ledger.kinds import RefersTo

    marks = [m for m in info.metadata if isinstance(m, RefersTo)]
    text = f"reference to {marks[0].kind}" if marks and marks[0].kind != "*" else _words(info.annotation)
    bounds = [
        f"{sign} {getattr(m, name):g}"
        for m in info.metadata
        for name, sign in _BOUNDS
        if getattr(m, name, None) is not None
    ]
    return ", ".join([text, *bounds])


_BOUNDS = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))


def _words(annotation: Any) -> str:
    from flyball.ledger.kinds import RefersTo

    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " or ".join(str(arg) for arg in args)
    if origin is typing.Annotated:
        marks = [m for m in args[1:] if isinstance(m, RefersTo)]
        return f"reference to {'anything' if marks[0].kind == '*' else marks[0].kind}" if marks else _words(args[0])
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_words(arg) for arg in args if arg is not type(None))
    if origin is list:
        return f"list of {_words(args[0])}"
    if origin is dict:
        return "mapping"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "fields"
    return {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}.get(
        getattr(annotation, "__name__", ""), "any"
    )


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "**needed**"
    value = info.get_default(call_default_factory=True)
    if value is PydanticUndefined or value is None or isinstance(value, BaseModel) or value in ("", [], {}):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _field_lines(text: str, node: ast.ClassDef) -> Iterator[str]:
    lines = text.splitlines()
    for item in node.body:
        if isinstance(item, ast.AnnAssign):
            yield lines[item.lineno - 1].strip()


def _setting(line: str) -> list[str]:
    found = re.fullmatch(r"(\w+): ([^=]+?) = (.+?)(?:  # (.+))?", line)
    assert found, f"a setting needs a type, a default and a comment: {line}"
    return [f"`{found[1]}`", found[2], f"`{found[3]}`", found[4] or ""]


def _commands(command: Any, path: str) -> Iterator[str]:
    for name, found in sorted(getattr(command, "commands", {}).items()):
        if found.hidden:
            continue
        if hasattr(found, "commands"):
            yield from _commands(found, f"{path} {name}")
            continue
        rows = []
        for parameter in found.params:
            shown = ", ".join(parameter.opts) if parameter.param_type_name == "option" else parameter.name.upper()
            if "--help" not in shown and not getattr(parameter, "hidden", False):
                rows.append([f"`{shown}`", getattr(parameter, "help", None) or ""])
        help_text = inspect.cleandoc(found.help or "").split("\n\n")[0].replace("\n", " ")
        table = "\n\n" + _table(["argument", "meaning"], rows) if rows else ""
        yield f"### {path} {name}\n\n{help_text}{table}"


def _signature(function: Any) -> str:
    return (
        "("
        + ", ".join(
            p.name if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) else str(p).split(":")[0]
            for p in inspect.signature(function).parameters.values()
        )
        + ")"
    )


def _first(subject: Any) -> str:
    """Return the first paragraph of a docstring, in one line."""
    paragraph = (inspect.getdoc(subject) or "").split("\n\n")[0]
    return " ".join(line.strip() for line in paragraph.splitlines())


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(["| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *lines])


if __name__ == "__main__":
    sys.exit(main())
