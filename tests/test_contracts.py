"""Every YAML of a swap-in group builds and meets its protocol; found by globbing, not by a list."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import yaml
from hydra.utils import instantiate
from known_specs import PUSH
from resnet_weights import write_resnet_weights
from tensordict import TensorDict

from fetchlab import config
from fetchlab.algos.off_policy import OffPolicy
from fetchlab.algos.routing import Routing
from fetchlab.build import build_module
from fetchlab.config import typed

CONFIGS = Path(__file__).parents[1] / "configs"


SWAP_INS = ("encoder", "pooling", "feature_norm", "augment", "relabel", "routing", "auxiliary")


def group(name):
    files = sorted((CONFIGS / name).glob("*.yaml"))
    assert files, f"configs/{name} is empty"
    # An option that also sets other groups (`@package _global_`) has itself under its group's name.
    loaded = {file.stem: yaml.safe_load(file.read_text()) for file in files}
    return [pytest.param(plain(one.get(name, one)), id=stem) for stem, one in loaded.items()]


def plain(config):
    """An option by itself: what it takes from the rest of the configuration is given here."""
    return {key: 4 if value == "${algo.her_k}" else value for key, value in config.items()}


def images(seed=0, size=84):
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, 12, size, size), dtype=torch.uint8, generator=rng)


@pytest.fixture(scope="module")
def weights_path(tmp_path_factory):
    """What an encoder that starts from a user's file is given."""
    return write_resnet_weights(tmp_path_factory.mktemp("weights") / "resnet18.pth")


def with_weights(config, path):
    return {**config, "weights_path": path} if "weights_path" in config else config


def build_encoder(config):
    torch.manual_seed(0)
    return instantiate(config)(in_channels=12, image_size=84)


@pytest.mark.parametrize("config", group("encoder"))
def test_encoder(config, weights_path):
    config = with_weights(config, weights_path)
    encoder = build_encoder(config)
    maps = encoder(images().float() / 255)
    assert maps.shape == (3, *encoder.out_shape)
    assert maps.dtype == torch.float32
    trained = [p for p in encoder.parameters() if p.requires_grad]
    assert bool(trained) == maps.requires_grad == ("weights_path" not in config)
    if trained:  # all of it, or a frozen encoder
        assert len(trained) == len(list(encoder.parameters()))
        maps.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)
    twin = build_encoder(config)
    assert all(
        torch.equal(a, b) for a, b in zip(encoder.parameters(), twin.parameters(), strict=True)
    )
    restored = copy.deepcopy(twin)
    for parameter in restored.parameters():
        parameter.data.zero_()
    restored.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(restored(images().float() / 255), maps)


@pytest.mark.parametrize("config", group("pooling"))
def test_pooling(config):
    torch.manual_seed(0)
    pooling = instantiate(config)(in_shape=(8, 21, 21))
    maps = torch.rand(3, 8, 21, 21, generator=torch.Generator().manual_seed(0)).requires_grad_()
    vector = pooling(maps)
    assert vector.shape == (3, pooling.out_dim)
    assert vector.dtype == torch.float32
    vector.square().sum().backward()
    assert maps.grad.abs().sum() > 0
    torch.testing.assert_close(pooling(maps[1:2]), vector[1:2])


