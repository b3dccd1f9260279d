"""What happens beside a run's rounds: each a Lightning callback that configs/callbacks names.

A constructor takes numbers alone. The run reaches a callback through its trainer: the data module,
the module, ``default_root_dir``, and the other callbacks, see `find`.
"""

from __future__ import annotations

from typing import Any, TypeVar

from fetchlab.errors import ConfigError

One = TypeVar("One")


def find(trainer: Any, kind: type[One]) -> One:
    """The trainer's callback of that class, or of one below it.

    Raises:
        ConfigError: it has none.
    """
    for callback in trainer.callbacks:
        if isinstance(callback, kind):
            return callback
    remedy = "see configs/callbacks/default.yaml"
    raise ConfigError("callbacks", None, f"a {kind.__name__} among them", remedy)
