"""What a user can mend and what a run cannot survive: one line each."""

from __future__ import annotations


class ConfigError(ValueError):
    """A value the user gave cannot work; the message is one line: value, expected, remedy."""

    def __init__(self, key: str, value: object, expected: str, remedy: str) -> None:
        super().__init__(f"{key}={value!r}: expected {expected}; {remedy}")


class RunFailedError(RuntimeError):
    """A run could not go on; the message's first line has the cause and how to continue."""


class NonFiniteError(ValueError):
    """An action, observation, loss or gradient is NaN or infinite; raised before it is used."""


def require(ok: bool, key: str, value: object, expected: str, remedy: str) -> None:
    """Raise `ConfigError` unless ``ok``."""
    if not ok:
        raise ConfigError(key, value, expected, remedy)
