"""Documents of the Bitol standards, ODCS contracts and ODPS products: YAML with the values of its JSON form."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

from flyball.errors import InvalidInput, NotFound

__all__ = ["load_document"]


def load_document(source: str | os.PathLike[str], what: str, standard: str, kind: str) -> dict[str, Any]:
    """Return a document as plain dictionaries.

    Args:
        source: a path, or YAML text (anything with a line break in it).
        what, standard, kind: what is expected, for messages: "data contract", "ODCS", "DataContract".

    Raises:
        NotFound: no such file.
        InvalidInput: it cannot be read, is not YAML, nested too deeply, or no document with fields.
    """
    import yaml

    where, text = f"the {what}", str(source)
    if not (isinstance(source, str) and "\n" in source):
        where = f"the {what} {os.fspath(source)}"
        try:
            text = Path(source).read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            raise NotFound(f"there is no file {os.fspath(source)}; give the path of an {standard} file") from None
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"{where} cannot be read: {error}") from error
    try:
        document = yaml.load(text, _loader())
    except yaml.YAMLError as error:
        raise InvalidInput(f"{where} is not YAML: {' '.join(str(error).split())}") from error
    except RecursionError:
        raise InvalidInput(f"{where} is nested too deeply to be a {what}") from None
    if not isinstance(document, dict):
        raise InvalidInput(f"{where} is not a document with fields; it should start with kind: {kind}")
    return document


@functools.cache
def _loader() -> Any:
    """Return a safe YAML loader that leaves `2024-01-01` a text, as it is in the JSON form of a document."""
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {
            first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    return Loader
