"""What an encoder puts out over real frames, and how loud that is beside the vector inputs.

    python scripts/feature_stats.py [--experiment pixel_push | --run RUN_DIR] [pooling=... ...]

The heads' first layer sees image features and vectors side by side: a feature that never varies is
dead weight, and one that varies a hundred times less than its neighbours is heard late. Frames are
of random actions; networks untrained and, of a run, trained. Untrained networks normalise vectors
by the rows of these rollouts, as a run does by the steps before it learns.
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
from measure.entries import (  # noqa: E402
    DEAD_STD,
    entry_statistics,
    input_statistics,
    map_statistics,
    softmax_statistics,
)
from measure.frames import Moments, collect  # noqa: E402
from measure.layers import look  # noqa: E402
from measure.subjects import Subject, answer, command_line, subject  # noqa: E402
from measure.tables import each, heading, percent, row, write_json  # noqa: E402

from fetchlab.entries import DESIRED_GOAL  # noqa: E402

QUANTILES = {"min": 0.0, "10 %": 0.1, "median": 0.5, "90 %": 0.9, "max": 1.0}


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = command_line(__doc__, frames=(64, 2, "moments, each of another episode"))
    parser.add_argument("--entries", action="store_true", help="print every entry, not quantiles")
    options = parser.parse_args(argv)
    return answer(lambda: report(options))


def report(options: argparse.Namespace) -> None:
    """Measure, print, and write."""
    of = subject(options)
    found = measure(of, collect(of.cfg, options.frames))
    write_json(options.json, found)
    show(found, options.entries)


@torch.no_grad()
def measure(of: Subject, moments: Moments) -> dict[str, Any]:
    """All numbers of the report, as `show` takes them."""
    networks: dict[str, Any] = {}
    for name, module in of.networks(moments.layout).items():
        agent = module.agent
        assert agent.encoder is not None
        if name == "untrained":
            module.observe(moments.visited)
            agent.normalizer.freeze()
        layers = look(agent.encoder, moments.pixels)
        vectors = agent.vectors(moments.rows, moments.rows.get(DESIRED_GOAL))
        networks[name] = {
            "maps": map_statistics(layers.maps),
            "softmax": softmax_statistics(agent.encoder.pooling, layers.maps),
            "features": entry_statistics(layers.features),
            "actor": input_statistics(agent.actor_inputs, vectors, layers.features),
            "critic": input_statistics(agent.critic_inputs, vectors, layers.features),
        }
    return {
        "title": of.title,
        "frames": len(moments.pixels),
        "normalize": of.cfg["obs"]["normalize"],
        "pooling": of.cfg["pooling"]["_target_"].rpartition(".")[2],
        "networks": networks,
    }


def show(found: Mapping[str, Any], every_entry: bool) -> None:
    """Print the report."""
    networks = found["networks"]
    print(f"Encoder outputs: {found['title']}, {found['frames']} moments of random actions")
    _show_maps(networks, found["pooling"])
    for name, one in networks.items():
        _show_features(name, one["features"], every_entry)
    for head in ("actor", "critic"):
        _show_inputs(head, {name: one[head] for name, one in networks.items()}, found["normalize"])


def _show_maps(networks: Mapping[str, Any], pooling: str) -> None:
    shape = " x ".join(str(side) for side in next(iter(networks.values()))["maps"]["shape"])
    heading(f"feature maps before the pooling, {shape}", *networks)
    for text, key in (("mean", "mean"), ("std", "std"), ("largest", "max")):
        row(text, *each(networks, "maps", key))
    row("share of zeros", *[percent(share) for share in each(networks, "maps", "zeros")])
    row("share of maps that are always 0", *[percent(v) for v in each(networks, "maps", "dead")])
    if any(softmax is None for softmax in each(networks, "softmax")):
        print(f"  temperature: not defined, {pooling} has none")
        return
    row("spatial softmax's temperature", *each(networks, "softmax", "temperature"))
    positions = each(networks, "softmax", "positions")[0]
    row(f"positions it spreads over, of {positions} (median)", *each(networks, "softmax", "used"))


def _show_features(name: str, features: Mapping[str, Any], every_entry: bool) -> None:
    keys = ("mean", "std", "min", "max")
    columns = {key: torch.tensor(features[key], dtype=torch.float64) for key in keys}
    size = len(features["mean"])
    heading(f"the {size} entries of the encoder's output: {name}", *keys)
    if every_entry:
        for entry in range(size):
            row(f"entry {entry}", *[float(values[entry]) for values in columns.values()])
    else:
        for text, share in QUANTILES.items():
            row(f"{text} over entries", *[float(v.quantile(share)) for v in columns.values()])
    row(f"share of dead entries, std < {DEAD_STD:g}", "", percent(features["dead"]))


def _show_inputs(head: str, networks: Mapping[str, Any], normalize: str) -> None:
    columns = [f"{name[:9]} {what}" for name in networks for what in ("rms", "std")]
    heading(f"what the {head}'s first layer sees, obs.normalize={normalize}", *columns)
    entries = next(iter(networks.values()))["entries"]
    for name, one in entries.items():
        cells = [n["entries"][name][key] for n in networks.values() for key in ("rms", "std_rms")]
        row(f"{name} ({one['size']})", *cells)
    if "pixels" not in entries:
        print(f"  image features to vectors: not defined, the {head} sees no pixels")
        return
    ratios = [n[key] for n in networks.values() for key in ("rms_ratio", "std_ratio")]
    row("an image feature / a vector's entry", *ratios)


if __name__ == "__main__":
    sys.exit(main())