@pytest.mark.parametrize("config", group("feature_norm"))
def test_feature_norm(config):
    norm, twin = instantiate(config)(7), instantiate(config)(7)
    features = torch.rand(16, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()
    out = norm(features)
    assert out.shape == features.shape
    assert out.dtype == torch.float32
    out[:8, 0].sum().backward()
    assert features.grad.abs().sum() > 0
    assert torch.equal(twin(features), out)
    restored = instantiate(config)(7)
    restored.load_state_dict(norm.state_dict())
    with torch.no_grad():
        assert torch.equal(restored(features), norm(features))


@pytest.mark.parametrize("config", group("augment"))
def test_augment(config):
    augment, pixels = instantiate(config), images()
    assert isinstance(augment.shared_draw, bool)
    before = pixels.clone()
    out = augment(pixels, torch.Generator().manual_seed(1))
    assert out.shape == pixels.shape
    assert out.dtype == torch.uint8
    assert torch.equal(pixels, before)
    assert torch.equal(out, augment(pixels, torch.Generator().manual_seed(1)))
    # images by themselves: no other image changes what becomes of this one
    other = torch.cat((pixels[:1], 255 - pixels[1:]))
    assert torch.equal(out[0], augment(other, torch.Generator().manual_seed(1))[0])
    # values on the meta device cannot be read: what works there never makes the host wait
    blind = augment(pixels.to("meta"), torch.Generator().manual_seed(1))
    assert (blind.shape, blind.dtype) == (pixels.shape, torch.uint8)


@pytest.mark.parametrize("config", group("relabel"))
def test_relabel(config):
    relabel = instantiate(config)
    length = torch.randint(1, 51, (4000,), generator=torch.Generator().manual_seed(0))
    t = (torch.rand(4000, generator=torch.Generator().manual_seed(1)) * length).long()
    before = t.clone(), length.clone()
    for env_steps in (0, 10**9):
        goal = relabel(t, length, torch.Generator().manual_seed(2), env_steps)
        assert goal.shape == t.shape
        assert goal.dtype == torch.int64
        assert bool(((goal == -1) | ((goal >= 1) & (goal <= length))).all())
        again = relabel(t, length, torch.Generator().manual_seed(2), env_steps)
        assert torch.equal(goal, again)
    assert torch.equal(t, before[0])
    assert torch.equal(length, before[1])


@pytest.mark.parametrize("config", group("routing"))
def test_routing(config):
    assert Routing(**config).encoder_optimizer in ("critic", "actor")


@pytest.mark.parametrize("name", [path.stem for path in (CONFIGS / "auxiliary").glob("*.yaml")])
def test_auxiliary_loss(name):
    config = yaml.safe_load((CONFIGS / "auxiliary" / f"{name}.yaml").read_text())
    assert list(config) == [name]
    loss_of = instantiate(config[name])(feature_dim=6, env_spec=PUSH)
    batch = TensorDict({"state": torch.randn(5, 25), "action": torch.rand(5, 4)}, batch_size=[5])
    features = torch.randn(5, 6, requires_grad=True)
    ahead = torch.randn(5, 6) if loss_of.needs_next_features else None
    loss, metrics = loss_of(features, batch, ahead)
    loss.backward()
    assert loss.shape == ()
    assert features.grad.abs().sum() > 0
    assert tuple(metrics) == loss_of.metrics
    assert all(value.shape == () and not value.requires_grad for value in metrics.values())


@pytest.mark.parametrize(
    "name", [path.stem for path in (CONFIGS / "algo").glob("*.yaml") if path.stem != "base"]
)
def test_algorithm(name, compose_run):
    taught = name == "distill"
    for experiment in ("state_push", "pixel_push_strict_fast"):
        more = ("routing=actor",) if taught else ()
        cfg = compose_run(experiment, f"algo={name}", *more)
        cfg["teacher"] = compose_run("vector_push") if taught else None
        module = build_module(config.check(cfg), PUSH)
        assert isinstance(module, OffPolicy)
        assert len(module.configure_optimizers()) == (1 if taught else 2)


@pytest.mark.parametrize("experiment", ["pixel_push_nodrq", "pixel_push_strict_fast"])
@pytest.mark.parametrize("name", SWAP_INS)
def test_every_option_fits_experiments_that_chose_another(
    compose_run, name, experiment, weights_path
):
    for file in sorted((CONFIGS / name).glob("*.yaml")):
        config = compose_run(experiment, f"{name}={file.stem}")
        config["encoder"] = with_weights(config["encoder"], weights_path)
        assert build_module(typed(config), PUSH).agent.encoder is not None
        instantiate(config["relabel"])
