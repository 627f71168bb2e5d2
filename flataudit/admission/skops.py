"""The types that a skops file says it is made of, read from its schema; nothing is imported.

skops resolves ``module.class`` by importing the module, and by its loaders more: a function by two other keys, a method
of an object by a third. All of it is listed, as skops itself would name it, and held against our own list.
"""

import json
from collections.abc import Iterator, Mapping, Sequence

from pydantic import JsonValue

from flataudit.admission.skops_types import is_known

__all__ = ["foreign_types", "types_of"]

_LOADERS = frozenset(
    {
        *("BytearrayNode", "BytesNode", "CachedNode", "DTypeNode", "DefaultDictNode", "DictNode", "FunctionNode"),
        *("JsonNode", "ListNode", "LossNode", "MaskedArrayNode", "MethodNode", "NdArrayNode", "ObjectNode"),
        *("OperatorFuncNode", "PartialNode", "RandomGeneratorNode", "RandomStateNode", "SetNode", "SliceNode"),
        *("SparseMatrixNode", "TreeNode", "TupleNode", "TypeNode"),
    }
)
"""What skops builds objects with; another one would be of a newer protocol, or of another package."""


def types_of(schema: bytes) -> tuple[str, ...]:
    """``module.class`` of every node, and every function or method that one names, sorted.

    >>> types_of(b'{"__module__": "os", "__class__": "x", "content": {"module_path": "os", "function": "system"}}')
    ('os.system', 'os.x')
    """
    try:
        return tuple(sorted(set(_named(json.loads(schema)))))
    except (ValueError, RecursionError):
        return ("unreadable.schema",)


def foreign_types(types: Sequence[str]) -> tuple[str, ...]:
    """Those that are not on our list.

    >>> foreign_types(("sklearn.svm._classes.SVC", "sklearn.svm._classes.os.system"))
    ('sklearn.svm._classes.os.system',)
    """
    return tuple(name for name in types if not is_known(name))


def _named(value: JsonValue) -> Iterator[str]:
    todo = [value]
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            yield from _of_node(one)
            todo += one.values()
        elif isinstance(one, list):
            todo += one


def _of_node(node: Mapping[str, JsonValue]) -> Iterator[str]:
    if "__class__" in node:
        # A type node stands for the type itself, a function node for what its content names.
        yield f"{node.get('__module__')}.{node['__class__']}"
    for module, name in (("module_path", "function"), ("__module__", "__func__")):
        if isinstance(node.get(name), str) and isinstance(node.get(module), str):
            yield f"{node[module]}.{node[name]}"
    loader = node.get("__loader__")
    if loader is not None and loader not in _LOADERS:
        yield f"skops.{loader}"
    content = node.get("content")
    if loader == "MethodNode" and isinstance(content, dict):
        owner = content.get("obj")
        of = f"{owner.get('__module__')}.{owner.get('__class__')}" if isinstance(owner, dict) else "unknown"
        yield f"{of}.{content.get('func')}"
