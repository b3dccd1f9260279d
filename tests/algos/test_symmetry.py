"""A task's symmetries keep distances and physics, touch nothing else, and are refused in time."""

from __future__ import annotations

import gymnasium
import gymnasium_robotics  # noqa: F401  registers the tasks
import numpy as np
import pytest
import torch
import yaml
from known_specs import PUSH, REACH
from small_sac import PIXEL_INPUTS, B, make_agent, make_batch
from tensordict import TensorDict

from fetchlab.config import ROOT
from fetchlab.errors import ConfigError
from fetchlab.symmetry import GROUPS, PlaneSymmetry

CENTER = (1.363, 0.749)
SQUARE = yaml.safe_load((ROOT / "configs/symmetry/square.yaml").read_text())
ARGUMENTS = {key: value for key, value in SQUARE.items() if not key.startswith("_")}


def symmetry(group="square", spec=PUSH, **changes):
    return PlaneSymmetry(spec, **{**ARGUMENTS, "group": group, **changes})


def rows(n=64):
    generator = torch.Generator().manual_seed(0)

    def draw(*size):
        return torch.randn(size, generator=generator)

    after = TensorDict({"state": draw(n, 25), "reward": draw(n)}, [n])
    entries = {"state": draw(n, 25), "desired_goal": draw(n, 3), "action": draw(n, 4)}
    return TensorDict({**entries, "pixels": torch.zeros(n, 2), "next": after}, [n])


def images(batch, group="square"):
    """One image of the batch for each element, each of all rows."""
    mapping, size = symmetry(group), len(batch)
    for element in range(len(GROUPS[group])):
        which = torch.full((size,), element)
        yield TensorDict(
            {
                name: mapping._images(name, [batch.get(name)], which)[0]
                for name in ("state", "desired_goal", "action")
            },
            [size],
        )


def test_a_mirror_image_by_hand():
    state = torch.arange(25.0)
    batch = TensorDict({"state": state, "desired_goal": torch.ones(3), "action": torch.ones(4)})
    _, image = images(batch.unsqueeze(0), "mirror_y")
    expected = state.clone()
    expected[[1, 4]] = 2 * CENTER[1] - state[[1, 4]]  # y of positions
    odd = [7, 15, 21, 11, 13, 17, 19]  # y of directions; about x and z
    expected[odd] = -state[odd]
    assert torch.allclose(image["state"][0], expected)
    assert torch.allclose(image["desired_goal"][0], torch.tensor([1.0, 2 * CENTER[1] - 1, 1.0]))
    assert torch.equal(image["action"][0], torch.tensor([1.0, -1.0, 1.0, 1.0]))


def test_a_quarter_turn_by_hand():
    elements = list(GROUPS["square"])
    turn = elements.index((1, -1, True))  # (x, y) -> (-y, x)
    zeros = torch.zeros(1, 25)
    zeros[0, [14, 17]] = torch.tensor([2.0, 3.0])  # velocity along x, spin about x
    batch = TensorDict(
        {"state": zeros, "desired_goal": zeros[:, :3], "action": torch.eye(4)[:1]}, [1]
    )
    image = list(images(batch))[turn]
    assert image["action"][0].tolist() == [0, 1, 0, 0]
    assert image["state"][0, 14:17].tolist() == [0, 2, 0]
    assert image["state"][0, 17:20].tolist() == [0, 3, 0]


def test_distances_and_physics_stay():
    batch = rows()
    state = batch["state"]
    state[:, 14:17] = torch.linalg.cross(state[:, 17:20], state[:, 6:9])  # v = w x r
    seen = set()
    for image in images(batch):
        mapped = image["state"]
        reach = (state[:, 0:3] - state[:, 3:6]).norm(dim=1)
        assert torch.allclose((mapped[:, 0:3] - mapped[:, 3:6]).norm(dim=1), reach, atol=1e-5)
        left = (state[:, 3:6] - batch["desired_goal"]).norm(dim=1)
        found = (mapped[:, 3:6] - image["desired_goal"]).norm(dim=1)
        assert torch.allclose(found, left, atol=1e-5)
        speed = torch.linalg.cross(mapped[:, 17:20], mapped[:, 6:9])
        assert torch.allclose(mapped[:, 14:17], speed, atol=1e-5)  # a spin is no arrow
        seen.add(tuple(image["action"][0].tolist()))
    assert len(seen) == 8


