"""Reads a Fetch observation straight from MuJoCo's arrays, with every name looked up once.

gymnasium-robotics looks each joint and site up by name on every step (0.5 ms, a third of a step).
This reader performs the same floating-point operations in the same order, so that its float64
observation is bit-identical to ``MujocoFetchEnv._get_obs``; the tests compare whole episodes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import mujoco
import numpy as np

if TYPE_CHECKING:
    from gymnasium_robotics.envs.fetch import MujocoFetchEnv

#: Cosine of the pitch below which `gymnasium_robotics.utils.rotations` sees a gimbal lock.
_GIMBAL_EPS = 4.0 * float(np.finfo(np.float64).eps)


class ObservationReader:
    """The observation vector of one simulator.

    Layout of the (25,) vector, the (10,) one of Reach having only the robot's entries:
    gripper position 0:3, object position 3:6, object minus gripper 6:9, finger positions 9:11,
    object Euler angles 11:14, object velocity relative to the gripper's 14:17, object angular
    velocity 17:20, gripper velocity 20:23, finger velocities 23:25. Velocities are times dt.

    Args:
        inner: the unwrapped gymnasium-robotics environment, already set up.
    """

    def __init__(self, inner: MujocoFetchEnv) -> None:
        model, data = inner.model, inner.data
        self._model, self._data, self._qvel = model, data, data.qvel
        self._dt = inner.n_substeps * model.opt.timestep
        self._has_object = inner.has_object
        self.dim = 25 if inner.has_object else 10
        self.goal_slice = slice(3, 6) if inner.has_object else slice(0, 3)
        # The robot's own sensors: everything that does not mention the object.
        self.proprio_indices = (
            (0, 1, 2, 9, 10, *range(20, 25)) if inner.has_object else tuple(range(10))
        )
        self.state = np.zeros(self.dim)
        self.achieved_goal = self.state[self.goal_slice]

        # Everything below is a live view: of MuJoCo's arrays to read, of `state` to write.
        state = self.state
        self._grip_site = _site_id(model, "robot0:grip")
        self._grip_pos = data.site_xpos[self._grip_site]
        self._finger_qpos, self._finger_qvel = _fingers(inner)
        self._out_grip_pos, self._out_grip_vel = state[:3], state[-5:-2]
        self._out_finger_qpos = state[9:11] if inner.has_object else state[3:5]
        self._out_finger_qvel = state[-2:]
        self._out_velocities = state[14:] if inner.has_object else state[5:]
        if inner.has_object:
            self._object_site = _site_id(model, "object0")
            self._object_pos = data.site_xpos[self._object_site]
            self._object_mat = data.site_xmat[self._object_site]
            self._out_object_pos, self._out_object_rel_pos = state[3:6], state[6:9]
            self._out_euler = state[11:14]
            self._out_object_vel, self._out_object_rot_vel = state[14:17], state[17:20]
        self._jac_pos, self._jac_rot = np.zeros((3, model.nv)), np.zeros((3, model.nv))

    def read(self) -> np.ndarray:
        """Return the observation (D,) float64: the buffer `state`, which the next call rewrites."""
        model, data, jac_pos, qvel = self._model, self._data, self._jac_pos, self._qvel
        self._out_grip_pos[:] = self._grip_pos
        self._out_finger_qpos[:] = self._finger_qpos
        mujoco.mj_jacSite(model, data, jac_pos, None, self._grip_site)
        jac_pos.dot(qvel, self._out_grip_vel)
        self._out_finger_qvel[:] = self._finger_qvel
        if not self._has_object:
            np.multiply(self._out_velocities, self._dt, self._out_velocities)
            return self.state
        self._out_object_pos[:] = self._object_pos
        np.subtract(self._object_pos, self._grip_pos, self._out_object_rel_pos)
        _mat_to_euler(self._object_mat.tolist(), self._out_euler)
        mujoco.mj_jacSite(model, data, jac_pos, self._jac_rot, self._object_site)
        # Two (3, nv) products, not one (6, nv): BLAS may sum the rows of a taller one differently.
        jac_pos.dot(qvel, self._out_object_vel)
        self._jac_rot.dot(qvel, self._out_object_rot_vel)
        np.multiply(self._out_velocities, self._dt, self._out_velocities)
        np.subtract(self._out_object_vel, self._out_grip_vel, self._out_object_vel)
        return self.state

    def close_fingers(self) -> None:
        """Hold the fingers shut, as tasks without grasping do after every step."""
        self._finger_qpos[:] = 0.0
        refresh_poses(self._model, self._data)


def _mat_to_euler(mat: list[float], out: np.ndarray) -> None:
    """Write the XYZ Euler angles of a row-major rotation matrix into ``out`` (3,)."""
    m00, m01, m02, m10, m11, m12, _, _, m22 = mat
    cos_pitch = math.sqrt(m22 * m22 + m12 * m12)
    # numpy's arctan2, not math's: they may differ in the last bit where numpy has a SIMD version.
    if cos_pitch > _GIMBAL_EPS:
        np.arctan2((m12, -m02, m01), (m22, cos_pitch, m00), out=out)
        np.negative(out, out=out)
    else:
        np.arctan2((0.0, -m02, -m10), (1.0, cos_pitch, m11), out=out)
        np.negative(out, out=out)
        out[0] = 0.0


def _fingers(inner: MujocoFetchEnv) -> tuple[np.ndarray, np.ndarray]:
    """Return live views (2,) of the fingers' positions and velocities."""
    model, data = inner.model, inner.data
    # `robot_get_obs` takes the last two robot joints, in model order.
    names = [name for name in inner._model_names.joint_names if name.startswith("robot")][-2:]
    first, second = (mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, name) for name in names)
    qpos, qvel = model.jnt_qposadr[first], model.jnt_dofadr[first]
    if second != first + 1 or model.jnt_qposadr[second] != qpos + 1:
        raise LookupError(f"the finger joints {names} are not neighbours in the model")
    return data.qpos[qpos : qpos + 2], data.qvel[qvel : qvel + 2]


def _site_id(model: mujoco.MjModel, name: str) -> int:
    site = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SITE, name)
    if site < 0:
        raise LookupError(f"site {name!r} is not part of the model")
    return site


def refresh_poses(model: mujoco.MjModel, data: mujoco.MjData) -> None:
    """Recompute the poses that observations, actions and pictures read, from ``data.qpos``.

    gymnasium-robotics calls ``mj_forward`` here, which also solves for contacts and accelerations
    that nobody reads: the next step solves for them anew, and nothing of them is carried over
    (25 times the cost; the tests compare whole episodes).
    """
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    mujoco.mj_camlight(model, data)
