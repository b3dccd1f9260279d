"""A task's symmetries keep distances and physics, touch nothing else, and are refused in time."""

from __future__ import annotations

from dataclasses import replace

import gymnasium
import gymnasium_robotics  # noqa: F401  registers the tasks
import numpy as np
import pytest
import torch
import yaml
from known_specs import PUSH, REACH
from small_sac import PIXEL_INPUTS, B, make_agent, make_batch
from tensordict import TensorDict

from fetchlab.build import task_spec
from fetchlab.config import ROOT, typed
from fetchlab.envs.fetch import FetchEnv
from fetchlab.envs.spec import TaskSpec
from fetchlab.errors import ConfigError
from fetchlab.schema import Camera
from fetchlab.symmetry import GROUPS, PlaneSymmetry

CENTER = (1.363, 0.749)
SQUARE = yaml.safe_load((ROOT / "configs/symmetry/square.yaml").read_text())
ARGUMENTS = {key: value for key, value in SQUARE.items() if not key.startswith("_")}
MIRRORS = yaml.safe_load((ROOT / "configs/symmetry/mirrors.yaml").read_text())
X, Y = MIRRORS["center"]


def symmetry(group="square", spec=PUSH, cameras=(), **changes):
    return PlaneSymmetry(spec, cameras, **{**ARGUMENTS, "group": group, **changes})


def camera(azimuth, lookat=(X, Y, 0.44)):
    return Camera(lookat, 0.65, azimuth, -35.0)


@pytest.mark.parametrize(
    ("env_id", "fits"),
    [
        ("FetchPush-v4", set(GROUPS)),
        ("FetchPushDense-v4", set(GROUPS)),
        ("FetchPickAndPlace-v4", {"mirror_x", "mirror_y", "mirrors"}),  # fingers open along y
        ("FetchSlide-v4", {"mirror_y"}),  # goals lie ahead
    ],
)
def test_a_group_under_which_the_task_is_another_is_refused(env_id, fits):
    env = FetchEnv(TaskSpec(env_id, 50, None))
    try:
        spec = env.env_spec
    finally:
        env.close()
    for group in GROUPS:
        if group in fits:
            symmetry(group, spec)
        else:
            with pytest.raises(ConfigError, match=rf"symmetry\.group='{group}': expected mirror_"):
                symmetry(group, spec)


@pytest.mark.parametrize("goal_slice", [slice(2, 5), slice(4, 7), None])
def test_a_goal_that_moves_otherwise_than_what_is_achieved_is_refused(goal_slice):
    """The indices of FetchPush in another task, where they happen to fit."""
    with pytest.raises(ConfigError, match=r"symmetry\.positions\.desired_goal=\[0\]: expected"):
        symmetry(spec=replace(PUSH, goal_slice=goal_slice))


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
    assert image["pixels"] is batch["pixels"]  # there are no cameras
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


def test_agents_with_images_as_inputs_want_their_images_mapped():
    with pytest.raises(
        ConfigError, match="symmetry='PlaneSymmetry': expected one that maps images"
    ):
        make_agent(actor_inputs=PIXEL_INPUTS, symmetry=symmetry())


def numbered(azimuths, rows=1, stack=2):
    """Frames (B, S, 3V, 1, 2): camera v has 10 v on the left, 10 v + 1 on the right, + 100 s."""
    one = torch.tensor([[10 * v, 10 * v + 1] for v in range(len(azimuths))], dtype=torch.uint8)
    frames = one.repeat_interleave(3, 0)[None, None, :, None, :].repeat(rows, stack, 1, 1, 1)
    return frames + 100 * torch.arange(stack, dtype=torch.uint8).view(1, -1, 1, 1, 1)


@pytest.mark.parametrize(
    ("group", "azimuths", "expected"),
    [
        # Each camera's picture under each element: whose it is, and "m" for left and right swapped.
        ("mirrors", (270.0, 90.0), ["0 1", "1m 0m", "0m 1m", "1 0"]),
        ("mirrors", (0.0, 180.0), ["0 1", "0m 1m", "1m 0m", "1 0"]),
        ("mirror_x", (90.0,), ["0", "0m"]),
        ("mirror_y", (-180.0,), ["0", "0m"]),
        (
            "mirrors",
            (45.0, 135.0, 225.0, -45.0),
            ["0 1 2 3", "3m 2m 1m 0m", "1m 0m 3m 2m", "2 3 0 1"],
        ),
    ],
)
def test_pictures_by_hand(group, azimuths, expected):
    mapping = symmetry(group, cameras=[camera(one) for one in azimuths], center=[X, Y])
    which = torch.arange(len(GROUPS[group]))
    found = mapping._pictures(numbered(azimuths, len(which)), which)
    for element, row in enumerate(expected):
        for v, word in enumerate(row.split()):
            first = 10 * int(word.strip("m"))
            pair = [first + 1, first] if "m" in word else [first, first + 1]
            for s in (0, 1):
                pictures = found[element, s, 3 * v : 3 * v + 3, 0]
                assert pictures.tolist() == [[100 * s + value for value in pair]] * 3


