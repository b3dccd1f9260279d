"""Leaves out of the picture what the camera cannot see, before OpenGL transforms its vertices.

A software renderer spends most of a small frame on vertices, and the Fetch robot has 34,000 faces,
15,000 of them in its emergency stop and its laser. A geom whose bounding sphere lies wholly outside
the view cannot colour a pixel; nor can one that never moves and stands behind others that never
move. Leaving these out changes no pixel.
"""

from __future__ import annotations

import mujoco
import numpy as np

HIDDEN_GROUP = 5  # MuJoCo draws groups 0, 1 and 2, of geoms and of sites
_IMMOVABLE_DAMPING = 1e9  # the Fetch base slides with 1e11: less than a micrometre per episode


class ViewCulling:
    """Hides geoms outside a camera's view by moving them to a group that is not drawn.

    Only rendering reads ``model.geom_group`` on Fetch, never the physics.

    Args:
        model: the simulator's model; ``geom_group`` is rewritten on every `apply`.
        scene: a scene updated with a camera that does not move afterwards.
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


def fixed_geoms(model: mujoco.MjModel) -> np.ndarray:
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
    normals = np.array(
        [
            top * forward - near * up,
            -bottom * forward + near * up,
            half_width * forward - near * side,
            half_width * forward + near * side,
        ]
    )
    return normals / np.linalg.norm(normals, axis=1, keepdims=True), apex
