"""Applies a Fetch action to MuJoCo's arrays, with the welded bodies and actuators looked up once.

An action displaces a mocap body that is welded to the gripper. The displacement starts from the
gripper's *derived* pose (``data.xpos``, ``data.xquat``): this is why an exact restore must bring
these back too. Operation by operation as ``MujocoFetchEnv._set_action``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import mujoco
import numpy as np

if TYPE_CHECKING:
    from gymnasium_robotics.envs.fetch import MujocoFetchEnv

_LOW, _HIGH = np.float32(-1.0), np.float32(1.0)
_MAX_DISPLACEMENT_M = np.float32(0.05)
_GRIPPER_QUAT = np.array([1.0, 0.0, 1.0, 0.0])


class ActionWriter:
    """Writes actions of one simulator.

    Args:
        inner: the unwrapped gymnasium-robotics environment, already set up.

    Raises:
        ValueError: the model is not the expected one mocap body welded to the gripper.
    """

    def __init__(self, inner: MujocoFetchEnv) -> None:
        model, data = inner.model, inner.data
        mocap, body = _welded_bodies(model)
        self._body_pos, self._body_quat = data.xpos[body], data.xquat[body]
        self._mocap_pos, self._mocap_quat = data.mocap_pos[mocap], data.mocap_quat[mocap]
        self._clipped = np.zeros(4, np.float32)
        self._displacement = self._clipped[:3]
        self._block_gripper = inner.block_gripper
        self._ctrl, self._qpos = data.ctrl, data.qpos
        self._actuators = [
            # -1: a motor takes the action itself; else a servo, relative to its joint's position.
            -1
            if model.actuator_biastype[i] == 0
            else int(model.jnt_qposadr[model.actuator_trnid[i, 0]])
            for i in range(model.nu)
        ]

    def write(self, action: np.ndarray) -> None:
        """Apply ``action`` (4,) float32, clipped to [-1, 1]: gripper displacement and opening."""
        clipped = self._clipped
        np.maximum(action, _LOW, out=clipped)
        np.minimum(clipped, _HIGH, out=clipped)
        opening = 0.0 if self._block_gripper else float(clipped[3])
        for i, address in enumerate(self._actuators):
            self._ctrl[i] = opening if address < 0 else self._qpos[address] + opening
        np.multiply(clipped, _MAX_DISPLACEMENT_M, clipped)  # in float32, as gymnasium-robotics
        np.add(self._body_pos, self._displacement, self._mocap_pos)
        np.add(self._body_quat, _GRIPPER_QUAT, self._mocap_quat)


def _welded_bodies(model: mujoco.MjModel) -> tuple[int, int]:
    """Return (mocap index, body it is welded to)."""
    welds = np.flatnonzero(model.eq_type == mujoco.mjtEq.mjEQ_WELD)
    if model.nmocap != 1 or len(welds) != 1:
        raise ValueError(
            f"the model has {model.nmocap} mocap bodies and {len(welds)} welds: expected 1 and 1"
        )
    first, second = int(model.eq_obj1id[welds[0]]), int(model.eq_obj2id[welds[0]])
    if model.body_mocapid[first] >= 0:
        return int(model.body_mocapid[first]), second
    return int(model.body_mocapid[second]), first
