"""The backend is found by rendering with it; a failure names the reasons and the packages."""

import os
import signal
import subprocess
import sys
import time

import pytest

from fetchlab.errors import ConfigError
from fetchlab.preflight import renderer


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch):
    # set before deleting: monkeypatch then also removes what `choose_renderer` itself writes
    names = ("MUJOCO_GL", "PYOPENGL_PLATFORM", "FETCHLAB_EGL_DEVICES", "CUDA_VISIBLE_DEVICES")
    for name in (*names, "MUJOCO_EGL_DEVICE_ID", "FETCHLAB_RENDERER"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    renderer._probe.cache_clear()
    yield
    renderer._probe.cache_clear()


def _fake_probe(monkeypatch, devices="0", **works):
    tried = []

    def probe(backend):
        tried.append(backend)
        about = f"about {backend}"
        return renderer.RendererInfo(backend, about, devices) if works[backend] else about

    probe.cache_clear = lambda: None
    monkeypatch.setattr(renderer, "_probe", probe)
    return tried


def test_this_machine_has_a_backend_and_it_renders():
    info = renderer.choose_renderer()
    assert info.backend in renderer.CANDIDATES
    assert "OpenGL" in info.description
    assert info.backend != "egl" or "0" in info.egl_devices.split(",")
    assert os.environ["MUJOCO_GL"] == os.environ["PYOPENGL_PLATFORM"] == info.backend
    assert (
        renderer.choose_renderer().backend == info.backend
    )  # now through MUJOCO_GL, from the cache
    assert renderer._probe.cache_info().misses <= len(renderer.CANDIDATES)


def test_egl_is_preferred_and_osmesa_is_not_tried(monkeypatch):
    tried = _fake_probe(monkeypatch, egl=True, osmesa=True)
    assert renderer.choose_renderer() == renderer.RendererInfo("egl", "about egl", "0")
    assert tried == ["egl"]


def test_osmesa_is_the_second_choice(monkeypatch):
    tried = _fake_probe(monkeypatch, egl=False, osmesa=True)
    assert renderer.choose_renderer().backend == "osmesa"
    assert tried == ["egl", "osmesa"]
    assert os.environ["MUJOCO_GL"] == os.environ["PYOPENGL_PLATFORM"] == "osmesa"


def test_mujoco_gl_is_the_only_candidate_where_set(monkeypatch):
    tried = _fake_probe(monkeypatch, egl=True, osmesa=True)
    monkeypatch.setenv("MUJOCO_GL", "OSMesa")
    monkeypatch.setenv("PYOPENGL_PLATFORM", "egl")  # MuJoCo refuses a platform that differs
    assert renderer.choose_renderer().backend == "osmesa"
    assert tried == ["osmesa"]
    assert os.environ["PYOPENGL_PLATFORM"] == "osmesa"


@pytest.mark.parametrize(
    ("devices", "assigned", "named"), [("0", "", None), ("0,2", "", "0,2"), ("0,2", "1", None)]
)
def test_devices_that_render_alike_are_named_for_the_workers(devices, assigned, named, monkeypatch):
    _fake_probe(monkeypatch, devices, egl=True)
    if assigned:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", assigned)
    assert renderer.choose_renderer().egl_devices == devices
    assert os.environ.get("FETCHLAB_EGL_DEVICES") == named


def test_neither_working_is_one_line_with_reasons_and_packages(monkeypatch):
    _fake_probe(monkeypatch, egl=False, osmesa=False)
    with pytest.raises(ConfigError) as caught:
        renderer.choose_renderer()
    message = str(caught.value)
    assert "\n" not in message
    assert "egl: about egl; osmesa: about osmesa" in message
    for package in ("libegl1", "libgl1-mesa-dri", "libegl-mesa0", "libosmesa6"):
        assert package in message
    assert "MUJOCO_GL" not in os.environ


def test_a_backend_that_does_not_exist_fails_with_its_reason(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    with pytest.raises(
        ConfigError, match=r"RuntimeError: invalid value.*nonsense.*unset MUJOCO_GL"
    ):
        renderer.choose_renderer()


def test_a_driver_that_hangs_is_a_failure(monkeypatch):
    monkeypatch.setattr(renderer, "_PROBE", "import time; time.sleep(60)")
    monkeypatch.setattr(renderer, "PROBE_TIMEOUT_S", 0.2)
    assert renderer._probe("egl") == "no picture within 0 s"


def test_a_driver_is_not_blamed_for_time_in_which_all_was_suspended():
    code = (
        "import sys; from fetchlab.preflight import renderer\n"
        "renderer.PROBE_TIMEOUT_S = 2.0\n"
        "renderer._PROBE = 'import time; time.sleep(0.6); print(7)'\n"
        "print('probing', flush=True); print(renderer._probe('egl').description)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout.readline() == "probing\n"
        time.sleep(0.2)
        os.killpg(process.pid, signal.SIGSTOP)
        time.sleep(2.2)
        os.killpg(process.pid, signal.SIGCONT)
        assert process.stdout.readline() == "7\n"


def test_a_driver_that_crashes_without_a_word_is_a_failure(monkeypatch):
    monkeypatch.setattr(renderer, "_PROBE", "import os; os.kill(os.getpid(), 11)")
    assert renderer._probe("egl") == "exit status -11"


def test_choosing_imports_neither_mujoco_nor_torch():
    code = (
        "import sys; from fetchlab.preflight.renderer import choose_renderer\n"
        "choose_renderer(); print(sorted({'mujoco', 'OpenGL', 'torch'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
