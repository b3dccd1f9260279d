"""Episodes as pictures that people look at: side by side, as mp4 (H.264) and as GIF.

The mp4 comes from the ffmpeg that imageio-ffmpeg brings, the GIF from Pillow.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fetchlab.errors import require

BORDER = 6  # pixels of the frame around the views, and between them
RUNNING, SUCCEEDED, FAILED = (90, 90, 90), (30, 170, 60), (210, 50, 40)
_COLOURS = 96


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


def gif(pictures: Sequence[np.ndarray], durations_ms: Sequence[int]) -> bytes:
    """An endless GIF of (H, W, 3) uint8, each shown for so long.

    One palette without dithering: what does not move costs no bytes.
    """
    from PIL import Image

    arrays, plain = list(pictures), Image.Dither.NONE
    sample = np.concatenate(arrays[:: max(1, len(arrays) // 12)] + arrays[-1:])
    palette = Image.fromarray(sample).quantize(_COLOURS, dither=plain)
    first, *others = (
        Image.fromarray(one).quantize(palette=palette, dither=plain) for one in arrays
    )
    out = io.BytesIO()
    options = {"save_all": True, "append_images": others, "loop": 0}
    first.save(out, "GIF", duration=list(durations_ms), **options)
    return out.getvalue()


def write_video(frames: np.ndarray, path: Path, fps: float, magnify: int) -> None:
    """Write ``frames`` to ``path``; the file appears complete or not at all.

    Args:
        frames: (T, 3, H, W) uint8, T >= 1.
        path: Ends in ``.mp4``; its folder is created, an existing file is replaced.
        fps: Frames per second; 1 / 0.04 s = 25 is real time for the Fetch tasks.
        magnify: Whole factor >= 1 by which pixels are repeated: 84 pixels are tiny on a screen.

    Raises:
        ConfigError: The frames are not of that shape.
        VideoUnavailableError: ffmpeg is missing or fails; the message says what to do.
    """
    ok = frames.ndim == 4 and frames.shape[1] == 3 and frames.size > 0 and frames.dtype == np.uint8
    found, expected = (frames.shape, str(frames.dtype)), "shape (T >= 1, 3, H, W), uint8"
    require(ok, "frames", found, expected, "pass rendered frames, channels first")
    encoder = load_encoder()
    pixels = _even(frames.transpose(0, 2, 3, 1).repeat(magnify, axis=1).repeat(magnify, axis=2))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.tmp.mp4")  # dot-named: never taken for a result
    try:
        # macro_block_size 1: any even size plays; the default would stretch 84 pixels to 96.
        size = (pixels.shape[2], pixels.shape[1])
        stream = encoder.write_frames(unfinished, size, fps=fps, macro_block_size=1)
        stream.send(None)
        for frame in pixels:
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


def _even(pixels: np.ndarray) -> np.ndarray:
    """Repeat the last row and column of (T, H, W, 3) where H or W is odd: yuv420p needs even."""
    height, width = pixels.shape[1:3]
    padding = ((0, 0), (0, height % 2), (0, width % 2), (0, 0))
    return np.pad(pixels, padding, mode="edge")
