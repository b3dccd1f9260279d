"""Videos: written, read back, and refused in clear words."""

import numpy as np
import pytest

from fetchlab.collect.video import (
    BORDER,
    FAILED,
    RUNNING,
    SUCCEEDED,
    VideoUnavailableError,
    load_encoder,
    side_by_side,
    write_video,
)
from fetchlab.errors import ConfigError


@pytest.fixture
def frames():
    """Six frames of 64 x 60 pixels: top half red, bottom half blue, then the other way round."""
    images = np.zeros((6, 64, 60, 3), np.uint8)
    images[:3, :32, :, 0], images[:3, 32:, :, 2] = 255, 255
    images[3:, :32, :, 2], images[3:, 32:, :, 0] = 255, 255
    return images


def read(path):
    reader = load_encoder().read_frames(path)
    meta = next(reader)
    width, height = meta["size"]
    return meta, [np.frombuffer(raw, np.uint8).reshape(height, width, 3) for raw in reader]


def test_written_frames_come_back_in_order_and_upright(tmp_path, frames):
    path = tmp_path / "videos" / "episode.mp4"
    write_video(frames, path, fps=25)
    meta, images = read(path)
    assert meta["size"] == (60, 64)
    assert meta["fps"] == 25
    assert len(images) == 6
    for image, (top, bottom) in zip(images, [(0, 2)] * 3 + [(2, 0)] * 3, strict=True):
        assert image[10, 30].argmax() == top  # channel 0 is red, 2 is blue
        assert image[50, 30].argmax() == bottom
        assert image[10, 30, top] > 150
    assert [entry.name for entry in path.parent.iterdir()] == ["episode.mp4"]


def test_an_existing_file_is_replaced(tmp_path, frames):
    path = tmp_path / "episode.mp4"
    path.write_bytes(b"old")
    write_video(frames[:1], path, fps=25)
    assert len(read(path)[1]) == 1


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"frames": np.zeros((2, 3, 8, 8), np.uint8)}, "frames"),
        ({"frames": np.zeros((0, 8, 8, 3), np.uint8)}, "frames"),
        ({"frames": np.zeros((2, 9, 8, 3), np.uint8)}, "even"),
        ({"frames": np.zeros((2, 8, 8, 3), np.float32)}, "uint8"),
    ],
)
def test_what_is_no_video_is_refused(tmp_path, frames, change, key):
    arguments = {"frames": frames, "path": "episode.mp4", "fps": 25, **change}
    arguments["path"] = tmp_path / arguments["path"]
    with pytest.raises(ConfigError, match=key):
        write_video(**arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_says_what_to_install(tmp_path, frames, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
    with pytest.raises(VideoUnavailableError, match=r"pip install.*video=false"):
        write_video(frames, tmp_path / "episode.mp4", fps=25)


def test_a_failing_ffmpeg_leaves_no_file(tmp_path, frames, monkeypatch):
    monkeypatch.setattr(load_encoder(), "get_ffmpeg_exe", lambda: "/bin/false")
    monkeypatch.setattr("imageio_ffmpeg._io.get_ffmpeg_exe", lambda: "/bin/false")
    monkeypatch.setattr("imageio_ffmpeg._io.get_first_available_h264_encoder", lambda: "libx264")
    with pytest.raises(VideoUnavailableError, match=r"episode\.mp4"):
        write_video(frames, tmp_path / "episode.mp4", fps=25)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("succeeds", "colours"),
    [
        ((False, True, False, True), (RUNNING, SUCCEEDED, RUNNING, SUCCEEDED)),
        ((False, True, True, False), (RUNNING, SUCCEEDED, SUCCEEDED, FAILED)),
    ],
)
def test_the_frame_tells_how_the_episode_stands(succeeds, colours):
    rng = np.random.default_rng(0)
    large, small = (rng.integers(0, 256, (4, 3, size, size), np.uint8) for size in (12, 3))
    pictures = side_by_side([large, small], np.array(succeeds), side=12)
    assert pictures.shape == (4, 12 + 2 * BORDER, 2 * 12 + 3 * BORDER, 3)
    for picture, colour in zip(pictures, colours, strict=True):
        assert (picture[0] == colour).all() and (picture[:, 12 + BORDER] == colour).all()
    inside = slice(BORDER, -BORDER)
    assert (pictures[:, inside, BORDER : BORDER + 12] == large.transpose(0, 2, 3, 1)).all()
    squares = small.transpose(0, 2, 3, 1).repeat(4, axis=1).repeat(4, axis=2)
    assert (pictures[:, inside, -BORDER - 12 : -BORDER] == squares).all()


def test_each_camera_of_a_view_has_a_picture_of_its_own():
    frames = np.random.default_rng(0).integers(0, 256, (4, 9, 12, 12), np.uint8)
    succeeds = np.zeros(4, bool)
    together = side_by_side([frames], succeeds, side=12)
    alone = [frames[:, :3], frames[:, 3:6], frames[:, 6:]]
    np.testing.assert_array_equal(together, side_by_side(alone, succeeds, side=12))
