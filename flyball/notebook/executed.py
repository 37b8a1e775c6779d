"""The notebook that a run was made in, as far as it was executed when the run ended: cells with what they showed.

It is made of what the kernel remembers, not of the file: that may not be saved yet, and `nbconvert --execute` and
papermill write theirs at the very end. So it works in all of them alike. What cells displayed (figures, HTML) before
Flyball was first used in the notebook is not remembered by anybody, and missing. Format: nbformat 4.5.
"""

from __future__ import annotations

import sys
from typing import Any

import orjson

__all__ = ["NOTEBOOK", "executed_notebook", "remember_displays"]

NOTEBOOK = "notebook.ipynb"
"""The path within a run."""

_MOST_OUTPUT = 2_000_000  # characters of one output; larger ones are left out
_PLAIN = "text/plain"


_MOST_DISPLAYED = 500  # displays that are remembered, so that a loop that draws does not fill the memory

_displayed: dict[int, list[dict[str, Any]]] = {}  # by the number of the cell


def remember_displays() -> None:
    """Remember from now on what cells display, which the kernel itself does not; nothing outside of a notebook."""
    shell = _kernel_shell()
    register = getattr(getattr(shell, "display_pub", None), "register_hook", None)
    if register is None:
        return

    def remember(message: Any) -> Any:
        content = message["content"] if message.get("msg_type") == "display_data" else {}
        if content and sum(map(len, _displayed.values())) < _MOST_DISPLAYED:
            data = {mime: kept for mime, value in content["data"].items() if (kept := _fitting(value)) is not None}
            told = {"output_type": "display_data", "data": data, "metadata": {}}
            _displayed.setdefault(len(shell.user_ns["In"]) - 1, []).append(told)  # execution_count is one ahead here
        return message

    register(remember)


def executed_notebook() -> bytes | None:
    """Return the notebook of this process; None where this is no notebook, as in a script or in IPython's terminal."""
    shell = _kernel_shell()
    if shell is None:
        return None
    sources: list[str] = list(shell.user_ns.get("In") or shell.history_manager.input_hist_raw)
    remembered: dict[int, list[Any]] = getattr(shell.history_manager, "outputs", {})
    results: dict[int, Any] = shell.user_ns.get("Out") or {}
    cells = []
    for number, source in enumerate(sources[1:], 1):
        outputs = [made for one in remembered.get(number, ()) if (made := _output(one, number)) is not None]
        outputs += _displayed.get(number, [])
        if not outputs and number in results:
            outputs = [_result({_PLAIN: repr(results[number])}, number)]
        cells.append(
            {
                "id": f"cell-{number}",
                "cell_type": "code",
                "execution_count": number,
                "metadata": {},
                "source": source,
                "outputs": outputs,
            }
        )
    version = sys.version.partition(" ")[0]
    metadata = {"language_info": {"name": "python", "version": version}}
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells}
    return orjson.dumps(notebook, option=orjson.OPT_INDENT_2, default=str)


def _kernel_shell() -> Any:
    """Return the shell of this process's kernel. IPython is asked only where it is loaded already."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return shell if shell is not None and getattr(shell, "kernel", None) is not None else None


def _output(one: Any, number: int) -> dict[str, Any] | None:
    """Return what IPython remembers of an output (`HistoryOutput`) as nbformat has it."""
    kind, bundle = one.output_type, {str(mime): _fitting(data) for mime, data in dict(one.bundle).items()}
    bundle = {mime: data for mime, data in bundle.items() if data is not None}
    if kind in ("out_stream", "err_stream"):
        texts = bundle.get("stream", [])
        text = "".join(texts) if isinstance(texts, list) else str(texts)
        return {"output_type": "stream", "name": "stdout" if kind == "out_stream" else "stderr", "text": text}
    if kind == "execute_result":
        return _result(bundle, number)
    if kind == "display_data":
        return {"output_type": "display_data", "data": bundle, "metadata": {}}
    return None


def _result(data: dict[str, Any], number: int) -> dict[str, Any]:
    return {"output_type": "execute_result", "execution_count": number, "data": data, "metadata": {}}


def _fitting(data: Any) -> Any:
    if isinstance(data, bytes):
        import base64

        data = base64.b64encode(data).decode()
    return data if not isinstance(data, str) or len(data) <= _MOST_OUTPUT else None
