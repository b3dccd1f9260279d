"""Renders one simulator's camera frames through MuJoCo, without gymnasium's viewer.

``reference`` makes the same OpenGL calls as gymnasium's ``OffScreenViewer`` and gives the same
pixels. ``fast`` leaves out multisampling and the shadow pass, about three times quicker with a
software renderer; edges lose their smoothing (mean absolute difference about 2 of 255).

``supersample=k`` renders k times the height and width and averages blocks of k x k pixels, as the
small images of Squint (arXiv 2602.21203): an object's edge then moves by less than a pixel.
"""

from __future__ import annotations

import atexit
import os
import weakref
from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np
from gymnasium_robotics.envs.fetch.fetch_env import DEFAULT_CAMERA_CONFIG

from fetchlab.envs.fetch_arrays import refresh_poses
from fetchlab.errors import require

if TYPE_CHECKING:
    from gymnasium_robotics.envs.fetch import MujocoFetchEnv

    from fetchlab.schema import Camera, Pixels

HIDDEN_GROUP = 5  # MuJoCo draws groups 0, 1 and 2, of geoms and of sites
_MAX_GEOMS = 1000  # as gymnasium
_View = tuple[mujoco.MjvOption, mujoco.MjvPerturb, mujoco.MjvCamera, mujoco.mjtCatBit]
_IMMOVABLE_DAMPING = 1e9  # the Fetch base slides with 1e11: less than a micrometre per episode


class FrameRenderer:
    """The cameras on one simulator. Needs an OpenGL backend, chosen by ``MUJOCO_GL`` before import.

    Args:
        inner: the unwrapped gymnasium-robotics environment. Its model's visual settings change, and
            the goal marker's place and group; nothing that physics reads.
        spec: what to draw.
    """

    def __init__(self, inner: MujocoFetchEnv, spec: Pixels) -> None:
        model, size = inner.model, spec.rendered_size
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
        self._gl, self._context = _open_gl(model, size)
        self._free = weakref.finalize(self, _free_gl, self._gl, self._context)
        # At exit before EGL's own clean-up, which the context above registered: last in, first out.
        self._free.atexit = False
        atexit.register(self._free)
        self._viewport = mujoco.MjrRect(0, 0, size, size)
        self._rgb, self._block = np.zeros((size, size, 3), np.uint8), spec.supersample
        self._shape = spec.shape
        self._views: list[tuple[_View, ViewCulling | None]] = []
        for place in spec.cameras:
            view, culling = _view(place), None
            if fast:
                culling = ViewCulling(model, self._scene, self._visible_groups(view))
            self._views.append((view, culling))

    def render(self) -> np.ndarray:
        """Return a new (3 V, H, W) uint8 frame of the simulator's present state, view by view.

        As gymnasium's ``render`` this moves the goal marker and recomputes derived poses, hidden
        marker or not: where the gripper can open (PickAndPlace), an extra frame changes the
        following steps in the last millimetres.
        """
        model, data = self._model, self._data
        offset = data.site_xpos[0] - model.site_pos[0]
        model.site_pos[self._goal_site] = self._inner.goal - offset
        refresh_poses(model, data)
        frame = np.empty(self._shape, np.uint8)
        for nth, (view, culling) in enumerate(self._views):
            if culling is not None:
                culling.apply(data.geom_xpos)
            self._draw(view)
            # OpenGL's rows run upwards; images are (C, H, W) with rows running down.
            picture = block_mean(self._rgb, self._block)[::-1]
            frame[3 * nth : 3 * nth + 3] = picture.transpose(2, 0, 1)
        return frame

    def close(self) -> None:
        """Free the OpenGL resources; rendering afterwards is an error."""
        self._free()
        atexit.unregister(self._free)

    def _draw(self, view: _View) -> None:
        # Several environments of one process take turns, and EGL contexts unseat each other.
        self._gl.make_current()
        mujoco.mjv_updateScene(self._model, self._data, *view, self._scene)
        mujoco.mjr_render(self._viewport, self._scene, self._context)
        mujoco.mjr_readPixels(self._rgb, None, self._viewport, self._context)

    def _visible_groups(self, view: _View) -> np.ndarray:
        """The model's geom groups (ngeom,), less the geoms that can never be seen.

        A geom that cannot move and is covered by others that cannot move stays covered, whatever
        else comes in front. A picture in which colours are scene indices finds these.
        """
        model, scene = self._model, self._scene
        groups, fixed = model.geom_group.copy(), _fixed_geoms(model)
        model.geom_group[~fixed] = HIDDEN_GROUP
        flags = scene.flags.copy()
        scene.flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = 1
        scene.flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = 1
        refresh_poses(model, self._data)
        self._draw(view)
        scene.flags[:], model.geom_group[:] = flags, groups
        seen = set(np.unique(self._rgb.reshape(-1, 3) @ (1, 1 << 8, 1 << 16)).tolist())
        drawn = {
            geom.objid
            for geom in scene.geoms[: scene.ngeom]
            if geom.objtype == mujoco.mjtObj.mjOBJ_GEOM and geom.segid + 1 in seen
        }
        groups[[geom for geom in np.flatnonzero(fixed) if geom not in drawn]] = HIDDEN_GROUP
        return groups


