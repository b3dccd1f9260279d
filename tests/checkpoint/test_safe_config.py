"""A run's config is data: exact targets, nothing to resolve, nothing executed."""

import pytest
import yaml

from fetchlab.checkpoint.safe_config import allowed_targets, load_run_config
from fetchlab.types import ConfigError

ALLOWED = frozenset({"fetchlab.augment.shift.RandomShift", "torch.optim.Adam"})


def load(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_run_config(path, ALLOWED)


GOOD = """
seed: 0
run_dir: /tmp/a b
algo:
  lr: 1.0e-05
  utd_ratio: 0.25
  optimizer: {_target_: torch.optim.Adam, _partial_: true, betas: [0.9, 0.999]}
augment: [{_target_: fetchlab.augment.shift.RandomShift, pad: 4}, null]
"""


def test_plain_config_loads(tmp_path):
    config = load(tmp_path, GOOD)
    assert config["algo"]["lr"] == 1e-5
    assert config["algo"]["optimizer"]["_partial_"] is True
    assert config == yaml.safe_load(GOOD)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("a: {_target_: os.system, command: touch SENTINEL}", "a._target_='os.system'"),
        ("_target_: torch.load", "_target_='torch.load'"),
        ("a: [1, [{b: {_target_: os.system}}]]", "a.1.0.b._target_"),
        ("a: {_target_: torch.optim.Adam , b: {_target_: builtins.eval}}", "a.b._target_"),
        ("a: {_target_: torch.optim.AdamW}", "a._target_"),  # a prefix match is not a match
        ("a: {_target_: ' torch.optim.Adam'}", "a._target_"),
        ("a: {_target_: TORCH.optim.Adam}", "a._target_"),
        ("a: {_target_: [torch.optim.Adam]}", "a._target_"),
        ("a: {_target_: null}", "a._target_"),
        ("a: {_partial_: os.system}", "a._partial_"),
        ("a: {_args_: [x]}", "a._args_"),
        ("a: {_convert_: all}", "a._convert_"),
        ("a: {_recursive_: false}", "a._recursive_"),
        ("a: ${oc.env:HOME}", "a='${oc.env:HOME}'"),
        ("a: {b: ['x${c}']}", "a.b.0"),
        (r"a: \${b}", "a="),
        ("${b}: 1", "${b}="),
        ("a: ???", "a='???'"),
        ("1: {_target_: os.system}", "1=1"),
        ("a: 2026-01-01", "a="),
        ("a: !!binary aGk=", "a="),
        ("a: !!set {x}", "a="),
        ("base: &x {_target_: os.system}\na: {<<: *x}", "config="),
        ("a: !!python/object/apply:os.system ['touch SENTINEL']", "config="),
        ("a: !!python/name:os.system", "config="),
        ("a: &x [1]\nb: *x", "config="),
        ("a: [", "config="),
        ("[1]", "config.yaml='list'"),
        ("", "config.yaml='NoneType'"),
        ("[" * 1000, "config="),
        (b"\xff\xfea\x00", "config.yaml='str'"),
        (b"\x80\x02cposix\nsystem\n(S'touch SENTINEL'\ntR.", "config="),
        ("a: x\n" * 300_000, "config="),
    ],
)
def test_anything_else_is_rejected_in_one_line(tmp_path, monkeypatch, text, key):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert key in message
    assert "resume only run folders" in message
    assert "\n" not in message
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.yaml"):
        load_run_config(tmp_path / "absent.yaml", ALLOWED)


def test_allow_list_is_what_the_shipped_configs_name(tmp_path):
    (tmp_path / "algo").mkdir()
    (tmp_path / "algo" / "sac.yaml").write_text(
        "# @package _global_\ndefaults: [/x@a: b]\n"
        "algo:\n  _target_: pkg.Sac\n  lr: ${oc.env:LR}\n"
        "  parts: [{_target_: pkg.Part, inner: {_target_: pkg.Inner}}]\n"
        "other: {_target_: '${name}', target: not.this, path: 'os.system'}\n"
    )
    (tmp_path / "top.yaml").write_text("a: {_target_: top.Level}\n")
    (tmp_path / "empty.yaml").write_text("")
    (tmp_path / "notes.txt").write_text("_target_: os.system\n")
    assert allowed_targets(tmp_path) == {"pkg.Sac", "pkg.Part", "pkg.Inner", "top.Level"}
    with pytest.raises(ConfigError, match="configs_dir"):
        allowed_targets(tmp_path / "absent")
