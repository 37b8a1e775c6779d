"""SQL over data sets in which models answer: `SELECT *, predict('late', distance, hour) AS p FROM flights`.

`predict` and `anomaly` are not functions of one type, for what a model takes and gives is its own. So a query is read
(by DuckDB itself, to a tree), each call is replaced by the function of its model, made for this query and typed by the
signature, and what comes of it is run. Arguments stand in the order of the model's inputs, or by name, `hour := h + 1`.
Columns that are called like inputs find their own place, whatever their order; a call without arguments takes the
columns of the inputs' names.

A query reads the tables that it is given and nothing else: no files, no network, no extension, no setting.
"""

from __future__ import annotations

import inspect
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from flyball.errors import FlyballError, InvalidInput, MissingExtra, did_you_mean, listed
from flyball.models.fields import Field

__all__ = ["FUNCTIONS", "Function", "Query", "Table", "run"]

FUNCTIONS = ("predict", "anomaly")
Table = Sequence[Path] | pl.LazyFrame

_TYPES: Mapping[str, str] = {
    "bool": "BOOLEAN",
    "int64": "BIGINT",
    "float64": "DOUBLE",
    "string": "VARCHAR",
    "datetime": "TIMESTAMP",
}
_CLOSED: Mapping[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "python_enable_replacements": "false",  # a table is never a variable of whoever calls
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}
_ROW = re.compile(r"(?: in)? row \d+(?::)?")


@dataclass(frozen=True)
class Function:
    """A model as a function of columns.

    Attributes:
        subject: how messages call it, like `predict('late')`.
        inputs: its arguments, in order.
        outputs: one: the function's value; several: fields of its value.
        answer: a frame of the inputs → a frame of the outputs, a row each.
    """

    subject: str
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    answer: Callable[[pl.DataFrame], pl.DataFrame]


@dataclass(frozen=True)
class Query:
    """Where a query finds what it names.

    Attributes:
        table: the data set of a name, as files or rows; None: there is none.
        names: of the data sets, for "did you mean".
        function: (`predict` or `anomaly`, the model's name) → the function. Raises NotFound.
        is_open: whether files and the network may be read.
    """

    table: Callable[[str], Table | None]
    names: Callable[[], Sequence[str]]
    function: Callable[[str, str], Function]
    is_open: bool = False


def run(sql: str, query: Query) -> pl.DataFrame:
    """Return the rows of a query. Their order is what its ORDER BY says, and without one any.

    Raises:
        InvalidInput: not a single SELECT, wrong SQL, or arguments that a model cannot take.
        NotFound: a table is no data set, or there is no such model.
        StepFailed: a model failed.
        MissingExtra: DuckDB is not installed.
    """
    try:
        import duckdb
        import pyarrow.dataset as datasets
    except ImportError as error:
        raise MissingExtra("duckdb and pyarrow", "lake", "SQL over data sets") from error
    failures: list[FlyballError] = []
    with (
        tempfile.TemporaryDirectory(prefix="flyball-sql-") as folder,
        closing(duckdb.connect(":memory:", config={} if query.is_open else dict(_CLOSED))) as connection,
    ):
        tree = _parsed(connection, sql)
        _register(connection, tree, query, Path(folder), datasets)
        text = _with_functions(connection, tree, query, failures, duckdb)
        if not query.is_open:
            connection.execute("SET lock_configuration = true")
        try:
            found = connection.sql(text).to_arrow_table()
        except duckdb.Error as error:
            if failures:
                raise failures[0] from error
            raise InvalidInput(f"the query cannot be run: {_sentence(error)}") from error
    frame = pl.from_arrow(found)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _parsed(connection: Any, sql: str) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(_value(connection, "SELECT json_serialize_sql(?)", sql))
    if tree.get("error"):
        raise InvalidInput(f"the query cannot be read: {tree.get('error_message', 'it is no SELECT')}")
    if len(tree["statements"]) != 1:
        raise InvalidInput(f"there are {len(tree['statements'])} statements; expected one SELECT")
    return tree


def _register(connection: Any, tree: dict[str, Any], query: Query, folder: Path, datasets: Any) -> None:
    """Give the connection the data sets that the query names."""
    own = {
        str(entry["key"]).lower()
        for node in _nodes(tree)
        for entry in (node.get("cte_map") or {}).get("map", [])
        if isinstance(node.get("cte_map"), dict)
    }
    done: set[str] = set()
    for node in _nodes(tree):
        if node.get("type") != "BASE_TABLE" or node.get("schema_name") or node.get("catalog_name"):
            continue
        name = str(node["table_name"])
        if name in done:
            continue
        table = query.table(name)
        if table is None:
            if name.lower() in own or query.is_open:
                continue
            names = query.names()
            raise InvalidInput(
                f'the query reads "{name}", which is no data set{did_you_mean(name, names)} (there are {listed(names)})'
            )
        done.add(name)
        paths = table
        if isinstance(table, pl.LazyFrame):
            path = folder / f"{len(done)}.parquet"
            table.sink_parquet(path)
            paths = [path]
        assert not isinstance(paths, pl.LazyFrame)
        connection.register(name, datasets.dataset([str(path) for path in paths], format="parquet"))