class ViewCulling:
    """Hides geoms that a camera cannot see, by moving them to a group that is not drawn.

    A software renderer spends most of a small frame on vertices, and the Fetch robot has 34,000
    faces, 15,000 of them in its emergency stop and its laser. A geom whose bounding sphere lies
    wholly outside the view cannot colour a pixel; nor can one that never moves and stands behind
    others that never move. Only rendering reads ``model.geom_group`` on Fetch, never the physics.

    Args:
        model: its ``geom_group`` is rewritten on every `apply`.
        scene: updated with a camera that does not move afterwards.
        shown: (ngeom,) the groups of geoms in view.
    """

    def __init__(self, model: mujoco.MjModel, scene: mujoco.MjvScene, shown: np.ndarray) -> None:
        self._group = model.geom_group  # a live view
        self._shown = shown
        # Planes have no bounding sphere (0): an infinite one keeps them.
        radius = np.where(model.geom_rbound > 0, model.geom_rbound, np.inf)
        normals, origin = _view_planes(scene)
        self._normals = normals.T.copy()
        self._least = (normals @ origin)[None, :] - radius[:, None]

    def apply(self, geom_xpos: np.ndarray) -> None:
        """Show the geoms whose sphere reaches into the view; ``geom_xpos`` (ngeom, 3), metres."""
        seen = (geom_xpos @ self._normals >= self._least).all(axis=1)
        self._group[:] = np.where(seen, self._shown, HIDDEN_GROUP)


def _view(place: Camera | None) -> _View:
    """All that a camera at that place sees, or gymnasium's, as MuJoCo's scenes take it."""
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE
    for name, value in (DEFAULT_CAMERA_CONFIG if place is None else vars(place)).items():
        setattr(camera, name, value)
    everything = mujoco.mjtCatBit.mjCAT_ALL
    return mujoco.MjvOption(), mujoco.MjvPerturb(), camera, everything


def block_mean(rgb: np.ndarray, block: int) -> np.ndarray:
    """Average blocks of block x block pixels, in whole numbers: every machine gives the same.

    Args:
        rgb: (S, S, 3) uint8, S a multiple of ``block``.
        block: 1 to 16.

    Returns:
        (S / block, S / block, 3) uint8, halves rounded up; ``rgb`` itself where ``block`` is 1.
    """
    if block == 1:
        return rgb
    side, pixels = len(rgb) // block, block**2
    # Rows first, whose sums run along memory: seven times quicker than both axes in one sum.
    # 16 bits are enough: 256 pixels of 255, and the half for rounding, are 65,408.
    rows = np.add.reduce(rgb.reshape(side, block, -1), axis=1, dtype=np.uint16)
    columns = rows.reshape(side, side, block, 3)
    total = columns[:, :, 0] + np.uint16(pixels // 2)
    for column in range(1, block):
        total += columns[:, :, column]
    return (total // np.uint16(pixels)).astype(np.uint8)


def _fixed_geoms(model: mujoco.MjModel) -> np.ndarray:
    """Return which geoms (ngeom,) bool never move: no joint that gives way lies above them."""
    loose = np.zeros(model.nbody, bool)
    loose[model.dof_bodyid[model.dof_damping < _IMMOVABLE_DAMPING]] = True
    loose[model.body_mocapid >= 0] = True
    for body in range(1, model.nbody):  # parents come first
        loose[body] |= loose[model.body_parentid[body]]
    return ~loose[model.geom_bodyid]


def _view_planes(scene: mujoco.MjvScene) -> tuple[np.ndarray, np.ndarray]:
    """Return inward unit normals (4, 3) of the view pyramid's sides, and its apex (3,)."""
    # A scene holds one camera per eye; a mono picture is drawn from their average.
    left, right = scene.camera[0], scene.camera[1]
    apex = (np.asarray(left.pos, float) + right.pos) / 2
    forward, up = np.asarray(left.forward, float), np.asarray(left.up, float)
    side = np.cross(forward, up)
    near, top, bottom = left.frustum_near, left.frustum_top, left.frustum_bottom
    half_width = (top - bottom) / 2  # pictures are square
    vertical = (top * forward - near * up, -bottom * forward + near * up)
    level = (half_width * forward - near * side, half_width * forward + near * side)
    normals = np.array([*vertical, *level])
    return normals / np.linalg.norm(normals, axis=1, keepdims=True), apex


def _open_gl(model: mujoco.MjModel, size: int) -> tuple[Any, mujoco.MjrContext]:
    backend = os.environ.get("MUJOCO_GL")
    remedy = "set MUJOCO_GL=egl (or osmesa) before Python starts"
    require(hasattr(mujoco, "GLContext"), "MUJOCO_GL", backend, "a backend that renders", remedy)
    gl = mujoco.GLContext(size, size)
    gl.make_current()
    context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
    return gl, context


def _free_gl(gl: Any, context: mujoco.MjrContext) -> None:
    gl.make_current()
    context.free()
    gl.free()
