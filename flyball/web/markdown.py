"""Markdown that people wrote, as HTML that is safe to show: text is escaped first, then the few marks become elements.

Headings, paragraphs, lists, quotes, code, bold, italics and links to http(s) addresses or pages here. No HTML of the
author's and no images: an image would tell another host who reads. Linear in the text's length.
"""

from __future__ import annotations

import re

from markupsafe import Markup, escape

__all__ = ["html_of"]

_LONGEST = 50_000
_LIST = re.compile(r"^\s{0,8}(?:[-*+]|\d{1,9}[.)])\s+(.*)$")
_INLINE = re.compile(
    r"`(?P<code>[^`\n]{1,500})`"
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
    if not line.strip() or line.startswith("```") or re.match(r"#{1,6}\s", line) or _LIST.match(line):
        return False
    return line.startswith(">") == is_quote


def _inline(text: str) -> str:
    out: list[str] = []
    at = 0
    for match in _INLINE.finditer(text):
        out.append(str(escape(text[at : match.start()])))
        if match["code"]:
            out.append(f"<code>{escape(match['code'])}</code>")
        elif match["bold"]:
            out.append(f"<strong>{escape(match['bold'])}</strong>")
        elif match["italic"]:
            out.append(f"<em>{escape(match['italic'])}</em>")
        else:
            out.append(f'<a href="{escape(match["url"])}" rel="noreferrer nofollow">{escape(match["label"])}</a>')
        at = match.end()
    out.append(str(escape(text[at:])))
    return "".join(out)
