"""The model card of an exported policy: written from its description and its run's evaluations."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from fetchlab.durations import format_duration
from fetchlab.entries import ACHIEVED_GOAL, DESIRED_GOAL, PIXELS, PROPRIO, STATE

CURVE = "curve.svg"
_ROWS = 12  # of the curve's table
_MEANS = {
    PIXELS: "{frame_stack} camera frame(s), oldest first, RGB from 0 to 255",
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
tags: [reinforcement-learning, robotics, {{ task.env_id }}]
---
# {{ experiment }}, seed {{ seed }}

A policy for `{{ task.env_id }}` (gymnasium-robotics), learned by {{ algorithm }} in \
{{ "{:,}".format(env_steps) }} env steps.

{% if evaluation %}
**Success {{ evaluation.success_rate | percent }}** (95 % interval \
{{ evaluation.success_rate_95 | map("percent") | join(" to ") }}, \
{{ evaluation.episodes }} episodes: {{ evaluation.seeds_are }}), at an episode's last step; return \
{{ "%.1f" % evaluation.return }}, goal distance {{ "%.3f" % evaluation.goal_distance_m }} m.
{% else %}
It was not evaluated.
{% endif %}

## Use
In this project, without the run that it comes from:

```bash
python src/evaluate.py policy=DIR video=true
```

{% if with_program %}
Anywhere else, with torch {{ exported.versions.torch.partition("+")[0] }} or newer alone:

```python
import torch

policy = torch.export.load("policy.pt2").module()
observation = {
{% for one in inputs %}
    "{{ one.name }}": {{ one.name }},
{% endfor %}
}
action = policy(observation)  # (B, {{ output.shape[-1] }}), in [-1, 1]
```

{% endif %}
| input | shape | dtype | what it is |
| --- | --- | --- | --- |
{% for one in inputs %}
| `{{ one.name }}` | ({{ one.shape | join(", ") }}) | {{ one.dtype }} | {{ means[one.name] }} |
{% endfor %}

{% if camera %}
The camera: {{ camera.image_size }}x{{ camera.image_size }} pixels; \
{% for place in [camera.camera or "gymnasium's own"] + camera.more_cameras.values() | list %}\
{{ "" if loop.first else "; and, in the channels after its, " }}\
{{ place.items() | map("join", " ") | join(", ") if place is mapping else place }}\
{% endfor %} (metres, degrees); the goal is {{ "shown" if camera.show_goal else "not shown" }}.

{% endif %}
`policy.safetensors` holds the weights and the statistics of the inputs, `policy.json`
all else. Inputs are normalised inside. \
{{ "It computes in float32." if precision == "float32" else
   "Images are encoded in %s, as in training and in the evaluation above." % precision }}

## How it was made
```bash
{{ training.command }}
```

Trained on {{ training.processor or training.device or "unknown hardware" }}\
{{ "" if training.wall_time_s is none else " in " ~ training.wall_time_s | duration }}\
{% if training.wall_time_s is not none and (training.env_steps or 0) > env_steps %}
 (the whole run, {{ "{:,}".format(training.env_steps) }} env steps)\
{% endif %}
. \
{{ "With" if training.versions else "Versions of the training were not recorded; exported with" }} \
{{ (training.versions or exported.versions).items() | map("join", " ") | join(", ") }}\
{{ "; exported at commit `%s`" % exported.commit if exported.commit else "" }}.

{% if rows %}
![Success against env steps]({{ curve }})

| env steps | success | 95 % |
| --- | --- | --- |
{% for row in rows %}
| {{ "{:,}".format(row.env_steps) }} | {{ row.success_rate | percent }} | \
{{ row.success_rate_95 | map("percent") | join(" to ") }} |
{% endfor %}
{% endif %}

## Licence
MIT, as the project.
"""


def card(
    description: Mapping[str, Any], history: Sequence[Mapping[str, Any]], with_program: bool
) -> str:
    """The text of ``README.md``.

    Args:
        description: what ``policy.json`` holds.
        history: evaluations, perhaps none.
        with_program: whether ``policy.pt2`` is beside it.
    """
    count = len(history)
    some = [history[count * i // _ROWS] for i in range(_ROWS)] if count > _ROWS else history[:-1]
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"percent": "{:.0%}".format, "duration": format_duration}
    return environment.from_string(CARD).render(
        description,
        with_program=with_program,
        means={name: text.format_map(description) for name, text in _MEANS.items()},
        rows=[*some, *history[-1:]],
        curve=CURVE,
    )


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
