"""A filter's text cut into clauses: a side, an operator, another side; joined by AND. `filters` knows what they mean.

The text is hostile: it is read once from left to right, in time linear in its length, without recursion.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from flyball.errors import InvalidInput

__all__ = ["LONGEST", "Clause", "Token", "cut_clauses", "cut_order", "is_quoted", "pieces", "shown", "unquoted"]

LONGEST = 100_000
"""Characters of the longest text that is read."""
MOST = 500
"""Clauses of the longest filter: each costs a look at every run."""

Sort = Literal["name", "odd", "number", "text", "operator", "word", "mark", "list", "nothing"]

_PIECE = r"""(?:[\w$\#@]+|`(?:[^`]|``)*`|"(?:[^"\\]|\\"?|"")*"|'(?:[^'\\]|\\'?|'')*')"""
_TOKEN = re.compile(
    rf"""
    (?P<space>\s+)
    | (?P<comment>--[^\r\n]* | \#[^\r\n]* | /\*)
    | (?P<number>-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    | (?P<name>(?:[\w$@][\w$\#@]*|`(?:[^`]|``)*`|"(?:[^"\\]|\\"?|"")*")(?:\.{_PIECE})*)
    | (?P<text>'(?:[^'\\]|\\'?|'')*')
    | (?P<operator>[<>=~!]+)
    | (?P<mark>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_EACH_PIECE = re.compile(_PIECE)
_ODD = re.compile(r"""[^\s<>=~!,()'"`;]+""")
_WORDS = frozenset({"AND", "OR", "NOT", "IN", "IS", "NULL", "LIKE", "ILIKE", "RLIKE", "BETWEEN", "TRUE", "FALSE"})
_NAMED = 10  # of what is no clause, so many are named
_LIKE = ("LIKE", "ILIKE", "RLIKE")
_SIDES: frozenset[Sort] = frozenset({"name", "odd", "number", "text"})


class Token(NamedTuple):
    """A piece of the text. Of a list, `raw` is all of it and `parts` its pieces between the parentheses."""

    sort: Sort
    raw: str
    parts: tuple[Token, ...] = ()


@dataclass(frozen=True, slots=True)
class Clause:
    """One comparison as written; `operator` in capitals, words of it a space apart."""

    left: Token
    operator: str
    right: Token


def cut_clauses(text: str) -> list[Clause]:
    """Return the clauses of a filter, in its order. AND may be left out, also at either end, as MLflow's parser has it.

    Raises:
        InvalidInput: something in the text is no comparison, or it is too long, blank or holds what no text may hold.
    """
    tokens = _read(text, "filter string")
    if not tokens:
        raise InvalidInput(f"Invalid filter {shown(text)!r}. Could not be parsed.")
    if any(token.raw == ";" for token in tokens[:-1]):
        raise InvalidInput(
            f"Search filter contained multiple expression {shown(text)!r}. Provide AND-ed expression list."
        )
    clauses: list[Clause] = []
    strangers: list[str] = []
    at = 0
    while at < len(tokens) and len(strangers) <= _NAMED:
        clause, after = _clause(tokens, at)
        if clause is not None:
            clauses.append(clause)
        elif not _is_word(tokens, at, "AND"):
            strangers.append(tokens[at].raw)
        at = after
    if strangers:
        listed = ", ".join(f"'{shown(raw)}'" for raw in strangers[:_NAMED]) + (", …" if len(strangers) > _NAMED else "")
        raise InvalidInput(
            f"Invalid clause(s) in filter string: {listed}; expected comparisons such as metrics.a < 0.1, joined by AND"
        )
    if len(clauses) > MOST:
        raise InvalidInput(f"Invalid filter string: it has {len(clauses)} comparisons; expected at most {MOST}")
    return clauses


def cut_order(text: str) -> tuple[Token, bool]:
    """Return the name that `name [ASC|DESC]` orders by, and whether it ascends.

    Raises:
        InvalidInput: the text is not of that form.
    """
    tokens = _read(text, "order_by clause")
    if not tokens or tokens[0].sort != "name" or len(tokens) > 2 or any(t.sort == "mark" for t in tokens):
        raise InvalidInput(
            f"Invalid order_by clause '{shown(text)}'. Could not be parsed. Expected a name, then ASC or DESC."
        )
    direction = tokens[1].raw.upper() if len(tokens) == 2 else "ASC"
    if direction not in ("ASC", "DESC"):
        raise InvalidInput(f"Invalid ordering key in order_by clause '{shown(text)}'. Expected ASC or DESC.")
    return tokens[0], direction == "ASC"


def pieces(token: Token) -> list[str]:
    """Return the parts of a name between its dots, without their quotes; a quote within is written twice."""
    return [unquoted(raw) for raw in _EACH_PIECE.findall(token.raw)]


def is_quoted(token: Token) -> bool:
    """Whether a token is a text in single or double quotes."""
    return token.sort == "text" or (token.sort == "name" and token.raw[0] == '"' and _is_one_piece(token.raw))


def unquoted(raw: str) -> str:
    """Return a text without its quotes; the quote itself is written twice within, a backslash is one."""
    quote = raw[0]
    return raw[1:-1].replace(quote * 2, quote) if quote in "`\"'" else raw


def shown(text: str, limit: int = 200) -> str:
    """Return a text as a message quotes it: its beginning."""
    return text if len(text) <= limit else text[:limit] + "…"


def _read(text: str, what: str) -> list[Token]:
    """Return the text's tokens without the spaces between them."""
    if len(text) > LONGEST:
        raise InvalidInput(f"Invalid {what}: it has {len(text):,} characters; expected at most {LONGEST:,}")
    if "\x00" in text or not _is_encodable(text):
        raise InvalidInput(f"Invalid {what}: it holds a character that no stored text can hold (NUL or half a pair)")
    tokens: list[Token] = []
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        assert found is not None and found.lastgroup is not None  # the last branch matches whatever is there
        sort: str = found.lastgroup
        raw, at = found[0], found.end()
        if sort == "space":
            continue
        if sort == "name":
            rest = _ODD.match(text, at) if raw[-1] not in "`\"'" else None
            if rest is not None:  # params.a-b: a key that should stand in backquotes
                raw, at, sort = raw + rest[0], rest.end(), "odd"
            elif raw.upper() in _WORDS:
                sort = "word"
        elif sort == "comment":
            sort = "mark"
        tokens.append(Token(sort, raw))  # type: ignore[arg-type]
    return tokens


def _is_one_piece(raw: str) -> bool:
    return _EACH_PIECE.fullmatch(raw) is not None


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _clause(tokens: Sequence[Token], at: int) -> tuple[Clause | None, int]:
    """Return the clause that begins at a token and where the next one may begin; None: none begins there."""
    left = tokens[at]
    if left.sort not in _SIDES:
        return None, at + 1
    operator, after = _operator(tokens, at + 1)
    if operator is None:
        return None, at + 1
    if operator in ("IS NULL", "IS NOT NULL"):
        return Clause(left, operator, Token("nothing", "")), after
    if after >= len(tokens):
        return None, at + 1
    right = tokens[after]
    if right.raw == "(":
        listed, after = _list(tokens, after)
        return (Clause(left, operator, listed), after) if listed is not None else (None, at + 1)
    if operator in ("IN", "NOT IN") or not (right.sort in _SIDES or right.raw.upper() == "NULL"):
        return None, at + 1
    further, _ = _operator(tokens, after + 1)
    if further is not None:  # a < b < c: the left side is itself a comparison
        return Clause(Token("odd", f"{left.raw} {operator} {right.raw}"), further, right), len(tokens)
    return Clause(left, operator, right), after + 1


def _operator(tokens: Sequence[Token], at: int) -> tuple[str | None, int]:
    """Return the operator at a token, and the token after it."""
    if at >= len(tokens):
        return None, at
    token = tokens[at]
    if token.sort == "operator":
        return token.raw, at + 1
    if token.sort != "word":
        return None, at
    if token.raw.upper() in ("IN", *_LIKE):
        return token.raw.upper(), at + 1
    if _is_word(tokens, at, "NOT") and _is_word(tokens, at + 1, "IN", *_LIKE):
        return f"NOT {tokens[at + 1].raw.upper()}", at + 2
    if _is_word(tokens, at, "IS"):
        if _is_word(tokens, at + 1, "NULL"):
            return "IS NULL", at + 2
        if _is_word(tokens, at + 1, "NOT") and _is_word(tokens, at + 2, "NULL"):
            return "IS NOT NULL", at + 3
    return None, at


def _list(tokens: Sequence[Token], at: int) -> tuple[Token | None, int]:
    """Return the list whose parenthesis opens at a token, and the token after it; None: it is none, or not closed."""
    end = at + 1
    while end < len(tokens) and (tokens[end].sort in _SIDES or tokens[end].raw == ","):
        end += 1
    if end == len(tokens) or tokens[end].raw != ")":
        return None, at + 1
    return Token("list", " ".join(t.raw for t in tokens[at : end + 1]), tuple(tokens[at + 1 : end])), end + 1


def _is_word(tokens: Sequence[Token], at: int, *words: str) -> bool:
    return at < len(tokens) and tokens[at].sort == "word" and tokens[at].raw.upper() in words
