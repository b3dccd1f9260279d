"""What the agent is given: presets, stacks, sizes, cameras and lists, from the command line."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch
from known_specs import PUSH
from tensordict import TensorDict

from fetchlab.build import build_module, row_spec, task_spec
from fetchlab.config import typed
from fetchlab.errors import ConfigError
from fetchlab.run import start

PRESETS = sorted(file.stem for file in (Path(__file__).parents[2] / "configs/obs").glob("*.yaml"))
#: What each entry is made of, in pieces that no other entry but ``state`` shares.
PIECES = {
    "pixels": {"frames"},
    "state": {"proprio", "object", "rest"},
    "proprio": {"proprio"},
    "achieved_goal": {"object"},
    "desired_goal": {"goal"},
    "estimated_goal": {"frames"},
}
#: The routing that suits agents whose critics see no pixels.
ROUTING = {"asymmetric": ["routing=actor"], "estimate": ["routing=auxiliary"]}


def observation(cfg):
    """A random observation of two environments, float in the range of a table, uint8 frames."""
    rng, obs = torch.Generator().manual_seed(0), cfg["obs"]
    entries = {
        "state": torch.rand((2, 25), generator=rng),
        "desired_goal": torch.rand((2, 3), generator=rng),
    }
    if obs["pixels"] is not None:
        size, cameras = obs["pixels"]["image_size"], 1 + len(obs["pixels"]["more_cameras"])
        shape = (2, 3 * cameras * obs["frame_stack"], size, size)
        entries["frames"] = torch.randint(0, 256, shape, dtype=torch.uint8, generator=rng)
    return TensorDict(entries, [2])


def changed(obs, piece):
    """The observation with one piece replaced."""
    obs = obs.clone()
    proprio, goal = list(PUSH.proprio), list(range(3, 6))
    if piece == "frames":
        obs["frames"] = 255 - obs["frames"]
    elif piece == "goal":
        obs["desired_goal"] += 0.5
    else:
        rest = [i for i in range(25) if i not in proprio + goal]
        obs["state"][:, {"proprio": proprio, "object": goal, "rest": rest}[piece]] += 0.5
    return obs


def seen_pieces(cfg):
    """The pieces of an observation that the policy's action depends on."""
    module, obs = build_module(typed(cfg), PUSH).eval(), observation(cfg)
    action = module.act(obs)
    pieces = {"proprio", "object", "rest", "goal"} | ({"frames"} & set(obs.keys()))
    return {piece for piece in pieces if not torch.equal(module.act(changed(obs, piece)), action)}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_policy_depends_on_its_presets_inputs_and_on_nothing_else(compose_run, preset):
    cfg = compose_run("pixel_push_nodrq", f"obs={preset}", *ROUTING.get(preset, []))
    expected = set().union(*(PIECES[name] for name in cfg["obs"]["actor_inputs"]))
    assert seen_pieces(cfg) == expected


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ("[pixels,desired_goal]", {"frames", "goal"}),
        ("[pixels,achieved_goal,desired_goal]", {"frames", "object", "goal"}),
        ("[desired_goal,pixels,state]", {"frames", "proprio", "object", "rest", "goal"}),
        ("[proprio,desired_goal]", {"proprio", "goal"}),
    ],
)
def test_lists_from_the_command_line(compose_run, inputs, expected):
    cfg = compose_run("pixel_push_strict", f"obs.actor_inputs={inputs}")
    assert seen_pieces(cfg) == expected


def test_presets_say_what_their_names_say(compose_run):
    obs = {name: compose_run("pixel_push_nodrq", f"obs={name}")["obs"] for name in PRESETS}
    close = obs["pixels_strict"]["pixels"]["camera"]
    honest = ["pixels", "proprio", "desired_goal"]
    assert obs["asymmetric"]["critic_inputs"] == ["state", "achieved_goal", "desired_goal"]
    assert obs["asymmetric"]["actor_inputs"] == honest
    assert obs["pixels_noproprio"]["actor_inputs"] == ["pixels", "desired_goal"]
    assert obs["pixels_noproprio"]["critic_inputs"] == ["pixels", "desired_goal"]
    for name in ("asymmetric", "pixels_noproprio"):
        assert obs[name]["pixels"] == obs["pixels_strict"]["pixels"]
    study = {**obs["pixels"]["pixels"], "camera": close}
    assert obs["pixels_close"] == {**obs["pixels"], "pixels": study}
    for task in ("slide", "pick_and_place"):
        strict = obs[f"pixels_strict_{task}"]
        assert strict["pixels"]["camera"] != close
        assert {**strict["pixels"], "camera": close} == obs["pixels_strict"]["pixels"]
        assert strict["actor_inputs"] == strict["critic_inputs"] == honest


