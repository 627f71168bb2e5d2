"""The types that a skops file says it is made of, read from its schema; nothing is imported."""

import json
import re
from collections.abc import Iterator, Sequence

from pydantic import JsonValue

__all__ = ["foreign_types", "types_of"]

_OURS = re.compile(
    r"(sklearn|scipy|numpy|lightgbm|xgboost)\.[\w.]+|collections\.(OrderedDict|defaultdict|Counter)"
    r"|builtins\.(int|float|str|bool|list|set|map|tuple|dict|bytes|bytearray|slice|type|function|NoneType|complex|range)"
    r"|functools\.partial|operator\.(attrgetter|itemgetter)|datetime\.\w+"
)
"""Packages of estimators and plain values. Which of their types are data is for the backend to say, name by name."""


def types_of(schema: bytes) -> tuple[str, ...]:
    """``module.class`` of every node, and every function that one names, sorted.

    >>> types_of(b'{"__module__": "os", "__class__": "x", "content": {"module_path": "os", "function": "system"}}')
    ('os.system', 'os.x')
    """
    try:
        return tuple(sorted(set(_named(json.loads(schema)))))
    except (ValueError, RecursionError):
        return ("unreadable.schema",)


def foreign_types(types: Sequence[str]) -> tuple[str, ...]:
    """Those of other packages."""
    return tuple(name for name in types if not _OURS.fullmatch(name))


def _named(value: JsonValue) -> Iterator[str]:
    todo = [value]
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            if "__class__" in one:
                yield f"{one.get('__module__')}.{one['__class__']}"
            for module, name in (("module_path", "function"), ("__module__", "__func__")):
                if isinstance(one.get(name), str) and isinstance(one.get(module), str):
                    yield f"{one[module]}.{one[name]}"
            todo += one.values()
        elif isinstance(one, list):
            todo += one
