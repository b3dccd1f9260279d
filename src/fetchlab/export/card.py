"""The model card of an exported policy: written from its description and its run's evaluations."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from fetchlab.entries import ACHIEVED_GOAL, DESIRED_GOAL, PIXELS, PROPRIO, STATE

CURVE = "curve.svg"
_ROWS = 12  # of the curve's table
_MEANS = {
    PIXELS: "{stack} camera frame(s), oldest first, RGB from 0 to 255",
    STATE: "the simulator's observation, as it gives it",
    PROPRIO: "the robot's own sensors, entries {proprio} of the simulator's observation",
    ACHIEVED_GOAL: "where the object is, as the simulator gives it",
    DESIRED_GOAL: "where it should be",
}

CARD = """\
---
license: mit
library_name: fetchlab
pipeline_tag: reinforcement-learning
tags: [reinforcement-learning, robotics, {env_id}]
---
# {experiment}, seed {seed}

A policy for `{env_id}` (gymnasium-robotics), learned by {algorithm} in {env_steps:,} env steps.

{success}

## Use
In this project, without the run that it comes from:

```bash
python src/evaluate.py policy=DIR video=true
```

Anywhere else, with torch {torch} or newer alone:

```python
import torch

policy = torch.export.load("policy.pt2").module()
observation = {{
{observation}
}}
action = policy(observation)  # (B, {action_dim}), in [-1, 1]
```

| input | shape | dtype | what it is |
| --- | --- | --- | --- |
{inputs}

{camera}`policy.safetensors` holds the weights and the statistics of the inputs, `policy.json`
all else. Inputs are normalised inside. {precision}

## How it was made
```bash
{command}
```

{made}

{curve}
## Licence
MIT, as the project.
"""


def card(description: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> str:
    """The text of ``README.md``, from what ``policy.json`` holds and evaluations, perhaps none."""
    names = [one["name"] for one in description["inputs"]]
    return CARD.format(
        **{name: description[name] for name in ("experiment", "seed", "algorithm", "env_steps")},
        env_id=description["task"]["env_id"],
        success=_success(description["evaluation"]),
        torch=description["exported"]["versions"]["torch"].partition("+")[0],
        observation="\n".join(f'    "{name}": {name},' for name in names),
        action_dim=description["output"]["shape"][-1],
        inputs="\n".join(_input(one, description) for one in description["inputs"]),
        camera=_camera(description["camera"]),
        precision=_precision(description["precision"]),
        command=description["training"]["command"],
        made=_made(description),
        curve=_curve(history),
    )


def _success(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "It was not evaluated."
    low, high = found["success_rate_95"]
    return (
        f"**Success {found['success_rate']:.0%}** (95 % interval {low:.0%} to {high:.0%}, "
        f"{found['episodes']} episodes: {found['seeds_are']}), at an episode's last step; return "
        f"{found['return']:.1f}, goal distance {found['goal_distance_m']:.3f} m."
    )


def _input(one: Mapping[str, Any], description: Mapping[str, Any]) -> str:
    shape = ", ".join(str(size) for size in one["shape"])
    stack, proprio = description["frame_stack"], description["proprio"]
    means = _MEANS[one["name"]].format(stack=stack, proprio=proprio)
    return f"| `{one['name']}` | ({shape}) | {one['dtype']} | {means} |"


def _camera(pixels: Mapping[str, Any] | None) -> str:
    if pixels is None:
        return ""
    places = [pixels["camera"] or "gymnasium's own", *pixels["more_cameras"].values()]
    told = "; and, in the channels after its, ".join(
        ", ".join(f"{key} {value}" for key, value in place.items())
        if isinstance(place, Mapping)
        else place
        for place in places
    )
    side, goal = pixels["image_size"], "shown" if pixels["show_goal"] else "not shown"
    return f"The camera: {side}x{side} pixels; {told} (metres, degrees); the goal is {goal}.\n\n"


def _precision(name: str) -> str:
    if name == "float32":
        return "It computes in float32."
    return f"Images are encoded in {name}, as in training and in the evaluation above."


def _made(description: Mapping[str, Any]) -> str:
    training, exported = description["training"], description["exported"]
    hours = training["wall_time_s"]
    took = "" if hours is None else f" in {hours / 3600:.1f} hours"
    where = f"Trained on {training['processor'] or training['device'] or 'unknown hardware'}{took}."
    versions = training["versions"]
    which = "with" if versions else "versions of the training were not recorded; exported with"
    listed = ", ".join(f"{name} {one}" for name, one in (versions or exported["versions"]).items())
    commit = exported["commit"]
    return f"{where} {which.capitalize()} {listed}" + (
        f"; exported at commit `{commit}`." if commit else "."
    )


def _curve(history: Sequence[Mapping[str, Any]]) -> str:
    if not history:
        return ""
    rows = (
        [history[len(history) * i // _ROWS] for i in range(_ROWS)] if len(history) > _ROWS else []
    )
    rows = [*(rows or history[:-1]), history[-1]]
    lines = [
        f"![Success against env steps]({CURVE})\n",
        "| env steps | success | 95 % |",
        "| --- " * 3 + "|",
    ]
    for row in rows:
        low, high = row["success_rate_95"]
        lines.append(
            f"| {row['env_steps']:,} | {row['success_rate']:.0%} | {low:.0%} to {high:.0%} |"
        )
    return "\n".join(lines) + "\n"


def curve_svg(history: Sequence[Mapping[str, Any]]) -> str:
    """Success against env steps with its 95 % band; the same history gives the same bytes."""
    import matplotlib
    from matplotlib.figure import Figure

    steps = [row["env_steps"] for row in history]
    low, high = zip(*(row["success_rate_95"] for row in history), strict=True)
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "fetchlab", "svg.fonttype": "none"}):
        figure = Figure(figsize=(5, 2.6), layout="constrained")
        axes = figure.subplots()
        axes.fill_between(steps, low, high, alpha=0.25, linewidth=0)
        axes.plot(steps, [row["success_rate"] for row in history], marker=".")
        axes.set(xlabel="env steps", ylabel="success", ylim=(0, 1), xlim=(0, None))
        axes.grid(alpha=0.3)
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
