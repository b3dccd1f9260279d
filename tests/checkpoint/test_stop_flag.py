"""Signals set a flag and nothing else; the second Ctrl-C leaves at once."""

import os
import signal
import subprocess
import sys
import threading

import pytest
import torch
from lightning import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fetchlab.checkpoint.signals import STOP_SIGNALS, StopFlag

LOOP = """
import time
from fetchlab.checkpoint.signals import StopFlag
with StopFlag() as flag:
    try:
        print("ready", flush=True)
        while True:
            time.sleep(0.01)
            if flag.stop:
                print("noticed", flag.reason, flush=True)
                time.sleep(30)
    finally:
        print("cleaned up", flush=True)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"])
def test_sets_the_flag_and_restores(name):
    number = getattr(signal, name)
    if name == "SIGHUP":  # these tests may themselves run under nohup
        signal.signal(number, signal.SIG_DFL)
    before = [signal.getsignal(one) for one in STOP_SIGNALS]
    with StopFlag() as flag:
        assert (flag.stop, flag.reason) == (False, None)
        os.kill(os.getpid(), number)
        assert (flag.stop, flag.reason) == (True, name)
    assert [signal.getsignal(one) for one in STOP_SIGNALS] == before


def test_a_hangup_that_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopFlag() as flag:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not flag.stop
            os.kill(os.getpid(), signal.SIGUSR1)
            assert flag.reason == "SIGUSR1"
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_outside_of_the_main_thread_only_a_request_stops():
    before = [signal.getsignal(one) for one in STOP_SIGNALS]
    seen = []

    def run():
        with StopFlag() as flag:
            seen.append([signal.getsignal(one) for one in STOP_SIGNALS])
            flag.request("short disk space")
            seen.append(flag.reason)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before, "short disk space"]


def test_restores_after_an_error_and_keeps_the_first_reason():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(ValueError, match="inside"), StopFlag() as flag:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # a scheduler repeats itself: not an exit
        os.kill(os.getpid(), signal.SIGINT)
        raise ValueError("inside")
    assert flag.reason == "SIGTERM"
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_second_interrupt_exits_now():
    child = subprocess.Popen(
        [sys.executable, "-c", LOOP],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGINT)
    assert child.stdout.readline() == "noticed SIGINT\n"
    child.send_signal(signal.SIGINT)
    output, errors = child.communicate(timeout=10)
    assert child.returncode == 130
    assert output == ""  # no clean-up ran
    assert "Ctrl-C again exits now" in errors


class Terminated(LightningModule):
    """Receives SIGTERM in its second step."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.flag = StopFlag()
        self.steps = 0

    def on_train_start(self) -> None:
        self.flag.__enter__()

    def training_step(self, batch: list, index: int) -> torch.Tensor:
        self.steps += 1
        if self.steps == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.weight.sum()

    def on_train_batch_end(self, *args) -> None:
        self.trainer.should_stop = self.flag.stop

    def on_train_end(self) -> None:
        self.flag.__exit__(None, None, None)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore")
def test_lightning_does_not_stop_first(tmp_path):
    """Without the flag in place, Lightning answers SIGTERM with SystemExit and no checkpoint."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    module = Terminated()
    trainer = Trainer(
        default_root_dir=tmp_path,
        max_epochs=2,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
    )
    trainer.fit(module, DataLoader(TensorDataset(torch.zeros(6, 1))))
    assert (module.steps, module.flag.reason) == (2, "SIGTERM")
    assert not trainer.received_sigterm
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
