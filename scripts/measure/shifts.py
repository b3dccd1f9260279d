"""What a random shift of the picture does to the coordinates of a spatial softmax.

Coordinates are (x, y) in [-1, 1], x to the right and y downwards; a *change* is what a shift adds
to a coordinate, and the *ideal* change is the displacement of the whole picture, which a coordinate
that follows its content would make.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fetchlab.entries import Augmentation

#: A coordinate that varies less over the frames is constant: its map is dead, and nobody reads it.
CONSTANT = 1e-6


class Shifted(NamedTuple):
    """Coordinates of N moments and the ones after them, F maps each, and their changes by D draws.

    ``shift_px`` (N, D, 2), how far the picture moved; ``start`` and ``next_start`` (N, F, 2);
    ``change`` and ``next_change`` (N, D, F, 2) by the same draw.
    """

    shift_px: Tensor
    start: Tensor
    next_start: Tensor
    change: Tensor
    next_change: Tensor


def shift_all(
    encode: Callable[[Tensor], Tensor],
    augment: Augmentation,
    pixels: Tensor,
    next_pixels: Tensor,
    draws: int,
    rng: torch.Generator,
) -> Shifted:
    """Draw shifts of each moment and encode what becomes of it.

    A moment and its next one are shifted as one image, as under ``shared_draw``; another draw of
    the next one is what it gets without. Two more channels that number the columns and the rows
    are shifted with them, and tell how far: what the augmentation itself drew, with its padding.

    Args:
        encode: (B, C, H, W) uint8 -> (B, F, 2) coordinates.
        augment: moves images and changes nothing else.
        pixels: (N, C, H, W) uint8, H and W at most 256.
        next_pixels: the same one step later.
        draws: D, at least 1.
        rng: of the draws.
    """
    count, channels, height, width = pixels.shape
    columns = torch.arange(width, dtype=torch.uint8).expand(count, 1, height, width)
    rows = torch.arange(height, dtype=torch.uint8).view(-1, 1).expand(count, 1, height, width)
    block = torch.cat((pixels, next_pixels, columns, rows), 1)
    middle = torch.tensor((width // 2, height // 2))
    start, next_start = encode(pixels), encode(next_pixels)
    shifts, changes, next_changes = [], [], []
    for _ in range(draws):
        shifted = augment(block, rng)
        # What is in the middle now came from there: the picture moved the other way.
        shifts.append(middle - shifted[:, -2:, height // 2, width // 2].long())
        changes.append(encode(shifted[:, :channels]) - start)
        next_changes.append(encode(shifted[:, channels:-2]) - next_start)
    stacked = (torch.stack(column, 1) for column in (shifts, changes, next_changes))
    shift_px, change, next_change = stacked
    return Shifted(shift_px, start, next_start, change, next_change)


def noise(shifted: Shifted, per_px: float, largest: int) -> dict[str, Any] | None:
    """The noise of the shift, in coordinate units.

    Medians and quantiles are over the live coordinates: both axes of every map whose two
    coordinates vary over the frames. Of each coordinate, roots of means of squares (RMS) are over
    moments and draws.

    Args:
        shifted: at least 2 moments and 2 draws.
        per_px: coordinate units that a pixel spans.
        largest: shift in pixels, for the border.

    Returns:
        None where fewer than two maps are live, else

        - ``live_maps, maps``; ``own_std``: median standard deviation over the moments;
        - ``follow``: 10 %, 50 % and 90 % quantile of the slope of change on ideal change: 1 is a
          coordinate that follows the picture, 0 one that ignores it;
        - ``absolute``: median RMS change, and ``absolute_of_own``, median share of own deviation;
        - ``common_share``: share of the mean squared change that all maps have in common;
        - ``pairs``: RMS over pairs of maps of the difference of their changes: what does not cancel
          when two coordinates are subtracted; ``pairs_own_std``: how much that difference varies
          over the moments by itself;
        - ``beyond_ideal, beyond_own``: median RMS of the change less the ideal one, and less the
          ideal one times the coordinate's own slope;
        - ``border``: the same by |shift| along the axis, 0 to ``largest`` pixels;
        - ``target``: what next_obs minus obs gains, ``independent`` and ``shared`` draws, and its
          own RMS ``motion``; medians.
    """
    start, change = shifted.start, shifted.change
    live = (start.std(0, correction=0) > CONSTANT).all(-1)  # (F,)
    if int(live.sum()) < 2:
        return None
    start, change = start[:, live], change[:, :, live]
    next_start, next_change = shifted.next_start[:, live], shifted.next_change[:, :, live]
    ideal = (shifted.shift_px * per_px).unsqueeze(2)
    slope = _slope(change, ideal, torch.ones_like(ideal))
    own = start.std(0, correction=0)
    absolute = _rms(change)
    quantiles = torch.tensor((0.1, 0.5, 0.9), dtype=slope.dtype)
    # Another draw of the same moment is independent of this one.
    independent = next_change.roll(1, dims=1) - change
    return {
        "live_maps": int(live.sum()),
        "maps": len(live),
        "own_std": _median(own),
        "follow": slope.flatten().quantile(quantiles).tolist(),
        "absolute": _median(absolute),
        "absolute_of_own": _median(absolute / own),
        "common_share": float(change.mean(2).square().mean() / change.square().mean()),
        "pairs": _pairs(change),
        "pairs_own_std": _pairs(start - start.mean(0)),
        "beyond_ideal": _median(_rms(change - ideal)),
        "beyond_own": _median(_rms(change - slope * ideal)),
        "border": _border(change, ideal, slope, shifted.shift_px, largest),
        "target": {
            "independent": _median(_rms(independent)),
            "shared": _median(_rms(next_change - change)),
            "motion": _median((next_start - start).square().mean(0).sqrt()),
        },
    }


def _border(
    change: Tensor, ideal: Tensor, slope: Tensor, shift_px: Tensor, largest: int
) -> list[dict[str, Any]]:
    """Change along an axis by how many pixels the picture moved along it, to either side."""
    rows = []
    for px in range(largest + 1):
        taken = (shift_px.abs() == px).unsqueeze(2).to(change)  # (N, D, 1, 2)
        if not bool(taken.any(1).any(0).all()):
            continue  # few draws: this one never came up
        row: dict[str, Any] = {"shift_px": px}
        row["follow"] = None if px == 0 else _median(_slope(change, ideal, taken))
        for name, rest in {"ideal": change - ideal, "own": change - slope * ideal}.items():
            mean = (rest.square() * taken).sum((0, 1)) / taken.sum((0, 1))
            row[f"beyond_{name}"] = _median(mean.sqrt())
        rows.append(row)
    return rows


def _slope(change: Tensor, ideal: Tensor, weight: Tensor) -> Tensor:
    """Least-squares slope (F, 2), through the origin, of the changes on the ideal ones."""
    both = (change * ideal * weight).sum((0, 1))
    return both / (ideal.square() * weight).sum((0, 1))


def _pairs(values: Tensor) -> float:
    """RMS of ``values`` (..., F, 2) of one map minus another's, over all pairs of maps.

    The mean square over pairs is 2 F / (F - 1) times the mean variance over the F maps.
    """
    maps = values.shape[-2]
    return float((values.var(-2, correction=0).mean() * 2 * maps / (maps - 1)).sqrt())


def _rms(values: Tensor) -> Tensor:
    """Of each coordinate: (N, D, F, 2) -> (F, 2)."""
    return values.square().mean((0, 1)).sqrt()


def _median(values: Tensor) -> float:
    # Not torch.median, which takes the lower of two middle values.
    return float(values.flatten().quantile(0.5))
