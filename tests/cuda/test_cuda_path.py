"""The CUDA path without a GPU: never waits, never mixes, and a graph is what it was recorded from.

The last part breaks it on purpose, so that a check that notices nothing fails too.
"""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from learning import learn
from pretended import DeviceError, pretended

from fetchlab.algos import metrics, off_policy, steps
from fetchlab.algos.off_policy import OffPolicy

SMALL = (
    "debug=default",
    "algo.batch_size=4",
    "algo.hidden=[16,16]",
    "collect.n_envs=3",
    "trainer.threads=1",
    "trainer.cuda_graphs=true",
)
AGENTS = {
    "pixels": (
        "pixel_push_nodrq_gpu",
        "obs.pixels.image_size=16",
        "encoder.filters=8",
        "augment=random_shift",
        "auxiliary=[goal_prediction,next_features]",
    ),
    "student": (
        "pixel_push_laptop_student",
        "obs.pixels.image_size=16",
        "encoder.filters=8",
        "algo.student=actor",
        "auxiliary=[goal_prediction,next_features]",
    ),
    "estimate": ("pixel_push_laptop_student", "obs.pixels.image_size=16", "encoder.filters=8"),
    "mirrors": (
        "pixel_push_laptop_critic",
        "obs.pixels.image_size=16",
        "encoder.filters=8",
        "symmetry=mirrors",
    ),
    "state": (
        "state_push",
        "obs.normalize=fixed",
        "algo.learn_entropy=true",
        "algo.layer_norm=true",
        "algo.ensemble=4",
        "algo.target_subset=2",
        "algo.actor_over=mean",
        "algo.n_step=2",
        "symmetry=square",
    ),
}
#: Three updates warm up; then there are pieces of 2, 3, 8 and 1, and some of each are replayed.
ROUNDS = (1, 2, 2, 3, 2, 9, 3, 9)
FEW = (3, 2, 2, 3)
LATE = "algo.auxiliary_every=4"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tensors of a few numbers: a second thread is only waited for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def on_the_cpu(compose_run, tmp_path_factory):
    """What the agents learn on the CPU: each configuration's rounds once."""
    known = {}

    def reference(agent, rounds):
        if (agent, rounds) not in known:
            cfg = compose_run(AGENTS[agent][0], *SMALL, *AGENTS[agent][1:])
            if cfg["algo"]["_target_"].endswith("Distill"):
                cfg["teacher"] = compose_run("vector_push", *SMALL)
            folder = tmp_path_factory.mktemp("cpu")
            known[agent, rounds] = cfg, learn(cfg, folder, torch.device("cpu"), rounds)
        return known[agent, rounds]

    return reference


def differences(one, other):
    """Where two results of `learn` differ: (round, name), and "metrics"."""
    (ours, means), (theirs, other_means) = one, other
    found = [
        (nth, name)
        for nth, (a, b) in enumerate(zip(ours, theirs, strict=True))
        for name in a.keys() | b.keys()
        if not torch.equal(a[name], b[name])
    ]
    return found + (["metrics"] if means != other_means else [])


@pytest.mark.parametrize("agent", AGENTS)
def test_the_cuda_path_waits_for_its_actions_alone_and_learns_what_the_cpu_learns(
    agent, on_the_cpu, tmp_path
):
    cfg, reference = on_the_cpu(agent, ROUNDS)
    with pretended() as device:
        found = learn(cfg, tmp_path, torch.device("cuda", 0), ROUNDS, device)
    assert differences(found, reference) == []
    assert device.graphs == 4  # of 2, 3, 8 and 1 updates
    waits = [wait for wait in device.waits if wait[0] in ("store", "act", "update")]
    assert waits == [("act", "a copy to the host", "")] * (len(ROUNDS) - 1)


def noticed(fault, on_the_cpu, folder):
    """What the state agent's check says of a fault: an error's text, or where results differ."""
    cfg, reference = on_the_cpu("state", FEW)
    owner, name, value = fault
    try:
        with mock.patch.object(owner, name, value), pretended() as device:
            found = learn(cfg, folder, torch.device("cuda", 0), FEW, device)
    except DeviceError as error:
        return str(error)
    return differences(found, reference)


