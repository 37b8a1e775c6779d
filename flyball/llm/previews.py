"""How a request or an answer begins, for lists: its last message where it is a conversation, else its JSON."""

from __future__ import annotations

from typing import Any

from flyball.llm.spans import dumped

__all__ = ["LONGEST_PREVIEW", "preview"]

LONGEST_PREVIEW = 1000
_DEEPEST = 5  # requests within requests


def preview(value: Any, role: str) -> str:
    """Return at most a thousand characters of a request (role "user") or an answer ("assistant").

    >>> preview({"messages": [{"role": "user", "content": "hello"}]}, "user")
    'hello'
    """
    text = _said(_messages(value), role) or dumped(value)
    return text if len(text) <= LONGEST_PREVIEW else text[: LONGEST_PREVIEW - 3] + "..."


def _messages(value: Any, depth: int = 0) -> list[dict[str, Any]]:
    if not isinstance(value, dict) or depth > _DEEPEST:
        return []
    for key in ("messages", "input", "output"):
        found = value.get(key)
        if found and isinstance(found, list):
            return [item for item in found if _is_message(item)]
    choices = value.get("choices")
    if (
        isinstance(choices, list)
        and choices
        and isinstance(choices[0], dict)
        and _is_message(choices[0].get("message"))
    ):
        return [choices[0]["message"]]
    return _messages(value.get("request"), depth + 1)


def _is_message(item: Any) -> bool:
    return isinstance(item, dict) and "role" in item and "content" in item


def _said(messages: list[dict[str, Any]], role: str) -> str | None:
    if not messages:
        return None
    message = next((m for m in reversed(messages) if m["role"] == role), messages[-1])
    content = message["content"]
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = (
            part if isinstance(part, str) else part.get("text") for part in content if isinstance(part, str | dict)
        )
        return next((text for text in texts if isinstance(text, str)), None)
    return None
