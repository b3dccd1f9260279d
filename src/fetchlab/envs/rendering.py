"""Renders one simulator's camera frames through MuJoCo, without gymnasium's viewer.

``reference`` makes the same OpenGL calls as gymnasium's ``OffScreenViewer`` and gives the same
pixels. ``fast`` leaves out multisampling and the shadow pass, about three times quicker with a
software renderer; edges lose their smoothing (mean absolute difference about 2 of 255).
"""

from __future__ import annotations

import atexit
import os
import weakref
from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np
from gymnasium_robotics.envs.fetch.fetch_env import DEFAULT_CAMERA_CONFIG

from fetchlab.envs.culling import HIDDEN_GROUP, ViewCulling, fixed_geoms
from fetchlab.envs.observation import refresh_poses
from fetchlab.errors import require
from fetchlab.schema import Camera, Pixels

if TYPE_CHECKING:
    from gymnasium_robotics.envs.fetch import MujocoFetchEnv

_MAX_GEOMS = 1000  # as gymnasium


class FrameRenderer:
    """One camera on one simulator. Needs an OpenGL backend, chosen by ``MUJOCO_GL`` before import.

    Args:
        inner: the unwrapped gymnasium-robotics environment. Its model's visual settings change, and
            the goal marker's place and group; nothing that physics reads.
        spec: what to draw.
    """

    def __init__(self, inner: MujocoFetchEnv, spec: Pixels) -> None:
        model, size = inner.model, spec.image_size
        fast = spec.quality == "fast"
        self._inner, self._model, self._data = inner, model, inner.data
        self._goal_site = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SITE, "target0")
        if not spec.show_goal:
            model.site_group[self._goal_site] = HIDDEN_GROUP
        model.vis.global_.offwidth = model.vis.global_.offheight = size
        if fast:
            model.vis.quality.offsamples = model.vis.quality.shadowsize = 0
        self._scene = mujoco.MjvScene(model, _MAX_GEOMS)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = not fast
        self._camera = _camera(spec.camera)
        self._option, self._perturb = mujoco.MjvOption(), mujoco.MjvPerturb()
        self._gl, self._context = _open_gl(model, size)
        self._free = weakref.finalize(self, _free_gl, self._gl, self._context)
        # At exit before EGL's own clean-up, which the context above registered: last in, first out.
        self._free.atexit = False
        atexit.register(self._free)
        self._viewport = mujoco.MjrRect(0, 0, size, size)
        self._rgb = np.zeros((size, size, 3), np.uint8)
        # OpenGL's rows run upwards; images are (C, H, W) with rows running down.
        self._image = self._rgb[::-1].transpose(2, 0, 1)
        self._culling: ViewCulling | None = None
        if fast:
            shown = self._visible_groups()
            self._culling = ViewCulling(model, self._scene, shown)

    def render(self) -> np.ndarray:
        """Return a new (3, H, W) uint8 frame of the simulator's present state.

        As gymnasium's ``render`` this moves the goal marker and recomputes derived poses, hidden
        marker or not: in tasks whose step leaves them stale, the next action depends on it.
        """
        model, data = self._model, self._data
        offset = data.site_xpos[0] - model.site_pos[0]
        model.site_pos[self._goal_site] = self._inner.goal - offset
        refresh_poses(model, data)
        if self._culling is not None:
            self._culling.apply(data.geom_xpos)
        self._draw()
        return np.ascontiguousarray(self._image)

    def close(self) -> None:
        """Free the OpenGL resources; rendering afterwards is an error."""
        self._free()
        atexit.unregister(self._free)

    def _draw(self) -> None:
        """Picture the present poses in ``self._rgb``, whose rows run upwards."""
        # Several environments of one process take turns, and EGL contexts unseat each other.
        self._gl.make_current()
        mujoco.mjv_updateScene(
            self._model,
            self._data,
            self._option,
            self._perturb,
            self._camera,
            mujoco.mjtCatBit.mjCAT_ALL,
            self._scene,
        )
        mujoco.mjr_render(self._viewport, self._scene, self._context)
        mujoco.mjr_readPixels(self._rgb, None, self._viewport, self._context)

    def _visible_groups(self) -> np.ndarray:
        """Return the model's geom groups (ngeom,), less the geoms that can never be seen.

        A geom that cannot move and is covered by others that cannot move stays covered, whatever
        else comes in front. A picture in which colours are scene indices finds these.
        """
        model, scene = self._model, self._scene
        groups, fixed = model.geom_group.copy(), fixed_geoms(model)
        model.geom_group[~fixed] = HIDDEN_GROUP
        flags = scene.flags.copy()
        scene.flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = 1
        scene.flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = 1
        refresh_poses(model, self._data)
        self._draw()
        scene.flags[:], model.geom_group[:] = flags, groups
        seen = set(np.unique(self._rgb.reshape(-1, 3) @ (1, 1 << 8, 1 << 16)).tolist())
        drawn = {
            geom.objid
            for geom in scene.geoms[: scene.ngeom]
            if geom.objtype == mujoco.mjtObj.mjOBJ_GEOM and geom.segid + 1 in seen
        }
        covered = [geom for geom in np.flatnonzero(fixed) if geom not in drawn]
        groups[covered] = HIDDEN_GROUP
        return groups


def _open_gl(model: mujoco.MjModel, size: int) -> tuple[Any, mujoco.MjrContext]:
    """Return an OpenGL context and MuJoCo's resources in it, with a buffer of ``size`` pixels."""
    backend = os.environ.get("MUJOCO_GL")
    require(
        hasattr(mujoco, "GLContext"),
        "MUJOCO_GL",
        backend,
        "a backend that renders",
        "set MUJOCO_GL=egl (or osmesa) before Python starts",
    )
    gl = mujoco.GLContext(size, size)
    gl.make_current()
    context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
    return gl, context


def _free_gl(gl: Any, context: mujoco.MjrContext) -> None:
    gl.make_current()
    context.free()
    gl.free()


def _camera(spec: Camera | None) -> mujoco.MjvCamera:
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE
    if spec is None:
        spec = Camera(**DEFAULT_CAMERA_CONFIG)
    camera.lookat[:] = spec.lookat
    camera.distance = spec.distance
    camera.azimuth = spec.azimuth
    camera.elevation = spec.elevation
    return camera
