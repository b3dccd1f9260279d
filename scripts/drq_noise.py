"""What DrQ's random shift does to SpatialSoftmax's coordinates, against the signal in them.

    python scripts/drq_noise.py [--experiment pixel_push | --run RUN_DIR] [encoder=nature_cnn ...]

The study explained cell D's failure by hand: a shift of 4 pixels (DrQ, Kostrikov et al. 2020, arXiv
2004.13649) moves coordinates (Levine et al. 2016, arXiv 1504.00702) by as much as gripper and
object are apart. This measures it, with the real encoder, augmentation and frames of random
actions: the geometry, the signal, and the noise of an untrained encoder and, of a run, the trained
one. Everything is in coordinate units: the centres of a map's border cells are -1 and 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import torch  # noqa: E402
from hydra.utils import instantiate  # noqa: E402
from measure.frames import Moments, collect  # noqa: E402
from measure.geometry import geometry, signal, uniform_std  # noqa: E402
from measure.layers import coordinates_of  # noqa: E402
from measure.shifts import noise, shift_all  # noqa: E402
from measure.subjects import Subject, answer, command_line, subject  # noqa: E402
from measure.tables import each, heading, over, percent, row, write_json  # noqa: E402

from fetchlab.augment import RandomShift  # noqa: E402
from fetchlab.config import compose  # noqa: E402
from fetchlab.networks.pooling import SpatialSoftmax  # noqa: E402

#: The study's two estimates: noise and signal in coordinate units, their ratio as it gave it.
STUDY = (
    ("first: 4 px are 4 map cells", "0.42", "0.74", "57%"),
    ("later: 4 px are 1 map cell, two draws", "0.20", "0.25-0.50", "40-80%"),
)
_ABOUT_STUDY = """\
  The study took the largest shift for its std and twice that for two draws, which add as sqrt(2);
  first it forgot the stride. And a shift moves gripper and object together: of coordinates that
  follow the picture, only the change between maps is noise in what the two are apart."""
_ABOUT_NOISE = """\
  / signal is fair for coordinates that follow the picture (change / the picture's near 1); nearly
  flat softmaxes shrink noise and signal alike, so there / its own std tells how they compare."""
_ABOUT_BORDER = """\
  follows: change / ideal change, the picture's own. - ideal: RMS of the change less the ideal one;
  - its own: less as much of it as the coordinate follows, so border, stride and the other axis."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = command_line(
        __doc__, frames=(64, 2, "moments, each of another episode"), draws=(32, 2, "shifts of each")
    )
    options = parser.parse_args(argv)
    return answer(lambda: report(options))


def report(options: argparse.Namespace) -> None:
    """Measure, print, and write."""
    of = subject(options)
    found = measure(of, collect(of.cfg, options.frames), options.draws)
    write_json(options.json, found)
    show(found)


def measure(of: Subject, moments: Moments, draws: int) -> dict[str, Any]:
    """All numbers of the report, as `show` takes them.

    Args:
        of: the experiment or run.
        moments: frames of it.
        draws: shifts of each moment, at least 2.
    """
    shape, shift = geometry(of.cfg), instantiate(of.cfg["augment"])
    own = isinstance(shift, RandomShift)
    if not isinstance(shift, RandomShift):
        shift = instantiate(compose("pixel_push")["augment"])
    rng = torch.Generator().manual_seed(of.cfg["seed"])
    std_px = uniform_std(shift.pad)
    found: dict[str, Any] = {
        "title": of.title,
        "frames": len(moments.pixels),
        "draws": draws,
        "shift": {"pad_px": shift.pad, "used_in_training": own, "shared_draw": shift.shared_draw},
        "geometry": {
            **shape._asdict(),
            "cells_per_px": shape.cells_per_px,
            "coordinate_per_px": shape.per_px,
            "std_px": std_px,
            "std": std_px * shape.per_px,
            "std_two_draws": std_px * shape.per_px * 2**0.5,
            "largest": shift.pad * shape.per_px,
        },
        "signal": signal(of.cfg, moments, shape),
        "noise": {},
        "undefined": {},
    }
    images = (moments.pixels, moments.next_pixels)
    for name, module in of.networks(moments.layout).items():
        encoder = module.agent.encoder
        assert encoder is not None
        if not isinstance(encoder.pooling, SpatialSoftmax):
            kind = type(encoder.pooling).__name__
            found["undefined"][name] = f"{kind} has no coordinates; try pooling=spatial_softmax"
            continue
        shifted = shift_all(coordinates_of(encoder), shift, *images, draws, rng)
        measured = noise(shifted, shape.per_px, shift.pad)
        if measured is None:
            found["undefined"][name] = "fewer than two maps have coordinates that ever change"
        else:
            found["noise"][name] = measured
    return found


