"""`type: sql`: a SELECT that returns one number, compared with the rule's `mustBe…`.

It runs in Polars SQL over the converted table, which is there under the name of the schema object and of its
physical name; `${table}`, `{table}` and `${column}`, `{column}` are replaced. One SELECT, nothing that reads files.
Source: ODCS v3.1.0, "Data quality", "SQL".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from flyball.data.checks import QueryTest, Table, Verdict, take
from flyball.data.terms import Column, Rule
from flyball.errors import InvalidInput

_STATEMENT = re.compile(r"\s*(select|with)\b", re.IGNORECASE)
_READS_FILES = re.compile(r"\b(read|scan)_\w+\s*\(", re.IGNORECASE)
_QUOTED = re.compile(r"'(?:[^']|'')*'")


def validate(rule: Rule, columns: Sequence[Column]) -> None:  # noqa: ARG001 - known with the data
    import polars as pl

    take(rule, ("query", "column"), required=("query",))
    query = str(rule.params["query"]).strip().rstrip(";")
    bare = _QUOTED.sub("''", query)
    if not _STATEMENT.match(bare) or ";" in bare:
        raise InvalidInput(f"the query of {rule.id} is not a single SELECT: {query[:80]!r}")
    if _READS_FILES.search(bare):
        raise InvalidInput(f"the query of {rule.id} reads a file; it may only read the table of the contract")
    if rule.params.get("column") is None and "column}" in query:
        raise InvalidInput(f"the query of {rule.id} speaks of {{column}}, but the rule belongs to the table")
    try:
        pl.SQLContext().execute(_filled(query, rule, "the_table"))
    except pl.exceptions.PolarsError as error:
        # Tables and columns are only known when data is there; what cannot be parsed never will be.
        if "parser error" in str(error):
            raise InvalidInput(f"the query of {rule.id} is not SQL: {str(error).splitlines()[0]}") from None


def compile(rule: Rule, table: Table) -> QueryTest:
    bounds = rule.bounds
    assert bounds is not None
    names = table.contract.table_names or (table.contract.schema_name,)
    query = _filled(str(rule.params["query"]).strip().rstrip(";"), rule, names[0])

    def run(lazy: pl.LazyFrame) -> pl.LazyFrame:  # type: ignore[name-defined]  # noqa: F821
        import polars as pl

        return pl.SQLContext(dict.fromkeys(names, lazy), register_globals=False).execute(query)

    def verdict(value: float) -> Verdict:
        return Verdict(bounds.holds(value), value, f"the query returned {value:g}; expected {bounds}")

    return QueryTest(run, verdict)


def _filled(query: str, rule: Rule, table: str) -> str:
    words = {
        "table": table,
        "object": table,
        "column": rule.params.get("column"),
        "property": rule.params.get("column"),
    }
    return re.sub(r"\$?\{(table|object|column|property)\}", lambda m: f'"{words[m[1]]}"', query)
