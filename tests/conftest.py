"""What whole-run tests share: composed configurations and short real runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict

from fetchlab.preflight.renderer import choose_gl_backend

choose_gl_backend()  # before any test imports mujoco

CONFIGS = Path(__file__).parents[1] / "configs"


def compose_config(experiment: str, *overrides: str) -> dict:
    """The plain configuration that `src/train.py experiment=... <overrides>` would run."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", [f"experiment={experiment}", *overrides], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


def pytest_collection_modifyitems(items):
    """The longest test first, so that parallel workers end together."""
    items.sort(key=lambda item: "test_torture" not in item.nodeid)


@pytest.fixture(scope="session")
def compose_run():
    return compose_config
