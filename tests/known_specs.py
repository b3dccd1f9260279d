"""What the Fetch tasks yield, written down apart from the code that finds it out."""

from fetchlab.entries import EnvSpec

PUSH = EnvSpec(
    state_dim=25,
    goal_dim=3,
    action_dim=4,
    proprio=(0, 1, 2, 9, 10, 20, 21, 22, 23, 24),
    goal_slice=slice(3, 6),
    reward_range=(-1.0, 0.0),
    terminates=False,
    restorable=True,
)
REACH = EnvSpec(
    state_dim=10,
    goal_dim=3,
    action_dim=4,
    proprio=tuple(range(10)),
    goal_slice=slice(0, 3),
    reward_range=(-1.0, 0.0),
    terminates=False,
    restorable=True,
)
