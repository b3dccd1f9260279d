"""Episodes as pictures that people look at: side by side, as mp4 (H.264) by imageio-ffmpeg."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fetchlab.errors import require

BORDER = 6  # pixels of the frame around the views, and between them
RUNNING, SUCCEEDED, FAILED = (90, 90, 90), (30, 170, 60), (210, 50, 40)


class VideoUnavailableError(RuntimeError):
    """No usable ffmpeg here; the message says what to install."""


def side_by_side(views: Sequence[np.ndarray], succeeds: np.ndarray, side: int) -> np.ndarray:
    """Views of one episode beside each other, in a frame that tells how it stands.

    The frame is green while the episode succeeds, red at the end of one that does not, else grey.

    Args:
        views: (T, 3 V, h, w) uint8 each, one picture for each of V cameras; enlarged with nearest
            neighbour, so a pixel is a rectangle.
        succeeds: (T,) bool.
        side: height and width of each picture, pixels.

    Returns:
        (T, H, W, 3) uint8.
    """
    views = [one for view in views for one in np.split(view, view.shape[1] // 3, axis=1)]
    size = (side + 2 * BORDER, len(views) * (side + BORDER) + BORDER)
    pictures = np.empty((len(succeeds), *size, 3), np.uint8)
    colours = np.where(succeeds[:, None], SUCCEEDED, RUNNING)
    if not succeeds[-1]:
        colours[-1] = FAILED
    pictures[:] = colours[:, None, None]
    for index, view in enumerate(views):
        left = BORDER + index * (side + BORDER)
        pictures[:, BORDER:-BORDER, left : left + side] = _enlarged(view, side)
    return pictures


def _enlarged(frames: np.ndarray, side: int) -> np.ndarray:
    """Frames (T, 3, h, w) as (T, side, side, 3)."""
    rows, columns = (np.arange(side) * length // side for length in frames.shape[2:])
    return frames.transpose(0, 2, 3, 1)[:, rows][:, :, columns]


def write_video(frames: np.ndarray, path: Path, fps: float) -> None:
    """Write ``frames`` to ``path``; the file appears complete or not at all.

    Args:
        frames: (T, H, W, 3) uint8, T >= 1, H and W even, which yuv420p needs.
        path: Ends in ``.mp4``; its folder is created, an existing file is replaced.
        fps: Frames per second; 1 / 0.04 s = 25 is real time for the Fetch tasks.

    Raises:
        ConfigError: The frames are not of that shape.
        VideoUnavailableError: ffmpeg is missing or fails; the message says what to do.
    """
    ok = frames.ndim == 4 and frames.shape[3] == 3 and frames.size > 0 and frames.dtype == np.uint8
    ok = ok and frames.shape[1] % 2 == frames.shape[2] % 2 == 0
    found = (frames.shape, str(frames.dtype))
    expected = "shape (T >= 1, H, W, 3) with H and W even, uint8"
    require(ok, "frames", found, expected, "pass rendered frames, channels last")
    encoder = load_encoder()
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.tmp.mp4")  # dot-named: never taken for a result
    try:
        # macro_block_size 1: any even size plays; the default would stretch 84 pixels to 96.
        size = (frames.shape[2], frames.shape[1])
        stream = encoder.write_frames(unfinished, size, fps=fps, macro_block_size=1)
        stream.send(None)
        for frame in frames:
            stream.send(np.ascontiguousarray(frame))
        stream.close()
        if not unfinished.is_file() or unfinished.stat().st_size == 0:
            raise OSError(f"ffmpeg wrote nothing to {unfinished}")
        unfinished.replace(path)
    except OSError as error:
        raise VideoUnavailableError(f"{path}: ffmpeg failed, set video=false: {error}") from error
    finally:
        unfinished.unlink(missing_ok=True)


def load_encoder() -> Any:
    """The `imageio_ffmpeg` module; call it early, to fail before work is done."""
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        remedy = "pip install 'imageio[ffmpeg]' (or set IMAGEIO_FFMPEG_EXE), or set video=false"
        raise VideoUnavailableError(f"videos need ffmpeg ({error}): {remedy}") from error
    return imageio_ffmpeg
