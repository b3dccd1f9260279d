"""Sections that name a constructor, mappings of swap-ins, and what their signatures say."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from torch.optim import Optimizer

from fetchlab.checkpoint.safe_config import AllowedTargets
from fetchlab.conform import Conform, instance
from fetchlab.errors import ConfigError
from fetchlab.fields import Above, Hint, Min, OpenSection, Supplied, Target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from somewhere import Unknown  # type: ignore[import-not-found]


class Base:
    def __init__(self, agent: Any, seeds: tuple[int, ...], discount: float, warm: bool) -> None:
        self.given = (agent, seeds, discount, warm)


class Method(Base):
    def __init__(
        self,
        tau: Annotated[float, Above(0), Hint("0.005 is usual")],
        over: Literal["min", "mean"],
        hidden: Sequence[Annotated[int, Min(1)]],
        subset: Annotated[int, Min(1)] | None,
        other: Unknown,
        optimizer: partial[Optimizer],
        **given: Any,
    ) -> None:
        super().__init__(**given)


def adam(params: Any, lr: Annotated[float, Min(0)]) -> None: ...


def loss(feature_dim: int, weight: Annotated[float, Min(0)]) -> None: ...


@dataclass(frozen=True)
class Algo(OpenSection):
    batch_size: Annotated[int, Min(1)]
    discount: float


@dataclass(frozen=True)
class Whole:
    algo: Annotated[Algo, Supplied(("agent", "seeds"))]
    auxiliary: Annotated[dict[str, Target], Supplied(("feature_dim",))]


METHOD, LOSS, ADAM = (f"{__name__}.{name}" for name in ("Method", "loss", "adam"))
ALGO = {
    "_target_": METHOD,
    "batch_size": 2,
    "discount": 0.9,
    "warm": True,
    "tau": 0.1,
    "over": "min",
    "hidden": [8],
    "subset": None,
    "other": {"any": "thing"},
    "optimizer": {"_target_": ADAM, "_partial_": True, "lr": 0.1},
}
AUX = {"first": {"_target_": LOSS, "_partial_": True, "weight": 1}}


def check(algo, auxiliary=AUX):
    targets = AllowedTargets(frozenset({METHOD, LOSS, ADAM}))
    Conform(Whole, targets).check({"algo": algo, "auxiliary": auxiliary}, Whole, "")


def test_fields_and_the_constructors_arguments_live_side_by_side():
    check(ALGO)
    check({**ALGO, "subset": 3})
    check(ALGO, {})
    whole = instance(Whole, {"algo": ALGO, "auxiliary": AUX})
    assert (whole.algo.batch_size, whole.algo.discount) == (2, 0.9)
    # What the constructor does not take is not in its node; what it asks for, is.
    own = {name: value for name, value in ALGO.items() if name != "batch_size"}
    assert whole.algo.target == {**own, "_partial_": True}
    assert whole.auxiliary == AUX


@pytest.mark.parametrize(
    ("algo", "auxiliary", "message"),
    [
        ({"batch_size": 0}, {}, "algo.batch_size=0: expected a positive whole number"),
        ({"tau": 0}, {}, "algo.tau=0: expected a positive number; 0.005 is usual"),
        ({"over": "max"}, {}, "algo.over='max': expected one of min, mean"),
        ({"hidden": [8, 0]}, {}, "algo.hidden=[8, 0]: expected a list, each a positive"),
        ({"subset": 0}, {}, "algo.subset=0: expected null or a positive whole number"),
        ({"warm": "no"}, {}, "algo.warm='no': expected true or false"),  # the base's
        ({"zzz": 1}, {}, "algo.zzz=1: expected a key that"),
        ({"agent": 1}, {}, "algo.agent=1: expected a key that"),
        ({"_partial_": True}, {}, "algo._partial_=True: expected false"),
        ({"_target_": LOSS}, {}, "_target_=.*loss.*: expected a constructor that takes agent"),
        ({"_target_": "os.system"}, {}, "algo._target_='os.system': expected a target that"),
        ({"other": {"_target_": "os.system"}}, {}, "algo.other._target_='os.system'"),
        ({"optimizer": {**ALGO["optimizer"], "lr": -1}}, {}, "algo.optimizer.lr=-1: expected at"),
        ({"optimizer": {**ALGO["optimizer"], "params": []}}, {}, "algo.optimizer.params=[]: exp"),
        ({"optimizer": {"_target_": ADAM, "lr": 1}}, {}, "algo.optimizer._partial_=False: exp"),
        ({"optimizer": {"_target_": ADAM, "_partial_": True}}, {}, "algo.optimizer.lr=None: exp"),
        ({"optimizer": 5}, {}, "algo.optimizer=5: expected a mapping with a _target_"),
        ({}, {"weight": -1}, "auxiliary.first.weight=-1: expected at least 0"),
        ({}, {"zzz": 1}, "auxiliary.first.zzz=1: expected an argument of"),
        ({}, {"_partial_": False}, "auxiliary.first._partial_=False: expected true"),
        ({}, {"_target_": "os.system"}, "auxiliary.first._target_='os.system'"),
    ],
)
def test_what_does_not_fit_is_one_line(algo, auxiliary, message):
    with pytest.raises(ConfigError) as caught:
        check({**ALGO, **algo}, {"first": {**AUX["first"], **auxiliary}})
    wanted = message.split(".*")
    assert all(words in str(caught.value) for words in wanted), str(caught.value)


@pytest.mark.parametrize("key", ["batch_size", "discount", "tau", "warm", "subset", "other"])
def test_a_missing_key_is_named(key):
    with pytest.raises(ConfigError, match=f"algo.{key}=None: expected .*the key is missing"):
        check({name: value for name, value in ALGO.items() if name != key})


def test_a_mapping_of_swap_ins_holds_nothing_else():
    with pytest.raises(
        ConfigError, match=r"auxiliary\.first=5: expected a mapping with a _target_"
    ):
        check(ALGO, {"first": 5})
    with pytest.raises(ConfigError, match=r"auxiliary=5: expected "):
        check(ALGO, 5)
