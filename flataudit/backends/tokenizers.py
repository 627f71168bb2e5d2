"""From texts to the ids that a candidate takes, as the policy declares it; a file is read as data and never run."""

import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from flataudit.corruptions.tokens import Characters, Encoder, encoded
from flataudit.errors import ConfigurationError, DataError, ModelError
from flataudit.specs import TokenizerSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Reader", "make_reader"]

_MOST_BYTES = 64 * 2**20
"""Of a vocabulary or ``tokenizer.json``: the largest in use have some 20 MB."""


@dataclass(frozen=True)
class Reader:
    """Texts ``(n,)`` as ids ``(n, max_length)``.

    >>> spec = TokenizerSpec(use="bytes", max_length=4, first=3)
    >>> make_reader(spec, Path()).ids(np.array(["ab", "abcdef"])).tolist()
    [[100, 101, 0, 0], [100, 101, 102, 103]]
    """

    encoder: Encoder
    max_length: int
    lowercase: bool = False

    def ids(self, texts: "NDArray[np.generic]") -> "NDArray[np.int64]":
        """Cut or padded at the end to ``max_length``, so that an answer does not depend on the batch."""
        strings = cast("NDArray[np.str_]", texts)
        return encoded(np.char.lower(strings) if self.lowercase else strings, self.encoder, self.max_length)


def make_reader(spec: TokenizerSpec, artifact: Path) -> Reader:
    """The tokenizer that a policy declares.

    Args:
        spec: what it is.
        artifact: the candidate's folder, for a file of its own.

    Raises:
        DataError: its file is missing, too large, damaged, or another than when the audit started.
        ModelError: the same of a candidate's own file.
        ConfigurationError: the package `tokenizers` is not installed.
    """
    return Reader(_encoder(spec, artifact), spec.max_length, spec.lowercase)


def _encoder(spec: TokenizerSpec, artifact: Path) -> Encoder:
    if spec.use == "characters":
        return Characters(spec.alphabet or "", spec.padding, spec.unknown)
    if spec.use == "bytes":
        return _Bytes(spec.first or 0, spec.padding)
    text = _file(spec, artifact)
    if spec.use == "words":
        pattern = re.compile(r"\w+|[^\w\s]" if spec.split == "words" else r"\S+")
        return _Words(tuple(text.splitlines()), pattern, spec.padding, spec.unknown)
    return _Fast(_from_json(text, spec), spec.padding)


@dataclass(frozen=True)
class _Bytes:
    first: int
    padding: int

    def encode(self, text: str) -> Sequence[int]:
        return [self.first + byte for byte in text.encode()]


@dataclass(frozen=True)
class _Words:
    vocabulary: tuple[str, ...]
    pattern: "re.Pattern[str]"
    padding: int
    unknown: int | None

    @cached_property
    def _places(self) -> dict[str, int]:
        return {word: place for place, word in enumerate(self.vocabulary)}

    def encode(self, text: str) -> Sequence[int]:
        ids = [self._places.get(word, self.unknown) for word in self.pattern.findall(text)]
        return [i for i in ids if i is not None]


class _Encoding(Protocol):
    ids: list[int]


class _FromJson(Protocol):
    def encode(self, text: str) -> _Encoding: ...
    def no_padding(self) -> None: ...
    def enable_truncation(self, max_length: int) -> None: ...


@dataclass(frozen=True)
class _Fast:
    tokenizer: _FromJson
    padding: int

    def encode(self, text: str) -> Sequence[int]:
        return self.tokenizer.encode(text).ids


def _from_json(text: str, spec: TokenizerSpec) -> _FromJson:
    try:
        package = importlib.import_module("tokenizers")
    except ImportError as error:
        remedy = "pip install 'flataudit[text]'"
        raise ConfigurationError("the package tokenizers for `tokenizer:`", got=str(error), remedy=remedy) from error
    try:
        found = cast("_FromJson", package.Tokenizer.from_str(text))
        found.no_padding()
        # The package cuts before it adds its closing token, which a cut by us would lose.
        found.enable_truncation(spec.max_length)
    except BaseException as error:  # a damaged file makes its Rust code panic, which is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise _unusable(spec, f"{type(error).__name__}: {str(error)[:300]}") from error
    return found


def _file(spec: TokenizerSpec, artifact: Path) -> str:
    path = Path(spec.path) if spec.path is not None else (artifact / (spec.in_artifact or "")).resolve()
    if spec.path is None and not path.is_relative_to(artifact.resolve()):
        raise _unusable(spec, "a path that leaves the candidate's folder")
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise _unusable(spec, error.strerror or str(error)) from error
    if len(content) > _MOST_BYTES:
        raise _unusable(spec, f"more than {_MOST_BYTES // 2**20} MiB")
    found = f"sha256:{sha256(content).hexdigest()}"
    if spec.digest is not None and found != spec.digest:
        remedy = "the file changed while the audit ran: start it again"
        raise DataError(f"{path} with digest {spec.digest}", got=found, remedy=remedy)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise _unusable(spec, f"bytes that are no UTF-8: {error}") from error


def _unusable(spec: TokenizerSpec, got: str) -> DataError | ModelError:
    """An error of the policy's file, or of the candidate's."""
    what = "a vocabulary, one word a line" if spec.use == "words" else "a tokenizer.json"
    if spec.path is not None:
        return DataError(f"{what} at {spec.path}", got=got, remedy="check `tokenizer: path`")
    remedy = "log the file with the model, or name one of yours with `tokenizer: path`"
    return ModelError(f"{what} in the artifact at {spec.in_artifact}", got=got, remedy=remedy)
