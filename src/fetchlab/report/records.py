"""What a run's checkpoints record of the process that wrote them: versions, machine, settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fetchlab.checkpoint.find import newest_valid
from fetchlab.checkpoint.manifest import CheckpointError


def recorded(run_dir: Path) -> dict[str, Any]:
    """The fingerprint in the newest checkpoint; empty where no checkpoint has one.

    A published run keeps its best weights alone, which have none.
    """
    from fetchlab.checkpoint.torch_io import read_payload  # torch: seconds

    try:
        payload = read_payload(newest_valid(run_dir / "checkpoints"))
        return dict(payload["record"]["fingerprint"])
    except (CheckpointError, KeyError, TypeError):
        return {}
