"""The whole configuration is held against its dataclasses: every key, whatever its section."""

from __future__ import annotations

import copy
import operator

import pytest

from fetchlab import config, schema
from fetchlab.errors import ConfigError
from fetchlab.fields import Target, kinds_of, may_be_absent, members, section_of
from fetchlab.run import start


@pytest.fixture(autouse=True, scope="module")
def read_once():
    """Of 300 checks each would read all YAML files anew."""
    allowed = config.allowed_targets(config.CONFIGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "allowed_targets", lambda configs, trusted=(): allowed)
        yield


@pytest.fixture(scope="module")
def whole(compose_run):
    """Every section and every key: a strict pixel run has a camera, too."""
    swapped = ("augment=random_shift", "symmetry=square")
    return compose_run("pixel_push_strict", "debug=default", *swapped)


def keys(tree, prefix=""):
    """Every key of the tree, with its annotation; those of swap-ins are their constructors'."""
    for name, kind in kinds_of(tree).items():
        yield f"{prefix}{name}", kind
        if section_of(kind) is not None:
            yield from keys(section_of(kind), f"{prefix}{name}.")


KEYS = dict(keys(schema.Run))
SECTIONS = ["", *(f"{key}." for key, kind in KEYS.items() if section_of(kind) is not None)]


def section(cfg, dotted):
    return config.lookup(cfg, dotted) if dotted else cfg


def put(cfg, dotted, value):
    """A copy with one other value."""
    changed = copy.deepcopy(cfg)
    parent, _, name = dotted.rpartition(".")
    section(changed, parent)[name] = value
    return changed


def drop(cfg, dotted):
    changed = copy.deepcopy(cfg)
    parent, _, name = dotted.rpartition(".")
    del section(changed, parent)[name]
    return changed


def refusal(cfg):
    with pytest.raises(ConfigError) as caught:
        config.check(cfg)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def of_type(kind):
    return [key for key, annotation in KEYS.items() if kind in bases(annotation)]


def bases(annotation):
    return [members(one)[0] for one in members(annotation)]


def test_the_tree_names_every_key_of_the_yaml_files(whole):
    config.check(whole)
    for key in KEYS:
        config.lookup(whole, key)


@pytest.mark.parametrize("group", ["task", "obs", "trainer", "debug"])
def test_every_option_of_a_group_that_is_no_swap_in_passes(compose_run, group):
    names = sorted(path.stem for path in (config.CONFIGS / group).glob("*.yaml"))
    for name in names:
        config.check(compose_run("pixel_push_nodrq", f"{group}={name}"))


@pytest.mark.parametrize("key", of_type(bool))
def test_a_boolean_is_true_or_false_and_nothing_that_counts_as_one(whole, key):
    for value in ("no", "yes", "off", "False", "", 0, 1, 0.0, None, [], {}):
        said = refusal(put(whole, key, value))
        assert said.startswith(f"{key}={list(value) if value == {} else value!r}: expected")
        assert "true or false" in said
    for value in (True, False):
        config.check(put(whole, key, value))


@pytest.mark.parametrize("key", [*of_type(int), *of_type(float)])
def test_a_number_is_a_finite_number_in_its_range(whole, key):
    wrong = ["auto", "1", "", True, [1], float("nan"), float("inf"), float("-inf"), 10**400]
    wrong += [1.5, -1] if key in of_type(int) else []
    for value in wrong:
        assert refusal(put(whole, key, value)).startswith(f"{key}=")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("algo.tau", 1),  # a whole number is a number
        ("algo.utd_ratio", 2),
        ("callbacks.disk_watch.every_s", 10),
        ("obs.pixels.camera.lookat", [1, 2, 3]),
        ("algo.her_k", {"from": 8, "to": 1, "over_env_steps": 50}),
        ("algo.target_subset", 1),
        ("collect.workers", None),
        ("obs.pixels.camera", None),
    ],
)
def test_what_fits_passes(whole, key, value):
    config.check(put(whole, key, value))


@pytest.mark.parametrize("key", of_type(str))
def test_text_is_text_and_not_empty(whole, key):
    for value in (12, 1.5, True, "", "  ", ["a"], {"a": 1}):
        assert refusal(put(whole, key, value)).startswith(f"{key}=")


