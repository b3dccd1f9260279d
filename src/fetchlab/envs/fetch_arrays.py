"""A Fetch task's observation and action straight from and to MuJoCo's arrays, names looked up once.

gymnasium-robotics looks each joint and site up by name on every step (0.5 ms, a third of a step).
Here the same floating-point operations run in the same order, so that float64 observations are
bit-identical to ``MujocoFetchEnv._get_obs`` after actions of ``MujocoFetchEnv._set_action``; the
tests compare whole episodes.
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
_LOW, _HIGH = np.float32(-1.0), np.float32(1.0)
_MAX_DISPLACEMENT_M = np.float32(0.05)
_GRIPPER_QUAT = np.array([1.0, 0.0, 1.0, 0.0])


class FetchArrays:
    """Live views of one simulator.

    Layout of the (25,) ``state``, the (10,) one of Reach having only the robot's entries:
    gripper position 0:3, object position 3:6, object minus gripper 6:9, finger positions 9:11,
    object Euler angles 11:14, object velocity relative to the gripper's 14:17, object angular
    velocity 17:20, gripper velocity 20:23, finger velocities 23:25. Velocities are times dt.

    An action displaces a mocap body that is welded to the gripper. The displacement starts from the
    gripper's *derived* pose (``data.xpos``, ``data.xquat``): this is why an exact restore must
    bring these back too.

    Args:
        inner: the unwrapped gymnasium-robotics environment, already set up.

    Raises:
        LookupError: the model is not the expected one.
    """

    def __init__(self, inner: MujocoFetchEnv) -> None:
        model, data = inner.model, inner.data
        self._model, self._data, self._qpos, self._qvel = model, data, data.qpos, data.qvel
        self._dt = inner.n_substeps * model.opt.timestep
        self._has_object, self._block_gripper = inner.has_object, inner.block_gripper
        self.state = state = np.zeros(25 if inner.has_object else 10)
        self.goal_slice = slice(3, 6) if inner.has_object else slice(0, 3)
        self.achieved_goal = state[self.goal_slice]
        self._grip_site, self._grip_pos = _site(inner, "robot0:grip")
        self._grip_vel = state[-5:-2]
        self._velocities = state[14:] if inner.has_object else state[5:]
        self._finger_qpos, finger_qvel = _fingers(inner)
        self._copied = [
            (state[:3], self._grip_pos),
            (state[9:11] if inner.has_object else state[3:5], self._finger_qpos),
            (state[-2:], finger_qvel),
        ]
        if inner.has_object:
            self._object_site, self._object_pos = _site(inner, "object0")
            self._object_mat = data.site_xmat[self._object_site]
            self._copied.append((state[3:6], self._object_pos))
            self._object_rel_pos, self._object_euler = state[6:9], state[11:14]
            self._object_vel, self._object_rot_vel = state[14:17], state[17:20]
        self._jac_pos, self._jac_rot = np.zeros((3, model.nv)), np.zeros((3, model.nv))

        mocap, body = _welded_bodies(model)
        self._body_pos, self._body_quat = data.xpos[body], data.xquat[body]
        self._mocap_pos, self._mocap_quat = data.mocap_pos[mocap], data.mocap_quat[mocap]
        self._clipped, self._ctrl = np.zeros(4, np.float32), data.ctrl
        self._actuators = [
            # -1: a motor takes the action itself; else a servo, relative to its joint's position.
            -1
            if model.actuator_biastype[i] == 0
            else int(model.jnt_qposadr[model.actuator_trnid[i, 0]])
            for i in range(model.nu)
        ]

    def read(self) -> np.ndarray:
        """Return the observation (D,) float64: the buffer `state`, which the next call rewrites."""
        model, data, jac_pos, qvel = self._model, self._data, self._jac_pos, self._qvel
        for target, source in self._copied:
            target[:] = source
        mujoco.mj_jacSite(model, data, jac_pos, None, self._grip_site)
        jac_pos.dot(qvel, self._grip_vel)
        if not self._has_object:
            np.multiply(self._velocities, self._dt, self._velocities)
            return self.state
        np.subtract(self._object_pos, self._grip_pos, self._object_rel_pos)
        _mat_to_euler(self._object_mat.tolist(), self._object_euler)
        mujoco.mj_jacSite(model, data, jac_pos, self._jac_rot, self._object_site)
        # Two (3, nv) products, not one (6, nv): BLAS may sum the rows of a taller one differently.
        jac_pos.dot(qvel, self._object_vel)
        self._jac_rot.dot(qvel, self._object_rot_vel)
        np.multiply(self._velocities, self._dt, self._velocities)
        np.subtract(self._object_vel, self._grip_vel, self._object_vel)
        return self.state

    def write(self, action: np.ndarray) -> None:
        """Apply ``action`` (4,) float32, clipped to [-1, 1]: gripper displacement and opening."""
        clipped = self._clipped
        np.maximum(action, _LOW, out=clipped)
        np.minimum(clipped, _HIGH, out=clipped)
        opening = 0.0 if self._block_gripper else float(clipped[3])
        for i, address in enumerate(self._actuators):
            self._ctrl[i] = opening if address < 0 else self._qpos[address] + opening
        np.multiply(clipped, _MAX_DISPLACEMENT_M, clipped)  # in float32, as gymnasium-robotics
        np.add(self._body_pos, clipped[:3], self._mocap_pos)
        np.add(self._body_quat, _GRIPPER_QUAT, self._mocap_quat)

    def close_fingers(self) -> None:
        """Hold the fingers shut, as tasks without grasping do after every step."""
        self._finger_qpos[:] = 0.0
        refresh_poses(self._model, self._data)


def refresh_poses(model: mujoco.MjModel, data: mujoco.MjData) -> None:
    """Recompute the poses that observations, actions and pictures read, from ``data.qpos``.

    gymnasium-robotics calls ``mj_forward`` here, which also solves for contacts and accelerations
    that nobody reads: the next step solves for them anew, and nothing of them is carried over
    (25 times the cost; the tests compare whole episodes).
    """
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    mujoco.mj_camlight(model, data)


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
    """Views (2,) of the fingers' positions and velocities."""
    model, data = inner.model, inner.data
    # `robot_get_obs` takes the last two robot joints, in model order.
    names = [name for name in inner._model_names.joint_names if name.startswith("robot")][-2:]
    first, second = (mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, name) for name in names)
    qpos, qvel = model.jnt_qposadr[first], model.jnt_dofadr[first]
    if second != first + 1 or model.jnt_qposadr[second] != qpos + 1:
        raise LookupError(f"the finger joints {names} are not neighbours in the model")
    return data.qpos[qpos : qpos + 2], data.qvel[qvel : qvel + 2]


def _site(inner: MujocoFetchEnv, name: str) -> tuple[int, np.ndarray]:
    """A site's number and a view (3,) of its position."""
    site = mujoco.mj_name2id(inner.model, mujoco.mjtObj.mjOBJ_SITE, name)
    if site < 0:
        raise LookupError(f"site {name!r} is not part of the model")
    return site, inner.data.site_xpos[site]


def _welded_bodies(model: mujoco.MjModel) -> tuple[int, int]:
    """The mocap body's index, and the body it is welded to."""
    welds = np.flatnonzero(model.eq_type == mujoco.mjtEq.mjEQ_WELD)
    if model.nmocap != 1 or len(welds) != 1:
        raise LookupError(
            f"the model has {model.nmocap} mocap bodies and {len(welds)} welds: expected 1 and 1"
        )
    mocap, body = int(model.eq_obj1id[welds[0]]), int(model.eq_obj2id[welds[0]])
    if model.body_mocapid[mocap] < 0:
        mocap, body = body, mocap
    return int(model.body_mocapid[mocap]), body
