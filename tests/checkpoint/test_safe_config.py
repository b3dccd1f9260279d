"""A run's config is data: exact targets, nothing to resolve, nothing executed."""

import logging

import pytest
import yaml

from fetchlab.checkpoint.safe_config import allowed_targets, load_run_config
from fetchlab.errors import ConfigError

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
    names = {"pkg.Sac", "pkg.Part", "pkg.Inner", "top.Level"}
    assert allowed_targets(tmp_path).names == names
    with pytest.raises(ConfigError, match="configs_dir"):
        allowed_targets(tmp_path / "absent")


BOMB = "".join(f"b{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 9)}]\n" for n in range(1, 40))


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("a: &x {_target_: pkg.A}\nb: *x\n", {"pkg.A"}),
        (
            "a: &x {_target_: pkg.A, k: 1}\nb: {<<: *x, inner: {_target_: pkg.B}}\n",
            {"pkg.A", "pkg.B"},
        ),
        ("a: &x [*x, {_target_: pkg.A}]\n", {"pkg.A"}),
        (f"b0: &b0 {{_target_: pkg.A}}\n{BOMB}", {"pkg.A"}),  # 9^39 when expanded
    ],
)
def test_aliases_in_our_own_files_are_read(tmp_path, caplog, text, targets):
    (tmp_path / "own.yaml").write_text(text)
    assert allowed_targets(tmp_path).names == targets
    assert caplog.records == []


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system ['touch SENTINEL']\nb: {_target_: os.system}",
        "a: !mine {_target_: os.system}",
        "a: [",
        "a: {_target_: os.system}\n\tb: 1",
        b"# \xe9\na: {_target_: os.system}",
        b"\x00",
        "[" * 3000,
        "a: *nowhere",
        "x: y\n" * 300_000,
    ],
)
def test_an_unreadable_file_of_ours_is_named_and_blocks_nothing(
    tmp_path, monkeypatch, caplog, text
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.yaml").write_text("_target_: pkg.Good")
    (tmp_path / "bad.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "dangling.yaml").symlink_to("nowhere")
    assert allowed_targets(tmp_path).names == {"pkg.Good"}
    warned = [(record.levelno, record.getMessage()) for record in caplog.records]
    assert {level for level, _ in warned} == {logging.WARNING}
    for name in ("bad.yaml", "dangling.yaml", "folder.yaml"):
        assert sum(str(tmp_path / name) in message for _, message in warned) == 1
    assert not (tmp_path / "SENTINEL").exists()


@pytest.mark.parametrize(
    ("trusted", "target", "opens"),
    [
        (["my_pkg"], "my_pkg.enc.Enc", True),
        (["my_pkg"], "my_pkg.Enc", True),
        (["my_pkg.enc"], "my_pkg.enc.Enc", True),
        (["other", "my_pkg"], "my_pkg.enc.Enc", True),
        (["my_pk"], "my_pkg.enc.Enc", False),
        (["my_pkg.en"], "my_pkg.enc.Enc", False),
        (["my_pkg.enc.Enc"], "my_pkg.enc.Enc", False),  # a module is trusted, not a name
        (["enc"], "my_pkg.enc.Enc", False),
        (["MY_PKG"], "my_pkg.enc.Enc", False),
        ([], "my_pkg.enc.Enc", False),
    ],
)
def test_a_trusted_module_opens_the_list_at_a_dot(tmp_path, trusted, target, opens):
    (tmp_path / "own.yaml").write_text("_target_: pkg.Good")
    allowed = allowed_targets(tmp_path, trusted)
    assert (target in allowed) is opens
    run = tmp_path / "config.yaml"
    run.write_text(f"trusted_modules: [my_pkg]\nencoder: {{_target_: {target}}}")
    if opens:
        assert load_run_config(run, allowed)["encoder"]["_target_"] == target
    else:  # what the run folder says of itself counts for nothing
        with pytest.raises(ConfigError, match=r"encoder\._target_=.*trusted_modules=\[my_pkg"):
            load_run_config(run, allowed)


@pytest.mark.parametrize("trusted", [[""], ["."], ["my_pkg."], [".my_pkg"], ["a b"], ["*"], [3]])
def test_what_is_no_module_name_opens_nothing(tmp_path, trusted):
    (tmp_path / "own.yaml").write_text("_target_: pkg.Good")
    with pytest.raises(ConfigError, match=r"trusted_modules=.*expected a list of modules"):
        allowed_targets(tmp_path, trusted)


@pytest.mark.parametrize("trusted", ["my_pkg", None, {"my_pkg": 1}, 3])
def test_trusted_modules_is_a_list(tmp_path, trusted):
    (tmp_path / "own.yaml").write_text("_target_: pkg.Good")
    with pytest.raises(ConfigError, match=r"trusted_modules=.*expected a list of modules"):
        allowed_targets(tmp_path, trusted)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("my_own.enc.Enc", None),
        ("my_own.enc.Absent", "no attribute 'Absent'"),
        ("my_own.absent.Enc", "No module named 'my_own.absent'"),
        ("my_own.needs.Enc", "No module named 'not_installed'"),
        ("my_own.broken.Enc", "SyntaxError"),
        ("my_own.raises.Enc", "ZeroDivisionError"),
        ("my_own.enc.NUMBER", "expected a class or a function"),
        ("my_own.enc.system", "expected what a trusted module itself defines"),
        ("my_own.enc.os.system", "expected a name that can be imported"),
    ],
)
def test_what_a_trusted_module_cannot_give_is_one_line(tmp_path, monkeypatch, target, words):
    package = tmp_path / "my_own"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "enc.py").write_text(
        "import os\nfrom os import system\nNUMBER = 3\nclass Enc: pass\n"
    )
    (package / "needs.py").write_text("import not_installed\n")
    (package / "broken.py").write_text("def x(:\n")
    (package / "raises.py").write_text("1 / 0\n")
    (tmp_path / "own.yaml").write_text("_target_: pkg.Good")
    monkeypatch.syspath_prepend(tmp_path)
    allowed = allowed_targets(tmp_path, ["my_own"])
    if words is None:
        assert allowed.load(target, "encoder._target_").__name__ == "Enc"
        return
    with pytest.raises(ConfigError) as caught:
        allowed.load(target, "encoder._target_")
    assert str(caught.value).startswith(f"encoder._target_='{target}': expected")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
