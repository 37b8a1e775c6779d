"""What a check of a table against a contract found: frozen values that turn into JSON.

Made by `checking`, stored with the data version, shown by the command line and the pages.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["ContractReport", "FailKind", "RuleResult", "Severity"]

Severity = Literal["error", "warning"]
FailKind = Literal["none", "rows", "table"]


@dataclass(frozen=True)
class RuleResult:
    """What became of one rule.

    `failed` counts rows and `fraction` is its share of all rows (both 0 for a rule about the whole table, whose
    measured number is `value`). `sample` holds at most the asked number of failing rows, first ones first, each
    `{"row": position from 0, "values": {column: text}}`; values are shortened and classified columns masked.
    """

    id: str
    check: str
    column: str | None
    severity: Severity
    passed: bool
    failed: int
    fraction: float
    value: float | None
    message: str
    sample: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class ContractReport:
    """What became of all rules.

    `rows_failed` counts distinct rows that break at least one row rule of severity error. `fail_kind` says what
    can be done: "rows", splitting those off leaves a good table; "table", the batch as a whole is not as agreed.
    """

    contract: str
    version: str
    rows: int
    rows_failed: int
    results: tuple[RuleResult, ...]
    fail_kind: FailKind

    @property
    def passed(self) -> bool:
        """Whether no rule of severity error failed."""
        return self.fail_kind == "none"

    @property
    def checks(self) -> int:
        """How many rules were checked."""
        return len(self.results)

    @property
    def failures(self) -> tuple[RuleResult, ...]:
        """Failed rules of severity error."""
        return tuple(r for r in self.results if not r.passed and r.severity == "error")

    @property
    def warnings(self) -> tuple[RuleResult, ...]:
        """Failed rules of severity warning."""
        return tuple(r for r in self.results if not r.passed and r.severity == "warning")

    def to_dict(self) -> dict[str, Any]:
        """Return the report as what `json.dumps` takes."""
        document = dataclasses.asdict(self)
        document["results"] = [{**r, "sample": list(r["sample"])} for r in document["results"]]
        return {**document, "passed": self.passed, "checks": self.checks}

    def __str__(self) -> str:
        verdict = "passed" if self.passed else f"failed ({len(self.failures)} of {self.checks} rules)"
        head = f"{self.contract} {self.version}: {verdict}, {self.rows:,} rows, {self.rows_failed:,} failing"
        return "\n".join([head, *(f"  {r.severity}: {r.id}: {r.message}" for r in self.failures + self.warnings)])
