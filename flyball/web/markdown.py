"""Markdown that people wrote, as HTML that is safe to show: text is escaped first, then the few marks become elements.

Headings, paragraphs, lists, tables, quotes, code, bold, italics and links to http(s) addresses or pages here. No HTML
of the author's and no images: an image would tell another host who reads. Linear in the text's length.

Source: CommonMark 0.31 §2.4, §2.5 (escapes, entities); GitHub Flavored Markdown §4.10 (tables).
"""

from __future__ import annotations

import re

from markupsafe import Markup, escape

__all__ = ["html_of"]

_LONGEST = 50_000
_LIST = re.compile(r"^\s{0,8}(?:[-*+]|\d{1,9}[.)])\s+(.*)$")
_ROW = re.compile(r"^\s{0,3}\|.*\|\s*$")
_RULE = re.compile(r"^\s{0,3}\|(?:\s*:?-+:?\s*\|)+\s*$")
_CELL = re.compile(r"((?:\\.|[^\\|])*)\|")
_MEANT = re.compile(r"\\(?P<mark>[!-/:-@\[-`{-~])|&(?P<entity>lt|gt|amp|quot);")
_ENTITIES = {"lt": "<", "gt": ">", "amp": "&", "quot": '"'}
_INLINE = re.compile(
    r"\\(?P<escaped>[!-/:-@\[-`{-~])"
    r"|`(?P<code>[^`\n]{1,500})`"
    r"|\*\*(?P<bold>[^*\n]{1,500})\*\*"
    r"|\*(?P<italic>[^*\s][^*\n]{0,500})\*"
    r"|\[(?P<label>[^\]\n]{1,300})\]\((?P<url>(?:https?://|/(?!/))[^\s()\"'<>\\]{0,1000})\)"
)


def html_of(text: str) -> Markup:
    """Return a text's HTML; of a very long one the beginning.

    >>> str(html_of("**fast** <b>"))
    '<p><strong>fast</strong> &lt;b&gt;</p>'
    """
    out: list[str] = []
    lines = text[:_LONGEST].replace("\r\n", "\n").split("\n")
    at = 0
    while at < len(lines):
        line = lines[at]
        if line.startswith("```"):
            end = next((n for n in range(at + 1, len(lines)) if lines[n].startswith("```")), len(lines))
            out.append(f"<pre><code>{escape(chr(10).join(lines[at + 1 : end]))}</code></pre>")
            at = end + 1
        elif not line.strip():
            at += 1
        elif heading := re.match(r"^(#{1,6})\s+(.*)$", line):
            level = min(len(heading[1]) + 2, 6)  # the page has its own h1 and h2
            out.append(f"<h{level}>{_inline(heading[2])}</h{level}>")
            at += 1
        elif _ROW.match(line) and at + 1 < len(lines) and _RULE.match(lines[at + 1]):
            end = next((n for n in range(at + 2, len(lines)) if not _ROW.match(lines[n])), len(lines))
            out.append(_table(line, lines[at + 2 : end]))
            at = end
        elif _LIST.match(line):
            items = []
            tag = "ol" if line.lstrip()[0].isdigit() else "ul"
            while at < len(lines) and (item := _LIST.match(lines[at])):
                items.append(f"<li>{_inline(item[1])}</li>")
                at += 1
            out.append(f"<{tag}>{''.join(items)}</{tag}>")
        else:
            is_quote = line.startswith(">")
            part: list[str] = []
            while at < len(lines) and _goes_on(lines[at], is_quote, bool(part)):
                part.append(lines[at].removeprefix(">").strip())
                at += 1
            paragraph = f"<p>{'<br>'.join(_inline(one) for one in part)}</p>"
            out.append(f"<blockquote>{paragraph}</blockquote>" if is_quote else paragraph)
    return Markup("\n".join(out))


def _goes_on(line: str, is_quote: bool, has_begun: bool) -> bool:
    if not has_begun:
        return True
    if not line.strip() or line.startswith(("```", "|")) or re.match(r"#{1,6}\s", line) or _LIST.match(line):
        return False
    return line.startswith(">") == is_quote


def _table(head: str, rows: list[str]) -> str:
    names = _cells(head)
    parts = ["".join(f"<th>{_inline(name)}</th>" for name in names)]
    for row in rows:
        cells = [*_cells(row), *[""] * len(names)][: len(names)]
        parts.append("".join(f"<td>{_inline(cell)}</td>" for cell in cells))
    first, *others = (f"<tr>{part}</tr>" for part in parts)
    return f"<table><thead>{first}</thead><tbody>{''.join(others)}</tbody></table>"


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in _CELL.findall(row.strip()[1:])]


def _plain(text: str) -> str:
    """Return text as it is meant, escaped for HTML: what a backslash or an entity stands for is that character."""
    return str(escape(_MEANT.sub(lambda found: found["mark"] or _ENTITIES[found["entity"]], text)))


def _inline(text: str) -> str:
    out: list[str] = []
    at = 0
    for match in _INLINE.finditer(text):
        out.append(_plain(text[at : match.start()]))
        if match["escaped"]:
            out.append(str(escape(match["escaped"])))
        elif match["code"]:
            out.append(f"<code>{escape(match['code'])}</code>")
        elif match["bold"]:
            out.append(f"<strong>{_plain(match['bold'])}</strong>")
        elif match["italic"]:
            out.append(f"<em>{_plain(match['italic'])}</em>")
        else:
            out.append(f'<a href="{escape(match["url"])}" rel="noreferrer nofollow">{_plain(match["label"])}</a>')
        at = match.end()
    out.append(_plain(text[at:]))
    return "".join(out)
