"""What a user can mistype is one clear line: value, expected, remedy; and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from known_specs import PUSH

from fetchlab import config
from fetchlab.build import build_module
from fetchlab.config import typed
from fetchlab.errors import ConfigError
from fetchlab.run import start

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("total_env_steps=0", "total_env_steps=0: expected a positive whole number"),
        ("collect.n_envs=-1", "collect.n_envs=-1: expected a positive whole number"),
        ("algo.batch_size=0", "algo.batch_size=0: expected a positive whole number"),
        ("algo.batch_size=2.5", "algo.batch_size=2.5: expected a positive whole number"),
        ("replay.capacity=-5", "replay.capacity=-5: expected a positive whole number"),
        ("replay.margin_env_steps=0", "replay.margin_env_steps=0: expected a positive"),
        ("callbacks.evaluation.episodes=0", "callbacks.evaluation.episodes=0: expected a positive"),
        ("callbacks.log_every_env_steps=0", "callbacks.log_every_env_steps=0: expected a positive"),
        ("algo.utd_ratio=0", "algo.utd_ratio=0: expected a positive number of gradient updates"),
        ("algo.utd_ratio=-1", "algo.utd_ratio=-1: expected a positive number of gradient updates"),
        ("algo.utd_ratio=fast", "algo.utd_ratio='fast': expected a positive number"),
        ("obs.frame_stack=51", "obs.frame_stack=51: expected at most an episode"),
        ("seed=-1", "seed=-1: expected an integer from 0"),
        ("obs.actor_inputs=[pixel,desired_goal]", "obs.actor_inputs='pixel': expected one of"),
        ("obs.actor_inputs=[pixels,proprio]", "expected desired_goal among them"),
        ("obs.critic_inputs=[]", r"obs.critic_inputs=\[\]: expected at least one entry"),
        ("obs.pixels.image_size=0", "image_size=0: expected at least"),
        ("obs.pixels.quality=best", "quality='best': expected one of"),
        ("task.env_id=FetchPuhs-v4", "FetchPuhs-v4"),
        ("collect.workers=0", "workers=0"),
        ("~encoder", "encoder=None: expected a network"),
        ("algo.discount=1.0", "algo.discount=1.0: expected"),
        ("obs.frame_stack=9", "obs.frame_stack=9: expected at most 8"),
        ("obs.pixels.image_size=5000", "image_size=5000: expected at"),
        ("obs.pixels.image_size=15", "image_size=15: expected at least 16"),
        ("obs.pixels.supersample=0", "obs.pixels.supersample=0: expected at least 1"),
        ("obs.pixels.supersample=1.5", "obs.pixels.supersample=1.5: expected at least 1"),
        (
            "obs.pixels.image_size=128 obs.pixels.supersample=9",
            "obs.pixels.supersample=9: expected at most 8 with obs.pixels.image_size=128",
        ),
        ("encoder=nature_cnn obs.pixels.image_size=32", "image_size=32: .*use at least 44 pixels"),
        ("encoder=drqv2_cnn obs.pixels.image_size=16", "image_size=16: .*use at least 17 pixels"),
        ("encoder.strides=2", "encoder.strides=2: expected a list, each a whole number"),
        ("encoder.strides=[2,4]", r"encoder.strides=\[2, 4\]: expected at least one number from 1"),
        ("obs.pixels.camera=close", "obs.pixels.camera='close': expected null"),
        ("+encoder.filtrs=8", r"did you mean encoder.filters\? Or add '~encoder.filtrs'"),
        ("+encoder.depth=8", "ManipulationCNN; it has filters, strides, or add '~encoder.depth'"),
        ("+obs.pixels.more_cameras.side=near", r"side='near': expected the keys lookat, distance"),
        ("+obs.pixels.more_cameras.side={distance:1}", "more_cameras.side.lookat=None: expected a"),
        (
            "obs=pixels_strict_two obs.pixels.more_cameras.opposite.elevation=down",
            "more_cameras.opposite.elevation='down': expected a number",
        ),
        ("task=fetch_push_dense algo.q_bounds=true", "algo.q_bounds=True: expected false"),
        ("algo.target_subset=3", "algo.target_subset=3: expected null or from 1 to algo.ensemble"),
        ("algo.n_step=3 algo.q_bounds=true", "algo.n_step=3: expected 1 with algo.q_bounds=true"),
        ("algo.n_step=51", "algo.n_step=51: expected between 1 and task.max_episode_steps"),
        ("obs=asymmetric", "obs.critic_inputs=.*: expected pixels among them, because"),
        (
            "routing=auxiliary auxiliary.goal_prediction.weight=0",
            "weight=0: expected a positive number",
        ),
        ("routing=auxiliary auxiliary=[]", r"auxiliary=\[\]: expected a loss"),
        (
            "+auxiliary.goal_prediction.huber_m=0.02",
            r"_target_=None: .* choose auxiliary=\[goal_prediction\], or add '~auxiliary.goal",
        ),
        ("obs=state auxiliary=[goal_prediction]", "expected no loss for an agent without pixels"),
        ("obs=state augment=random_shift", "augment='RandomShift': expected none for an agent"),
        ("symmetry=square", "symmetry='azimuths default': expected cameras that are mirror images"),
        (
            "obs=pixels_strict symmetry=mirrors",
            "symmetry='azimuths 270': expected cameras that are",
        ),
        (
            "obs=pixels_strict_two symmetry=square",
            "one of azimuth 270 is of none; use symmetry=none",
        ),
        ("task=fetch_reach obs=state symmetry=square", "symmetry.directions.state=14: expected"),
        ("obs=state symmetry=square symmetry.center=[1]", "symmetry.center="),
        (
            "obs=state symmetry=square symmetry.spins.state=11",
            "symmetry.spins.state=11: expected a list",
        ),
        (
            "obs=state symmetry=square symmetry.positions=3",
            "symmetry.positions=3: expected a mapping",
        ),
        ("algo.her_k=0", "k=0: expected"),
        ("augment=random_shift augment.pad=0", "augment.pad=0: expected at least 1"),
        ("pooling.temperature=0", "pooling.temperature=0: expected a positive number"),
        ("pooling=flatten_norm_tanh pooling.features=1", "pooling.features=1: expected at least 2"),
        ("encoder.filters=0", "encoder.filters=0: expected a positive whole number"),
        ("encoder=nature_cnn encoder.filters=[32,64]", "encoder.filters=.*: expected 3 positive"),
        ("feature_norm=running feature_norm.momentum=1.5", "momentum=1.5: expected a number in"),
        ("replay.device=cuda", "replay.device='cuda': expected cpu where no CUDA device trains"),
        ("trainer.precision=float16", "trainer.precision='float16': expected float32 or bfloat16"),
        ("encoder=resnet_stem", "encoder.weights_path=None: expected"),
        ("algo.layer_norm=no", "algo.layer_norm='no': expected true or false"),
        ("trainer.deterministic=warn", "trainer.deterministic='warn': expected true or false"),
        ("algo.entropy_coefficient=auto", "algo.entropy_coefficient='auto': expected a positive"),
        ("algo.hidden=256", "algo.hidden=256: expected a list"),
        ("algo.tau=nan", "algo.tau=nan: expected above 0 and at most 1, a number"),
        ("collect.workers=1.5", "collect.workers=1.5: expected null or a positive whole number"),
        ("algo.critic_optimizer.lr=-1", "algo.critic_optimizer.lr=-1: expected 0 or more"),
        ("ckpt_path=12", "ckpt_path=12: expected a folder, or null"),
        ("ckpt_path=", "ckpt_path='': expected a folder, or null"),
        ("run_dir=", "run_dir='': expected a folder, or null"),
        ("run_dir=12", "run_dir=12: expected a folder, or null"),
        ("seed=", "seed='': expected an integer from 0"),
        ("total_env_steps=", "total_env_steps='': expected a positive whole number"),
        ("+algo.gamma=0.5", "algo.gamma=0.5: expected a key that something reads"),
        ("+typo=1", "typo=1: expected a key that something reads"),
        (
            "+callbacks.evaluation.foo=1",
            "callbacks.evaluation.foo=1: expected a key that something reads",
        ),
        ("+encoder.foo=3", "encoder.foo=3: expected an argument of fetchlab.networks.encoders."),
        ("+obs.pixels.fov=30", "obs.pixels.fov=30: expected a key that something reads"),
        ("+feature_norm.eps=1", "feature_norm.eps=1: expected an argument of torch.nn.Identity"),
        ("~algo.discount", "algo.discount=None: expected above 0 and below 1"),
    ],
)
def test_one_line_names_value_expectation_and_remedy(compose_run, tmp_path, override, message):
    run_dir = tmp_path / "run"
    cfg = compose_run("pixel_push_nodrq", "debug=default", f"run_dir={run_dir}", *override.split())
    with pytest.raises(ConfigError, match=message.replace("[p", r"\[p")) as caught:
        start(cfg)
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value)
    assert not run_dir.exists()


def test_an_image_that_the_encoder_cannot_take(compose_run):
    cfg = compose_run("pixel_push_nodrq", "obs.pixels.image_size=3")
    with pytest.raises(ConfigError, match="image_size=3: expected"):
        build_module(typed(cfg), PUSH)


def test_an_agent_that_saw_is_led_to_one_that_knows_the_state(compose_run):
    asked = ["obs=state"]
    for advised in ("obs.pixels=null", "~auxiliary.goal_prediction"):
        with pytest.raises(ConfigError, match=f"or {advised}$"):
            build_module(config.check(compose_run("pixel_push_laptop", *asked)), PUSH)
        asked.append(advised)
    build_module(config.check(compose_run("pixel_push_laptop", *asked)), PUSH)


def test_a_folder_that_holds_a_run_is_refused_and_unchanged(compose_run, tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    cfg = compose_run("state_push", "debug=default", f"run_dir={tmp_path}")
    with pytest.raises(ConfigError, match=f"run_dir='{tmp_path}': expected a folder without a run"):
        start(cfg)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_two_configurations_never_share_a_folder_and_seeds_do_not_change_the_hash(compose_run):
    base = compose_run("state_push")
    assert config.config_hash(base) == config.config_hash(compose_run("state_push", "seed=3"))
    assert config.config_hash(base) == config.config_hash(
        compose_run("state_push", "total_env_steps=5")
    )
    assert config.config_hash(base) != config.config_hash(compose_run("state_push", "algo.lr=1e-4"))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["experiment=nope"], ["experiment/nope", "state_reach"]),
        (["-m"], ["You must specify 'experiment'"]),
        (["experiments=state_reach"], ["experiments", "experiment?"]),
        (["experiment=state_push", "algo.batchsize=3"], ["algo.batchsize", "algo.batch_size?"]),
        (["experiment=state_push", "run_dir=a=b"], ["'='", "quote the value: 'run_dir=\"a=b\"'"]),
        (["experiment=state_push", "algo.utd_ratio=0"], ["algo.utd_ratio=0", "positive number"]),
        (["experiment=pixel_push", "encoder=null"], ["encoder=None", "write '~encoder' for none"]),
        (["experiment=state_push", "algo.n_step=???"], ["algo.n_step: Missing mandatory value"]),
        (["resume={folder}", "seed=3"], ["seed='3'", "only force_resume, total_env_steps, "]),
    ],
)
def test_the_command_line_answers_in_one_line(tmp_path, args, words):
    args, words = ([text.format(folder=tmp_path) for text in texts] for texts in (args, words))
    done = subprocess.run(
        [sys.executable, "src/train.py", *args], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr
