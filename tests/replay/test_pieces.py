"""A round's batches, drawn piece by piece."""

from __future__ import annotations

import pytest
import torch
from replay_oracle import filled

from fetchlab.collect.datamodule import Round

STACK, BATCH = 3, 5


@pytest.mark.parametrize(
    ("updates", "pieces"), [(0, []), (1, [1]), (8, [8]), (9, [8, 1]), (19, [8, 8, 3])]
)
def test_a_rounds_frames_lie_in_a_block_of_one_piece(tmp_path, updates, pieces):
    replay, twin = (filled(tmp_path / name, stack=STACK)[0] for name in ("one", "two"))
    drawn = []
    for piece in Round(replay, updates, BATCH, env_steps=0).split(8):
        whole = twin.draw(len(piece) * BATCH, env_steps=0)
        # The piece is read before the next one is drawn into the same memory.
        for name in ("pixels", "action", ("next", "state")):
            assert torch.equal(torch.cat([batch[name] for batch in piece]), whole[name])
        assert all(batch.batch_size == (BATCH,) for batch in piece)
        drawn.append(len(piece))
    assert drawn == pieces
    assert len(replay.storage.reader._block) == max(pieces, default=0) * BATCH * (STACK + 1)


def test_batches_come_where_lightning_asks_for_them(tmp_path):
    replay, _ = filled(tmp_path, stack=STACK)
    here = Round(replay, 2, BATCH, env_steps=0).to(torch.device("cpu"))
    there = Round(replay, 2, BATCH, env_steps=0).to(torch.device("meta"))
    for one, device in ((here, "cpu"), (there, "meta")):
        kinds = [batch["pixels"].device.type for piece in one.split(8) for batch in piece]
        assert kinds == [device, device]
