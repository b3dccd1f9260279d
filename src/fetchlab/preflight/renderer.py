"""Which OpenGL backend MuJoCo renders with, found out by rendering.

A backend that is installed may still fail (no driver, no device), and a failed import of MuJoCo's
OpenGL modules cannot be undone in a process. So each candidate renders one tiny picture in a
process of its own, before this process imports ``mujoco``. Software EGL and OSMesa both take about
a second, most of it imports.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache, partial

from fetchlab.errors import ConfigError
from fetchlab.patience import SLICES, patiently

#: EGL first: it is the one that reaches a GPU.
CANDIDATES = ("egl", "osmesa")
PACKAGES = "libegl1 libgl1-mesa-dri libegl-mesa0 libosmesa6"
PROBE_TIMEOUT_S = 60.0  # a GPU's driver takes several seconds on a machine that just started

# A white box fills the lower part of the picture; a context that draws nothing leaves it black.
_PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string(
    "<mujoco><worldbody><light pos='0 0 2'/><geom type='box' size='.3 .3 .3'/></worldbody></mujoco>"
)
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 16, 16) as renderer:
    renderer.update_scene(data)
    if not renderer.render().any():
        raise RuntimeError("the picture came out black")
    from OpenGL import GL
    name, version = (GL.glGetString(key).decode() for key in (GL.GL_RENDERER, GL.GL_VERSION))
print(f"{name}, OpenGL {version}", flush=True)

import os
if os.environ["MUJOCO_GL"] == "egl" and "MUJOCO_EGL_DEVICE_ID" not in os.environ:
    from mujoco import egl
    from mujoco.egl import egl_ext
    alike = []
    for index in range(len(egl_ext.eglQueryDevicesEXT())):
        os.environ["MUJOCO_EGL_DEVICE_ID"], egl.EGL_DISPLAY = str(index), None
        try:
            context = egl.GLContext(16, 16)
            context.make_current()
            if GL.glGetString(GL.GL_RENDERER).decode() == name:
                alike.append(str(index))
            context.free()
        except Exception:
            pass  # another vendor's device, which this driver cannot open
    print(",".join(alike), flush=True)
"""


@dataclass(frozen=True)
class RendererInfo:
    """The renderer of a run, for its record.

    Attributes:
        backend: the value of ``MUJOCO_GL``.
        description: GL_RENDERER and GL_VERSION; pictures are bit-identical only where it is equal.
        egl_devices: EGL's numbers of all devices of that name, such as ``0,1``.
    """

    backend: str
    description: str
    egl_devices: str


def choose_renderer() -> RendererInfo:
    """Find a backend that renders and select it for this process and its children.

    ``MUJOCO_GL``, where set, is the only candidate. Sets ``MUJOCO_GL``, ``PYOPENGL_PLATFORM`` and
    ``FETCHLAB_RENDERER``; where this process itself renders, call it before anything imports
    ``mujoco``. Probed once a process. Where several GPUs render alike, ``FETCHLAB_EGL_DEVICES``
    names them and simulator workers take them in turn, unless ``MUJOCO_EGL_DEVICE_ID`` or, as
    schedulers do, ``CUDA_VISIBLE_DEVICES`` assigns one.

    Raises:
        ConfigError: no candidate renders; the message has each one's reason and the packages.
    """
    asked = os.environ.get("MUJOCO_GL", "").strip().lower()
    candidates = (asked,) if asked else CANDIDATES
    reasons = []
    for backend in candidates:
        found = _probe(backend)
        if isinstance(found, RendererInfo):
            os.environ.update(_environment(backend))
            if "CUDA_VISIBLE_DEVICES" not in os.environ and "," in found.egl_devices:
                os.environ["FETCHLAB_EGL_DEVICES"] = found.egl_devices
            return found
        reasons.append(f"{backend}: {found}")
    remedy = f"as root run `apt-get update && apt-get install --no-install-recommends {PACKAGES}`"
    if asked:
        remedy += ", or unset MUJOCO_GL to let one be found"
    expected = f"an OpenGL backend that renders without a display ({'; '.join(reasons)})"
    raise ConfigError("MUJOCO_GL", asked, expected, remedy)


def _environment(backend: str) -> dict[str, str]:
    """Variables that select ``backend``; MuJoCo refuses a PyOpenGL platform that differs.

    The last one says that this backend was found to work: see `fetchlab.envs.without_gl`.
    """
    platform = {"PYOPENGL_PLATFORM": backend} if backend in CANDIDATES else {}
    return {"MUJOCO_GL": backend, **platform, "FETCHLAB_RENDERER": backend}


@cache
def _probe(backend: str) -> RendererInfo | str:
    """The renderer behind a backend, or in one line why it fails."""
    with subprocess.Popen(
        # -P: a file of the working folder must not shadow a module
        [sys.executable, "-P", "-c", _PROBE],
        env={**os.environ, **_environment(backend)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        try:
            out, err = patiently(partial(process.communicate, timeout=PROBE_TIMEOUT_S / SLICES))
        except subprocess.TimeoutExpired:
            return f"no picture within {PROBE_TIMEOUT_S:.0f} s"
        finally:
            process.kill()
    if out.strip():  # a picture was there; a device beyond the first may have failed
        description, *devices = out.strip().splitlines()
        return RendererInfo(backend, description.strip()[:200], "".join(devices[:1]).strip())
    *_, last = ["", *err.strip().splitlines()]
    return last.strip()[:200] or f"exit status {process.returncode}"
