"""Videos of a stored policy, made without writing into its run's folder."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from fetchlab.checkpoint.find import newest_policy
from fetchlab.checkpoint.manifest import CheckpointError
from fetchlab.errors import RunFailedError
from fetchlab.play import evaluate, request

EPISODES = 3


def film(run_dir: Path, folder: Path, name: str) -> list[Path]:
    """Film a few episodes of the newest policy; those that are there already are taken.

    Args:
        run_dir: a run's folder, of which nothing is changed.
        folder: for the files, ``<name>_<env steps>_<episode>.mp4``.
        name: of the run.

    Raises:
        ConfigError: the run's configuration cannot work here.
        RunFailedError: there is no policy, or it cannot be filmed.
    """
    try:
        policy = newest_policy(run_dir / "checkpoints")
    except CheckpointError as error:
        raise RunFailedError(str(error)) from error
    name = f"{name}_{policy.name.partition('_')[2]}"
    if made := sorted(folder.glob(f"{name}_*.mp4")):
        return made
    with tempfile.TemporaryDirectory(prefix="fetchlab-film-") as temporary:
        asked = request(run=str(run_dir), episodes=EPISODES, video=True, out=temporary)
        (played,) = evaluate(asked, {})
        folder.mkdir(parents=True, exist_ok=True)
        for index, path in enumerate(played["videos"]):
            made.append(Path(shutil.move(path, folder / f"{name}_{index}.mp4")))
    return made