def show(found: Mapping[str, Any]) -> None:
    """Print the report."""
    shift, size = found["shift"], found["geometry"]
    pad = shift["pad_px"]
    print(f"Random shift against SpatialSoftmax: {found['title']}")
    print(
        f"{found['frames']} moments x {found['draws']} draws of up to {pad} px, replicate padding"
    )
    if not shift["used_in_training"]:
        print("it trains without a shift: this one is configs/augment/random_shift.yaml")
    print("Coordinate units: the centres of a map's border cells are -1 and 1.")
    _show_geometry(size, pad)
    _show_signal(found["signal"], size)
    if found["noise"]:
        _show_noise(found["noise"], found["signal"], size)
        _show_border(found["noise"])
        _show_target(found["noise"], found["signal"], shift)
    for reason in dict.fromkeys(found["undefined"].values()):
        names = [name for name, why in found["undefined"].items() if why == reason]
        print(f"\nno noise of coordinates ({', '.join(names)}): {reason}")


def _show_geometry(size: Mapping[str, float], pad: int) -> None:
    heading("geometry", "pixels", "map cells", "coordinate")
    row("image; map", size["image_px"], size["map_cells"], "-1 to 1")
    row(
        "one map cell (stride)", size["stride_px"], 1, size["coordinate_per_px"] * size["stride_px"]
    )
    row("one pixel", 1, size["cells_per_px"], size["coordinate_per_px"])
    for text, px in (
        (f"std of a shift uniform in -{pad}..{pad}", size["std_px"]),
        ("std of the difference of two such shifts", size["std_px"] * 2**0.5),
        ("largest shift", pad),
    ):
        row(text, px, px * size["cells_per_px"], px * size["coordinate_per_px"])


def _show_signal(signal: Mapping[str, Any] | None, size: Mapping[str, float]) -> None:
    if signal is None:
        print("\nsignal: not defined, this task has no object beside the gripper")
        return
    heading("signal: object - gripper in the picture, coordinate", "x", "y", "both")
    row("mean; mean distance", *signal["mean"], signal["distance"])
    row("std over moments, RMS of both", *signal["std"], signal["std_rms"])
    row("both are inside the picture", "", "", percent(signal["inside"]))
    heading("noise / signal, if coordinates followed the picture", "noise", "signal", "share")
    for text, std in (("one draw", size["std"]), ("two draws", size["std_two_draws"])):
        for what, key in (("mean distance", "distance"), ("what varies of it", "std_rms")):
            row(f"std of {text} / {what}", std, signal[key], percent(over(std, signal[key])))
    for text, *cells in STUDY:
        row(f"the study, {text}", *cells)
    print(_ABOUT_STUDY)


def _show_noise(
    noise: Mapping[str, Any], signal: Mapping[str, Any] | None, size: Mapping[str, float]
) -> None:
    whole = None if signal is None else signal["std_rms"]
    heading("noise measured, coordinate (median over coordinates)", *noise)
    row("maps that vary over the moments", *each(noise, "live_maps"))
    row("std over the moments: what a coordinate says", *each(noise, "own_std"))
    text = ("a coordinate's change / the picture's, 10 % quantile", "  median", "  90 % quantile")
    for index, what in enumerate(text):
        row(what, *each(noise, "follow", index))
    row("absolute: RMS change by a shift", *each(noise, "absolute"))
    _share_row("ideal", each(noise, "absolute"), size["std"])
    _share_row("signal", each(noise, "absolute"), whole)
    row("  / its own std", *[percent(value) for value in each(noise, "absolute_of_own")])
    row("  common to all maps, of the square", *[percent(v) for v in each(noise, "common_share")])
    row("between maps: RMS change of a difference", *each(noise, "pairs"))
    _share_row("signal", each(noise, "pairs"), whole)
    shares = [percent(over(one["pairs"], one["pairs_own_std"])) for one in noise.values()]
    row("  / its own std", *shares)
    print(_ABOUT_NOISE)


def _show_border(noise: Mapping[str, Any]) -> None:
    for name, one in noise.items():
        columns = ("follows", "- ideal", "- its own")
        heading(f"change along an axis, by the shift along it: {name}", *columns)
        for line in one["border"]:
            values = (line["follow"], line["beyond_ideal"], line["beyond_own"])
            row(f"{line['shift_px']} px", *values)
        row("all", one["follow"][1], one["beyond_ideal"], one["beyond_own"])
    print(_ABOUT_BORDER)


def _show_target(
    noise: Mapping[str, Any], signal: Mapping[str, Any] | None, shift: Mapping[str, Any]
) -> None:
    whole = None if signal is None else signal["std_rms"]
    heading("what a TD target sees: next_obs - obs", *noise)
    row("RMS motion from one step to the next", *each(noise, "target", "motion"))
    for kind in ("independent", "shared"):
        own = shift["used_in_training"] and shift["shared_draw"] == (kind == "shared")
        used = " (this configuration)" if own else ""
        text = {"independent": "two draws", "shared": "one shared draw"}[kind]
        row(f"RMS noise, {text}{used}", *each(noise, "target", kind))
        values = [one["target"] for one in noise.values()]
        row("  / motion", *[percent(over(one[kind], one["motion"])) for one in values])
        _share_row("signal", [one[kind] for one in values], whole)


def _share_row(name: str, values: list[float], whole: float | None) -> None:
    """What each value is of the whole, where there is one."""
    if whole is not None:
        row(f"  / {name}", *[percent(value / whole) for value in values])


if __name__ == "__main__":
    sys.exit(main())
