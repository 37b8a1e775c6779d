"""`format` of a text: email, uuid, uri, hostname, ipv4, ipv6, byte (base64).

The patterns accept what the RFC's common form accepts and are no full parsers: email is local@domain.tld, for
instance. Source: ODCS v3.1.0, "Logical type options", `format`; RFC 5321, 4122, 3986, 1123, 4291.
"""

from __future__ import annotations

from collections.abc import Sequence

from flyball.data.checks import RowTest, Table, need_columns, take
from flyball.data.terms import Column, Rule
from flyball.errors import InvalidInput, did_you_mean, listed

_OCTET = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_GROUP = r"[0-9A-Fa-f]{1,4}"
_IPV6 = (
    f"(?:(?:{_GROUP}:){{7}}{_GROUP}|(?:{_GROUP}:){{1,7}}:|:(?::{_GROUP}){{1,7}}|::|"
    + "|".join(f"(?:{_GROUP}:){{1,{7 - n}}}(?::{_GROUP}){{1,{n}}}" for n in range(1, 7))
    + f"|::(?:ffff:)?(?:{_OCTET}\\.){{3}}{_OCTET})"
)
PATTERNS = {
    "email": rf"^[^\s@]{{1,64}}@(?:{_LABEL}\.)+[A-Za-z]{{2,63}}$",
    "uuid": r"^[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$",
    "uri": r"^[A-Za-z][A-Za-z0-9+.-]*:[^\s]+$",
    "hostname": rf"^(?:{_LABEL}\.)*{_LABEL}$",
    "ipv4": rf"^(?:{_OCTET}\.){{3}}{_OCTET}$",
    "ipv6": f"^{_IPV6}$",
    "byte": r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",  # base64, as in OpenAPI
}
_ANY_TEXT = ("password", "binary")  # say how to treat the text, not what it looks like


def validate(rule: Rule, columns: Sequence[Column]) -> None:
    take(rule, ("format",), required=("format",))
    need_columns(rule, [rule.column] if rule.column else [], columns)
    known = [*PATTERNS, *_ANY_TEXT]
    written = str(rule.params["format"])
    if written not in known:
        raise InvalidInput(
            f'{rule.column} has the unknown format "{written}"{did_you_mean(written, known)} '
            f"(known: {listed(known)}); for others use pattern"
        )


def compile(rule: Rule, table: Table) -> RowTest:
    written = str(rule.params["format"])
    if written in _ANY_TEXT:
        return RowTest(None, "")
    text = table.text(str(rule.column))
    return RowTest(~text.str.contains(PATTERNS[written]), f"does not look like {written}")
