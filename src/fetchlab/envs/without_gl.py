"""Imported for its effect, before torchrl: ``mujoco``, without OpenGL unless a renderer was chosen.

TorchRL imports MuJoCo, and MuJoCo the library that ``MUJOCO_GL`` names. Where that is missing, or
its name mistyped, a run that renders nothing would fail for it, and one that renders before
`fetchlab.preflight.renderer` could say so in one line. Nobody misses it: workers render, not this
process. (Scripts and tests that do have chosen a renderer before.)
"""

from __future__ import annotations

import os

_asked = os.environ.get("MUJOCO_GL")
if _asked is None or os.environ.get("FETCHLAB_RENDERER") != _asked:
    os.environ["MUJOCO_GL"] = "disabled"
try:
    import mujoco  # noqa: F401
finally:
    del os.environ["MUJOCO_GL"]
    if _asked is not None:
        os.environ["MUJOCO_GL"] = _asked