def test_the_check_is_silent_without_a_fault(on_the_cpu, tmp_path):
    assert noticed((OffPolicy, "noise", OffPolicy.noise), on_the_cpu, tmp_path) == []


def test_a_batch_that_is_not_copied_into_static_memory_is_noticed(on_the_cpu, tmp_path):
    fault = (steps.CapturedUpdates, "_load", lambda self, nth, batch: batch)
    found = noticed(fault, on_the_cpu, tmp_path)
    # The second round records a graph; the third replays it, on the second's batch.
    assert {nth for nth, _ in found[:-1]} == {2, 3}


def test_a_generator_that_is_not_registered_is_noticed(on_the_cpu, tmp_path):
    plain = steps.CapturedUpdates.__init__

    def without(self, function, generators, *more):
        plain(self, function, [], *more)

    found = noticed((steps.CapturedUpdates, "__init__", without), on_the_cpu, tmp_path)
    assert found.startswith("a generator that the graph does not know, in symmetry.py")


def test_a_value_read_within_an_update_is_noticed(on_the_cpu, tmp_path):
    plain = metrics.MetricSums.add

    def reading(self, values):
        next(iter(values.values())).item()
        plain(self, values)

    found = noticed((metrics.MetricSums, "add", reading), on_the_cpu, tmp_path)
    assert found.startswith("_local_scalar_dense while a graph is recorded")


def test_a_host_tensor_among_the_devices_is_noticed(on_the_cpu, tmp_path):
    plain = OffPolicy.noise
    fault = (OffPolicy, "noise", lambda self, like: plain(self, like) * torch.ones(4))
    assert noticed(fault, on_the_cpu, tmp_path).startswith("mul: tensors of host and device")


def test_a_copy_to_the_device_within_an_update_is_noticed(on_the_cpu, tmp_path):
    plain = OffPolicy.noise
    moved = lambda self, like: plain(self, like) * torch.ones(4).to(like.device)  # noqa: E731
    fault = (OffPolicy, "noise", moved)
    assert noticed(fault, on_the_cpu, tmp_path).startswith("a copy to the device while a graph")


def test_a_number_of_python_in_a_graph_is_noticed(on_the_cpu, tmp_path):
    """A bonus that grows by a hundredth with each call: replays do not call."""
    plain, calls = off_policy.td_target, []

    def growing(reward, *args, **options):
        calls.append(None)
        return plain(reward, *args, **options) + 0.01 * len(calls)

    fault = (off_policy, "td_target", growing)
    cfg, _ = on_the_cpu("state", FEW)
    with mock.patch.object(*fault):
        reference = learn(cfg, tmp_path / "cpu", torch.device("cpu"), FEW)
    assert len(calls) == sum(FEW)
    calls.clear()
    found = noticed(fault, lambda *_: (cfg, reference), tmp_path / "cuda")
    # The recording of round 1 calls as its two updates would; round 2 replays those numbers.
    assert {nth for nth, _ in found[:-1]} == {2, 3}


def test_a_sum_that_is_not_changed_in_place_is_noticed(on_the_cpu, tmp_path):
    def rebinding(self, values):
        self._sums = self._sums + torch.stack([*values.values(), self._one])

    found = noticed((metrics.MetricSums, "add", rebinding), on_the_cpu, tmp_path)
    assert found == ["metrics"]


@pytest.mark.parametrize(
    ("experiment", "overrides"),
    [
        ("state_push", ("algo=td3", "algo.policy_delay=4")),
        ("pixel_push_laptop", ("obs.pixels.image_size=16", "encoder.filters=8", LATE)),
    ],
)
def test_what_steps_first_after_the_warm_up_is_not_recorded_as_new(
    experiment, overrides, compose_run, tmp_path
):
    """An optimizer's state that a graph made would be zeroed by every replay of it."""
    cfg, rounds = compose_run(experiment, *SMALL, *overrides), (1,) * 13
    reference = learn(cfg, tmp_path / "cpu", torch.device("cpu"), rounds)
    with pretended() as device:
        found = learn(cfg, tmp_path / "cuda", torch.device("cuda", 0), rounds, device)
    assert differences(found, reference) == []
    assert device.graphs == 4  # one for each update of a period
