"""JSON documents of an artifact that make a library run code: two keys, wherever they stand."""

import json
from collections.abc import Iterator

from pydantic import JsonValue

__all__ = ["brings_code", "uses_pickle"]


def brings_code(document: bytes) -> bool:
    """Whether a configuration maps classes to code of its own (``auto_map``).

    >>> brings_code(b'{"auto_map": {"AutoModel": "modeling.Net"}}'), brings_code(b'{"auto_map": null}')
    (True, False)
    """
    return any(value for key, value in _pairs(document) if key == "auto_map")


def uses_pickle(document: bytes) -> bool:
    """Whether an exported program's list of tensors says that one is pickled.

    >>> uses_pickle(b'{"config": {"a": {"use_pickle": true}}}'), uses_pickle(b'{"config": {}}')
    (True, False)
    """
    return any(value for key, value in _pairs(document) if key == "use_pickle")


def _pairs(document: bytes) -> Iterator[tuple[str, JsonValue]]:
    """Every key with its value, at any depth; none where it cannot be read, which its reader will refuse too."""
    try:
        todo: list[JsonValue] = [json.loads(document)]
    except (ValueError, RecursionError):
        return
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            yield from one.items()
            todo += one.values()
        elif isinstance(one, list):
            todo += one