def first_convolution(module):
    return next(m for m in module.agent.encoder.modules() if isinstance(m, torch.nn.Conv2d))


@pytest.mark.parametrize(("stack", "size"), [*product((1, 8), (48, 128)), (2, 64), (3, 100)])
def test_stacks_and_sizes_build(compose_run, stack, size):
    cfg = compose_run("pixel_push", f"obs.frame_stack={stack}", f"obs.pixels.image_size={size}")
    module, spec = build_module(typed(cfg), PUSH), task_spec(typed(cfg))
    assert spec.pixels.image_size == size
    assert first_convolution(module).in_channels == 3 * stack
    assert module.act(observation(cfg)).shape == (2, 4)


def test_more_cameras_are_more_channels_of_what_is_stored_and_encoded(compose_run):
    run = typed(compose_run("pixel_push_strict", "obs=pixels_strict_two", "obs.frame_stack=2"))
    opposite = run.obs.pixels.more_cameras["opposite"]
    assert run.obs.pixels.cameras == [run.obs.pixels.camera, opposite]
    assert opposite.azimuth == 90.0
    assert row_spec(run, PUSH).pixels_shape == run.obs.pixels.shape == (6, 84, 84)
    assert build_module(run, PUSH).agent.encoder.cnn[0].in_channels == 12


def test_the_camera_from_the_command_line(compose_run):
    camera = "{lookat:[1,2,3],distance:0.5,azimuth:90,elevation:-45}"
    whole = compose_run("pixel_push_nodrq", f"obs.pixels.camera={camera}")
    assert task_spec(typed(whole)).pixels.camera.lookat == [1, 2, 3]
    part = compose_run("pixel_push_strict", "obs.pixels.camera.distance=0.8")
    assert task_spec(typed(part)).pixels.camera.distance == 0.8
    assert task_spec(typed(part)).pixels.camera.azimuth == 270.0
    default = compose_run("pixel_push_strict", "obs.pixels.camera=null")
    assert task_spec(typed(default)).pixels.camera is None
    shown = compose_run("pixel_push_strict", "obs.pixels.show_goal=true")
    assert task_spec(typed(shown)).pixels.show_goal
    assert not task_spec(typed(part)).pixels.show_goal


def test_a_critic_without_pixels_cannot_train_the_encoder(compose_run):
    with pytest.raises(ConfigError, match=r"obs.critic_inputs=\['state'.*pixels among them"):
        build_module(
            typed(compose_run("pixel_push_nodrq", "obs=asymmetric", "routing=critic")), PUSH
        )


TINY = (
    "debug=default",
    "task.max_episode_steps=10",
    "total_env_steps=28",
    "algo.batch_size=2",
    "algo.utd_ratio=0.5",
    "replay.capacity=200",
    "replay.margin_env_steps=200",
    "collect.n_envs=2",
    "collect.workers=1",
    "collect.learning_starts=20",
    "callbacks.log_every_env_steps=20",
    "callbacks.evaluation.every_env_steps=28",
    "callbacks.evaluation.episodes=1",
    "callbacks.evaluation.n_envs=1",
)


SMALL_STACK = (
    "task=fetch_slide",
    "obs=pixels_strict_slide",
    "obs.frame_stack=1",
    "obs.pixels.image_size=128",
    "augment=random_shift_shared",
    "relabel=final",
)
LARGE_STACK = (
    "task=fetch_pick_and_place_dense",
    "obs=pixels_strict_pick_and_place",
    "obs.frame_stack=8",
    "obs.pixels.image_size=48",
    "augment=intensity",
    "relabel=episode",
)


@pytest.mark.parametrize("overrides", [SMALL_STACK, LARGE_STACK], ids=["1x128", "8x48"])
def test_whole_runs(compose_run, tmp_path, overrides):
    line = "algo.her_k={from:8,to:1,over_env_steps:25}"
    summary = start(
        compose_run("pixel_push_nodrq", *TINY, f"run_dir={tmp_path / 'run'}", line, *overrides)
    )
    assert summary["status"] == "finished"
    assert summary["grad_updates"] >= 2