def _with_functions(
    connection: Any, tree: dict[str, Any], query: Query, failures: list[FlyballError], duckdb: Any
) -> str:
    """Return the query with each call in the form of its model's own function, which the connection has then."""
    known: dict[tuple[str, str], Function] = {}
    for node in list(_nodes(tree)):
        if node.get("class") != "FUNCTION" or node.get("function_name") not in FUNCTIONS or node.get("schema"):
            continue
        word = str(node["function_name"])
        given = _arguments(node)
        target = _text(given[0][1]) if given else None
        if target is None:
            raise InvalidInput(f"the first argument of {word} is the model's name as a text: {word}('late', distance)")
        if (word, target) not in known:
            known[word, target] = made = query.function(word, target)
            _create(connection, f"{word} {target}", made, failures, duckdb)
        function = known[word, target]
        _set_call(node, f"{word} {target}", _placed(function, given[1:]))
    return _value(connection, "SELECT json_deserialize_sql(?::JSON)", json.dumps(tree))


def _create(connection: Any, name: str, function: Function, failures: list[FlyballError], duckdb: Any) -> None:
    for field in (*function.inputs, *function.outputs):
        if field.shape is not None:
            raise InvalidInput(f'{function.subject}: "{field.name}" is a tensor, which SQL has no value for')
    if not function.inputs or not function.outputs:
        raise InvalidInput(f"{function.subject} has no inputs or outputs that SQL could name")

    def answer(*columns: Any) -> Any:
        series = [
            pl.Series(field.name, pl.from_arrow(column)) for field, column in zip(function.inputs, columns, strict=True)
        ]
        try:
            found = function.answer(pl.DataFrame(series))
        except FlyballError as error:
            told = type(error)(_ROW.sub("", str(error)))
            failures.append(told)
            raise told from error
        whole = found.to_series() if len(function.outputs) == 1 else found.to_struct("answer")
        return whole.to_arrow()

    # DuckDB counts the parameters that Python tells of.
    answer.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(f"x{at}", inspect.Parameter.POSITIONAL_ONLY) for at in range(len(function.inputs))]
    )
    outputs = {field.name: _TYPES[field.dtype] for field in function.outputs}
    connection.create_function(
        name,
        answer,
        [_TYPES[field.dtype] for field in function.inputs],
        duckdb.struct_type(outputs) if len(outputs) > 1 else next(iter(outputs.values())),
        type="arrow",
        null_handling="special",
    )


def _placed(function: Function, given: Sequence[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return a call's arguments in the order of the inputs. Raises InvalidInput: too many, too few, or unknown."""
    names = [field.name for field in function.inputs]
    if not given:
        return [_column(name) for name in names]
    bare = [name or _column_name(node) for name, node in given]
    if sorted(filter(None, bare)) == sorted(names) and len(bare) == len(names):
        return [given[bare.index(name)][1] for name in names]
    named = [name for name, _ in given if name]
    for name in named:
        if name not in names:
            raise InvalidInput(
                f'{function.subject} has no input "{name}"{did_you_mean(name, names)} (known: {listed(names)})'
            )
    if named:
        missing = [name for name in names if name not in named]
        raise InvalidInput(
            f"{function.subject} takes {listed(names)}; "
            + (f"{listed(missing)} is missing" if len(named) == len(given) else "name all arguments or none")
        )
    if len(given) != len(names):
        raise InvalidInput(
            f"{function.subject} takes {len(names)} values, {listed(names)}, in this order or by name; "
            f"given are {len(given)}"
        )
    return [node for _, node in given]


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of a tree, the outer before the inner."""
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


# The tree's form: DuckDB 2 keeps a function's `arguments` with names, DuckDB 1 its `children`, named by their alias.


def _arguments(node: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    if "arguments" in node:
        return [(str(one["name"]), one["expression"]) for one in node["arguments"]]
    return [(str(one.get("alias", "")), one) for one in node.get("children", [])]


def _set_call(node: dict[str, Any], name: str, arguments: Sequence[dict[str, Any]]) -> None:
    plain = [{**argument, "alias": ""} for argument in arguments]
    node["function_name"] = name
    if "arguments" in node:
        node["arguments"] = [{"name": "", "expression": argument} for argument in plain]
        node["qualified_name"] = {"path": [name]}
    else:
        node["children"] = plain


def _text(node: Mapping[str, Any]) -> str | None:
    """Return the text that a constant is; None where it is something else."""
    if node.get("class") != "CONSTANT":
        return None
    if isinstance(literal := node.get("literal"), dict):
        return str(literal["text"]) if literal.get("kind") == "STRING" else None
    value = node.get("value") or {}
    return value["value"] if isinstance(value.get("value"), str) else None


def _column_name(node: Mapping[str, Any]) -> str | None:
    """Return the name of a bare column, like `hour` or `f.hour`; None of any other expression."""
    names = node.get("column_names")
    return str(names[-1]) if node.get("class") == "COLUMN_REF" and names else None


def _column(name: str) -> dict[str, Any]:
    return {"class": "COLUMN_REF", "type": "COLUMN_REF", "alias": "", "query_location": 0, "column_names": [name]}


def _value(connection: Any, sql: str, parameter: str) -> str:
    return str(connection.execute(sql, [parameter]).fetchall()[0][0])


def _sentence(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:400]
