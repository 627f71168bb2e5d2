"""Every way flataudit refuses, as one exception tree.

```
FlatauditError                 exit 3
├── ConfigurationError         exit 2   the policy file or the command line is wrong
│   ├── PluginError            exit 2   a name is not installed, or installed twice
│   ├── DataError              exit 2   the audit's own data cannot be used
│   └── NotFoundError          exit 2   the registry answers, and has no such thing
├── ModelError                 (evidence) a candidate cannot be loaded or misbehaves
│   └── UntrustedError         (evidence) loading would run the candidate's code
├── RegistryError              exit 3   the registry failed
│   ├── UnreachableError       exit 3   it does not answer
│   ├── ConflictError          exit 3   the champion moved since it was compared
│   └── TamperedError          exit 3   the bytes are not those that were audited
└── ReportError                exit 3   a report or record could not be written or read
```

An error is for a mistake or an accident. A verdict is never an exception, and what goes wrong inside
a candidate becomes evidence (an `Outcome`), so that one hostile model cannot stop an audit.
"""

from typing import ClassVar

__all__ = [
    "ConfigurationError",
    "ConflictError",
    "DataError",
    "FlatauditError",
    "ModelError",
    "NoInputGradientError",
    "NotFoundError",
    "PluginError",
    "RegistryError",
    "ReportError",
    "TamperedError",
    "UnreachableError",
    "UntrustedError",
]


class FlatauditError(Exception):
    """An error that says what was expected, what came instead, and what to do.

    >>> print(FlatauditError("a margin below 1", got="5", remedy="write 0.05 for 5 points"))
    expected a margin below 1, got 5; write 0.05 for 5 points
    """

    exit_code: ClassVar[int] = 3

    def __init__(self, expected: str, *, got: str, remedy: str) -> None:
        self.expected, self.got, self.remedy = expected, got, remedy
        super().__init__(f"expected {expected}, got {got}; {remedy}")


class ConfigurationError(FlatauditError):
    """The policy file, an option or an argument is wrong; nothing was started."""

    exit_code = 2


class PluginError(ConfigurationError):
    """A plugin's name is unknown, ambiguous, or its package fails to import."""


class DataError(ConfigurationError):
    """The audit's own data is missing, empty, misshapen or not finite."""


class NotFoundError(ConfigurationError):
    """The registry answered and holds no such model, alias, version or run."""


class ModelError(FlatauditError):
    """A candidate cannot be loaded or answers wrongly; becomes evidence, not an exit."""


class UntrustedError(ModelError):
    """Loading the candidate would run its own code, and nobody said to trust it."""


class RegistryError(FlatauditError):
    """The registry failed in a way that is not the user's mistake."""


class UnreachableError(RegistryError):
    """The registry does not answer."""


class ConflictError(RegistryError):
    """The alias no longer points to the champion that was compared."""


class TamperedError(RegistryError):
    """A candidate's bytes are not the bytes that were audited."""


class ReportError(FlatauditError):
    """A record or report could not be written or read."""


class NoInputGradientError(ModelError, RuntimeError):
    """A gradient in inputs that the graph does not reach as they are; a `RuntimeError`, as torch's own of this kind."""