@pytest.mark.parametrize("section_key", SECTIONS)
def test_a_key_that_nothing_reads_is_refused_in_every_section(whole, section_key):
    said = refusal(put(whole, f"{section_key}zzz", 1))
    assert said.startswith(f"{section_key}zzz=1: expected a")
    assert "a key that something reads" in said or "an argument of fetchlab." in said
    said = refusal(put(whole, f"{section_key}zzz", {"_target_": "os.system", "command": "true"}))
    assert said.startswith(f"{section_key}zzz=")


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_key_is_named(whole, key):
    if key in ("encoder", "pooling", "feature_norm"):
        assert refusal(drop(whole, key)).startswith(f"{key}=None: expected a network")
        return
    if may_be_absent(KEYS[key]):
        config.check(drop(whole, key))
        return
    said = refusal(drop(whole, key))
    assert said.startswith((f"{key}=None: expected", f"{key}."))
    assert "the key is missing" in said


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("algo.discont", "algo.discount"),
        ("lr", "algo.lr"),
        ("n_envs", "collect.n_envs or callbacks.evaluation.n_envs"),
        ("trainer.thread", "trainer.threads"),
        ("sed", "seed"),
    ],
)
def test_an_unknown_key_lists_near_names(whole, key, meant):
    said = refusal(put(whole, key, 1))
    assert said.removesuffix(f" Or add '~{key}'").endswith(f"did you mean {meant}?")


SWAP_INS = [key for key, kind in KEYS.items() if Target in members(kind)]


@pytest.mark.parametrize("key", SWAP_INS)
def test_a_swap_in_takes_the_arguments_of_its_constructor(whole, key):
    for name, value in (("zzz", 1), ("_convert_", "all"), ("_recursive_", False), ("_args_", [1])):
        said = refusal(put(whole, f"{key}.{name}", value))
        assert said.startswith(f"{key}.{name}={value!r}: expected an argument of ")
    for partial in (0, "yes", not config.lookup(whole, key).get("_partial_", False)):
        said = refusal(put(whole, f"{key}._partial_", partial))
        assert said.startswith(f"{key}._partial_={partial!r}: expected ")
    assert refusal(put(whole, key, 5)).startswith(f"{key}=5: expected ")
    assert refusal(put(whole, key, {})).startswith(f"{key}._target_=None: expected ")
    assert refusal(put(whole, f"{key}._target_", 5)).startswith(f"{key}._target_=5: expected ")
    assert "trusted_modules=[os]" in refusal(put(whole, f"{key}._target_", "os.system"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("encoder.filters", "many"),
        ("encoder.filters", 32.5),
        ("encoder.filters", True),
        ("encoder.filters", [32]),
        ("encoder.in_channels", 12),  # the project gives it
        ("pooling.temperature", "auto"),
        ("pooling.in_shape", [32, 21, 21]),
        ("augment.pad", 4.0),
        ("augment.shared_draw", "no"),
        ("algo.critic_optimizer.fused", 1),
        ("algo.actor_optimizer.lr", -1.0),
        ("algo.actor_optimizer.params", []),
        ("relabel.k", {"_target_": "os.system", "command": "true"}),
        ("relabel.k", [{"inner": {"_target_": "os.system"}}]),
    ],
)
def test_an_argument_of_a_swap_in_has_its_annotated_type(whole, key, value):
    assert refusal(put(whole, key, value)).startswith(key)


@pytest.mark.parametrize("key", ["encoder.filters", "pooling.temperature", "relabel.k"])
def test_a_missing_argument_of_a_swap_in_is_named(whole, key):
    assert refusal(drop(whole, key)).startswith(f"{key}=None: expected a value; the key is missing")


def test_a_checked_configuration_becomes_its_dataclasses(whole):
    run = config.check(whole)
    assert run == config.typed(whole)
    assert type(run) is schema.Run
    for key, kind in KEYS.items():
        value = operator.attrgetter(key)(run)
        if (section_class := section_of(kind)) is not None:
            assert type(value) is section_class
        else:  # swap-ins, too
            assert value == config.lookup(whole, key)
    assert run.obs.sees_pixels
    assert config.typed(put(whole, "obs.pixels.camera", None)).obs.pixels.camera is None
    assert config.typed(drop(whole, "encoder")).encoder is None
    seen = put(whole, "obs.critic_inputs", ["state", "desired_goal"])
    assert config.typed(seen).obs.sees_pixels
    blind = put(seen, "obs.actor_inputs", ["state", "desired_goal"])
    assert not config.typed(blind).obs.sees_pixels


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("experiment", {"seed": 3}, "experiment=['seed']: expected an experiment's name"),
        ("sweep", {"hydra": {}}, "sweep=['hydra']: expected the name of a file"),
        ("debug", {"seed": 3}, "debug=['seed']: expected the name of a file"),
    ],
)
def test_a_file_that_landed_under_its_groups_name_lacks_its_header(whole, key, value, words):
    said = refusal(put(whole, key, value))
    assert words in said
    assert "# @package _global_" in said


def test_a_run_starts_with_the_same_check(whole, tmp_path):
    cfg = put(whole, "run_dir", str(tmp_path / "run"))
    with pytest.raises(ConfigError, match=r"algo\.layer_norm='no': expected true or false"):
        start(put(cfg, "algo.layer_norm", "no"))
    with pytest.raises(ConfigError, match=r"algo\.gamma=0\.5: expected a key that something reads"):
        start(put(cfg, "algo.gamma", 0.5))
    assert not (tmp_path / "run").exists()
