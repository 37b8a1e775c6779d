"""Settings: one frozen dataclass a room, read from `flyball.toml` in the home and from the environment.

A room writes

    @dataclass(frozen=True)
    class ServingSettings:
        queue_limit: int = 1024   # requests …

and `load(ServingSettings, "serving", home)` fills it: `FLYBALL_SERVING_QUEUE_LIMIT` wins over `[serving] queue_limit`
in `flyball.toml`, which wins over the default. An unknown key or a value of the wrong type is an error.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from flyball.errors import InvalidInput, did_you_mean, listed

__all__ = ["DEFAULT_PORT", "DEFAULT_SERVE_PORT", "home_directory", "load"]

DEFAULT_PORT = 7070  # control plane: pages and API
DEFAULT_SERVE_PORT = 7071  # data plane: predictions

S = TypeVar("S")


def home_directory(home: str | os.PathLike[str] | None = None) -> Path:
    """Return the home that holds everything: the argument, else `FLYBALL_HOME`, else `.flyball` here."""
    return Path(home or os.environ.get("FLYBALL_HOME") or ".flyball").expanduser().absolute()


def load(cls: type[S], room: str, home: Path, environ: Mapping[str, str] = os.environ) -> S:
    """Return the settings of one room.

    Raises:
        InvalidInput: `flyball.toml` cannot be read, or a key is unknown, or a value has the wrong type.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    given: dict[str, Any] = {}
    for key, value in _table(home, room).items():
        if key not in fields:
            raise InvalidInput(
                f'unknown setting "{key}" in [{room}] of {home / "flyball.toml"}'
                f"{did_you_mean(key, fields)} (known: {listed(sorted(fields))})"
            )
        given[key] = _convert(value, hints[key], f"[{room}] {key}")
    for key in fields:
        variable = f"FLYBALL_{room}_{key}".upper()
        if variable in environ:
            given[key] = _convert(environ[variable], hints[key], variable)
    return cls(**given)


def _table(home: Path, room: str) -> dict[str, Any]:
    path = home / "flyball.toml"
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InvalidInput(f"{path} cannot be read as TOML: {error}") from error
    table = document.get(room, {})
    if not isinstance(table, dict):
        raise InvalidInput(f"[{room}] in {path} must be a table")
    return table


def _convert(value: Any, hint: Any, where: str) -> Any:
    """Turn text (environment) or a TOML value into the type that the field declares."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for option in options:
        if option is bool:
            if isinstance(value, bool):
                return value
            if isinstance(value, str) and value.lower() in (
                "1",
                "true",
                "yes",
                "on",
                "0",
                "false",
                "no",
                "off",
            ):
                return value.lower() in ("1", "true", "yes", "on")
        elif option is type(None):
            if value == "":
                return None
        elif option in (int, float) and not isinstance(value, bool):
            try:
                return option(value)
            except (TypeError, ValueError):
                continue
        elif option is str and isinstance(value, str):
            return value
        elif option is Path and isinstance(value, str):
            return Path(value).expanduser()
        elif typing.get_origin(option) is typing.Literal and value in typing.get_args(option):
            return value
    expected = " or ".join(getattr(o, "__name__", str(o)).replace("typing.", "") for o in options)
    raise InvalidInput(f"the setting {where} is {value!r}; expected {expected}")
