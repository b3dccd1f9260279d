"""A point on a plane, with everything that an environment of a user's own may lack."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

REACH = 0.25


class Toy(gymnasium.Env):
    """``flaw`` names what is different about it; actions lie in [-1, 3] x [-2, 2]."""

    def __init__(self, flaw=""):
        self.flaw = flaw
        vector = Box(-np.inf, np.inf, (2,))
        entries = ["observation", "achieved_goal", "desired_goal"]
        self.observation_space = Dict({name: vector for name in entries if name != flaw})
        high = np.inf if flaw == "unbounded" else 3.0
        self.action_space = Box(np.array([-1.0, -2.0], "f"), np.array([high, 2.0], "f"))
        self.position = np.zeros(2)
        self.steps = iter(range(10**9))  # which nothing can save
        if flaw == "no reward":
            self.compute_reward = None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = self.np_random.uniform(-1, 1, 2)
        self.goal = self.np_random.uniform(-1, 1, 2)
        return self._obs(), {}

    def step(self, action):
        self.position = self.position + 0.1 * action + self.np_random.normal(0, 0.01, 2)
        if self.flaw == "unsaved":
            self.position = self.position + 1e-3 * (next(self.steps) % 7)
        if self.flaw == "moving goal":
            self.goal = self.goal + 1.0
        obs = self._obs()
        reward = self.compute_reward(self.position, self.goal, {"key": 0})
        reward -= 0.1 if self.flaw == "control cost" else 0.0
        ended = self.compute_terminated(self.position, self.goal, {"key": 0})
        verdict = {} if self.flaw == "no success" else {"success": reward == 0.0}
        return obs, reward, ended, False, verdict | {"key": 0}

    def compute_reward(self, achieved_goal, desired_goal, info):
        if self.flaw == "needs info":
            info["key"]
        far = np.linalg.norm(achieved_goal - desired_goal, axis=-1) > REACH
        if self.flaw == "one pair":
            return -1.0 if far else 0.0
        return -np.float64(far)

    def compute_terminated(self, achieved_goal, desired_goal, info):
        if self.flaw == "needs info to end":
            info["key"]
        return self.flaw == "ends" and bool(np.linalg.norm(achieved_goal - desired_goal) < REACH)

    def _obs(self):
        observation = self.position * (np.nan if self.flaw == "nan" else 2.0)
        return {
            "observation": observation,
            "achieved_goal": self.position,
            "desired_goal": self.goal,
        }


gymnasium.register("Toy-v0", entry_point=Toy)
