"""What is refused of an envelope or a statement, with the field that it was refused for; and JSON read strictly."""

import json
from collections.abc import Sequence

from pydantic import JsonValue, ValidationError

from flataudit.errors import ReportError

__all__ = ["AttestationError", "first_fault", "strict_json"]

_REMEDY = "do not use the model until it is known who changed it: fetch the attestation again"


class AttestationError(ReportError):
    """An envelope or a statement that cannot be believed; `field` says where."""

    def __init__(self, field: str, expected: str, *, got: str, remedy: str = _REMEDY) -> None:
        self.field = field
        super().__init__(expected, got=got, remedy=remedy)


def strict_json(data: bytes, *, field: str, limit: int) -> JsonValue:
    """The JSON value of some bytes: UTF-8, within a size, each key once, no NaN.

    Raises:
        AttestationError: anything else.
    """
    if len(data) > limit:
        raise AttestationError(field, f"at most {limit} bytes", got=str(len(data)))
    try:
        value: JsonValue = json.loads(data.decode(), object_pairs_hook=_once, parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        raise AttestationError(field, "JSON", got=_told(error)) from error
    return value


def first_fault(error: ValidationError, *, root: str) -> tuple[str, str]:
    """The first field that a record refused, and why, without the value."""
    first = error.errors(include_input=False, include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{root}.{place}" if place else root, str(first["msg"])[:200]


def _once(pairs: Sequence[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


def _refused(constant: str) -> JsonValue:
    raise ValueError(f"the constant {constant}")


def _told(error: Exception) -> str:
    return "nesting without end" if isinstance(error, RecursionError) else str(error)[:200]