def test_a_batch_keeps_the_rest_and_is_not_changed():
    batch = rows(4096)
    before = batch.clone()
    image = symmetry()(batch, torch.Generator().manual_seed(3))
    assert image["pixels"] is batch["pixels"]
    assert image["next", "reward"] is batch["next", "reward"]
    assert (batch == before).all()
    untouched = [2, 5, 8, 9, 10, 16, 22, 23, 24]  # heights, climbs and fingers
    assert torch.equal(image["state"][:, untouched], batch["state"][:, untouched])

    def push(rows):  # how far the object went where the action pointed
        step = rows["next", "state"][:, 3:5] - rows["state"][:, 3:5]
        return (step * rows["action"][:, :2]).sum(dim=1)

    assert torch.allclose(push(image), push(batch), atol=1e-4)  # one element for a row's entries
    for one in images(batch):
        alike = (image["action"] == one["action"]).all(dim=1)
        assert 0.1 < float(alike.double().mean()) < 0.15


def test_the_simulator_has_the_symmetry():
    """Under mirrored and turned actions the gripper goes where the image says, within 1 cm."""
    envs = [gymnasium.make("FetchPush-v4") for _ in range(8)]
    for env in envs:
        env.reset(seed=1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        action = torch.rand(1, 4, generator=generator) * 2 - 1
        action[:, 2].abs_()  # away from the object
        still = {"state": torch.zeros(1, 25), "desired_goal": torch.zeros(1, 3)}
        actions = [one["action"][0] for one in images(TensorDict({**still, "action": action}, [1]))]
        pairs = zip(envs, actions, strict=True)
        seen = [env.step(one.numpy())[0]["observation"] for env, one in pairs]
    states = torch.as_tensor(np.stack(seen), dtype=torch.float32)
    first = TensorDict({**still, "state": states[:1], "action": action}, [1])
    expected = torch.cat([one["state"] for one in images(first)])
    assert (states[:, :3] - expected[:, :3]).abs().max() < 0.01
    assert torch.pdist(states[:, :2]).min() > 0.02  # eight places, apart by more than that


@pytest.mark.parametrize(
    ("spec", "changes", "message"),
    [
        (REACH, {}, r"symmetry.directions.state=14: expected indices from 0 to 8: state has 10"),
        (
            PUSH,
            {"positions": {"stat": [0]}},
            "symmetry.positions='stat': expected one of state, desi",
        ),
        (PUSH, {"positions": {"action": [0]}}, "symmetry.positions='action': expected one of"),
        (
            PUSH,
            {"spins": {"state": [-1]}},
            "symmetry.spins.state=-1: expected indices from 0 to 22",
        ),
    ],
)
def test_what_does_not_fit(spec, changes, message):
    with pytest.raises(ConfigError, match=message):
        symmetry(spec=spec, **changes)


def test_agents_with_images_as_inputs_are_refused():
    with pytest.raises(ConfigError, match="symmetry='PlaneSymmetry': expected none where pixels"):
        make_agent(actor_inputs=PIXEL_INPUTS, symmetry=symmetry())


def test_an_agent_looks_through_it():
    agent = make_agent(pixels=False, symmetry=symmetry())
    plain = make_agent(pixels=False)
    batch = make_batch()
    rng = torch.Generator().manual_seed(5)
    state = rng.get_state()
    looked = agent.look(batch, rng)
    rng.set_state(state)
    expected = plain.look(symmetry()(batch, rng), rng)
    assert torch.equal(looked.action, expected.action)
    assert not torch.equal(looked.action, batch["action"])
    for one, other in ((looked.obs, expected.obs), (looked.next_obs, expected.next_obs)):
        assert one.images is None
        assert all(torch.equal(one.vectors[name], other.vectors[name]) for name in other.vectors)
    assert looked.action.shape == (B, 4)