def test_a_quarter_turn_takes_the_picture_of_the_camera_that_turns_there():
    azimuths = (0.0, 90.0, 180.0, 270.0)
    mapping = symmetry("square", cameras=[camera(one) for one in azimuths], center=[X, Y])
    turn = GROUPS["square"].index((1, -1, True))  # (x, y) -> (-y, x)
    assert mapping.seen_by[turn].tolist() == [3, 0, 1, 2]  # a camera at 0 degrees turns to 90
    assert not mapping.mirrored[turn]


@pytest.fixture(scope="module")
def two_cameras(compose_run):
    overrides = ("symmetry=mirrors", "obs.pixels.image_size=64", "obs.pixels.show_goal=true")
    return typed(compose_run("pixel_push_laptop_critic", *overrides))


@pytest.mark.parametrize("place", [(1.30, 0.66), (1.45, 0.84), (1.28, 0.85)])
def test_the_shipped_cameras_show_a_mirrored_goal_where_the_picture_says(two_cameras, place):
    env = FetchEnv(task_spec(two_cameras))
    env.reset(0)

    def frame(x, y):
        env._inner.goal = np.array([x, y, 0.43])
        return torch.as_tensor(env.render_frame())

    def red(picture):
        r, g, b = picture.int()
        return (r > 120) & (g < 60) & (b < 60)

    mapping = symmetry("mirrors", cameras=two_cameras.obs.pixels.cameras, center=[X, Y])
    frames = frame(*place)[None, None].expand(4, 1, -1, -1, -1)
    mapped = mapping._pictures(frames, torch.arange(4))[:, 0]
    places = set()
    for (of_x, of_y, _), picture in zip(GROUPS["mirrors"], mapped, strict=True):
        seen = frame(X + of_x * (place[0] - X), Y + of_y * (place[1] - Y))
        for view in (slice(0, 3), slice(3, 6)):
            assert torch.equal(red(picture[view]), red(seen[view]))
            assert 5 < red(seen[view]).sum() < 60
            places.add(tuple(red(seen[view]).nonzero().float().mean(dim=0).tolist()))
    assert len(places) == 4  # two in each camera
    env.close()


@pytest.mark.parametrize(
    ("group", "cameras", "message"),
    [
        ("square", [camera(270.0), camera(90.0)], "the one of azimuth 270 is of none"),
        ("mirrors", [camera(90.0)], "symmetry='azimuths 90': expected cameras that are mirror im"),
        ("mirrors", [camera(90.0), camera(271.0)], "'azimuths 90, 271': expected cameras that are"),
        ("mirrors", [camera(90.0, (X, Y + 0.01, 0.44)), camera(270.0)], "of azimuth 90 is of none"),
        (
            "mirror_y",
            [camera(180.0, (X, Y + 0.002, 0.44))],
            r"none; symmetry.center=.*0.752., wh",
        ),
        ("mirror_x", [None], "symmetry='azimuths default': .*the one of camera 0 is of none; use"),
    ],
)
def test_cameras_that_are_no_images_of_each_other(group, cameras, message):
    with pytest.raises(ConfigError, match=message):
        symmetry(group, cameras=cameras, center=[X, Y])


def test_what_an_encoder_is_asked_fits_what_it_sees():
    """Auxiliary losses get the rows that the images show, mapped or not."""
    batch, rng = make_batch(), torch.Generator().manual_seed(5)
    heads = {key: ["state", "desired_goal"] for key in ("actor_inputs", "critic_inputs")}
    plain = make_agent(symmetry=symmetry(), **heads)
    assert plain.look(batch, rng).pictured is batch
    mapping = symmetry("mirror_x", cameras=[camera(90.0)], center=[X, Y])
    agent = make_agent(actor_inputs=PIXEL_INPUTS, symmetry=mapping)
    state = rng.get_state()
    looked = agent.look(batch, rng)
    rng.set_state(state)
    image = mapping(batch, rng)
    moved = (image["pixels"] != batch["pixels"]).flatten(1).any(dim=1)
    assert 0 < moved.sum() < B
    turned = (image["desired_goal"] - batch["desired_goal"]).abs().amax(dim=1) > 1e-4
    assert torch.equal(moved, turned)
    for name in ("state", "pixels"):
        assert torch.equal(looked.pictured[name], image[name])
    stack = agent.vision.frame_stack
    assert torch.equal(looked.obs.images, image["pixels"][:, :stack].flatten(1, 2))
    assert torch.equal(looked.next_obs.images, image["pixels"][:, -stack:].flatten(1, 2))


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
