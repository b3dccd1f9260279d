"""Sums by hand; the readers against files written by hand and against the real machine."""

import os

import pytest

from fetchlab.errors import ConfigError
from fetchlab.preflight import budget

GB = 1_000_000_000


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch):
    """Pretend that this much is free: ``free(disk=..., memory=...)``."""

    def pretend(disk: int = 1000 * GB, memory: int = 1000 * GB) -> None:
        monkeypatch.setattr(budget, "free_disk_bytes", lambda path: disk)
        monkeypatch.setattr(budget, "available_memory_bytes", lambda: memory)

    return pretend


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (21_700_000_000, "21.7 GB"),
        (169_000_000_000_000, "169.0 TB"),
    ],
)
def test_format_bytes(n, text):
    assert budget.format_bytes(n) == text


def test_the_fitting_capacity_fits_and_one_more_does_not():
    # 100 rows of 3 bytes and 50 bytes besides are 350; 200 are free: (200 - 50) / 3 = 50 rows
    assert budget.fitting_capacity(350, 200, 100, 3.0) == 50
    assert budget.fitting_capacity(350, 199, 100, 3.0) == 49
    assert budget.fitting_capacity(350, 202, 100, 3.0) == 50
    assert budget.fitting_capacity(350, 203, 100, 3.0) == 51
    assert budget.fitting_capacity(350, 350, 100, 3.0) == 100
    assert budget.fitting_capacity(350, 40, 100, 3.0) == 0


def test_what_fits_exactly_passes(tmp_path, free):
    free(disk=22 * GB, memory=2 * GB)
    budget.check_budget(tmp_path, 22 * GB, 2 * GB, 1_000_000, 21_700.0)


def test_disk_error_names_needed_free_and_what_fits(tmp_path, free):
    free(disk=100 * GB)
    with pytest.raises(ConfigError) as caught:
        budget.check_budget(tmp_path / "not" / "yet", 220 * GB, 2 * GB, 10_000_000, 20_000.0)
    message = str(caught.value)
    assert "\n" not in message
    assert "replay.capacity=10000000" in message
    assert "220000000000 bytes (220.0 GB)" in message
    assert f"100000000000 bytes (100.0 GB) free on the disk at {tmp_path}," in message
    assert "replay.capacity=4000000 fits" in message  # 120 GB too many / 20 kB = 6 million less
    budget.check_budget(tmp_path, 100 * GB, 2 * GB, 4_000_000, 20_000.0)


def test_disk_error_offers_no_capacity_where_none_fits(tmp_path, free):
    free(disk=1 * GB)  # 200 GB of replay and 20 GB besides
    with pytest.raises(ConfigError, match="free the disk") as caught:
        budget.check_budget(tmp_path, 220 * GB, 2 * GB, 10_000_000, 20_000.0)
    assert "fits" not in str(caught.value)


def test_a_resumed_run_is_not_told_to_lower_a_capacity_that_it_has(tmp_path, free):
    free(disk=1 * GB)  # its replay of 20 GB is there already: checkpoints and logs are left
    with pytest.raises(ConfigError, match="free the disk") as caught:
        budget.check_budget(tmp_path, 2 * GB, 2 * GB, 1_000_000, 20_000.0)
    assert "fits" not in str(caught.value)


@pytest.mark.parametrize("disk_bytes", [22 * GB, 1 * GB])  # a new run, and a resumed one
def test_a_memory_error_asks_for_fewer_workers(tmp_path, free, disk_bytes):
    free(memory=1 * GB)
    with pytest.raises(ConfigError, match=r"free in memory.*lower collect\.n_envs") as caught:
        budget.check_budget(tmp_path, disk_bytes, 2 * GB, 1_000_000, 21_700.0)
    assert "fits" not in str(caught.value)  # a smaller replay would not help


def test_free_disk_of_a_folder_that_does_not_exist_yet(tmp_path, monkeypatch):
    asked = []

    def statvfs(path):
        asked.append(path)
        # 7 blocks for an ordinary user, 9 with root's reserve
        return os.statvfs_result((4096, 512, 100, 9, 7, 0, 0, 0, 0, 255))

    monkeypatch.setattr(os, "statvfs", statvfs)
    assert budget.free_disk_bytes(tmp_path / "a" / "b") == 7 * 512
    assert asked == [tmp_path]


def test_available_memory_of_this_machine_is_sane():
    available = budget.available_memory_bytes()
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < available <= total


@pytest.fixture
def kernel(tmp_path):
    """Write kernel files by hand, and read the available memory from them."""

    def read(files: dict[str, str]) -> int:
        files = {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable: 8000 kB\n", **files}
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return budget.available_memory_bytes(tmp_path / "proc", tmp_path / "cg")

    return read


def test_without_cgroups_the_machine_decides(kernel):
    assert kernel({}) == 8000 * 1024


def test_an_unlimited_cgroup_does_not_count(kernel):
    files = {"proc/self/cgroup": "0::/job\n", "cg/job/memory.max": "max\n"}
    assert kernel({**files, "cg/job/memory.current": "5\n"}) == 8000 * 1024


def test_cgroup_v2_counts_dropped_file_pages_as_free(kernel):
    files = {
        "proc/self/cgroup": "0::/slice/job\n",
        "cg/slice/job/memory.max": "1000000\n",
        "cg/slice/job/memory.current": "400000\n",
        "cg/slice/job/memory.stat": "anon 300000\ninactive_file 50000\n",
    }
    assert kernel(files) == 1_000_000 - 400_000 + 50_000


def test_the_limit_of_a_parent_cgroup_binds(kernel):
    files = {
        "proc/self/cgroup": "0::/slice/job\n",
        "cg/slice/job/memory.max": "1000000\n",
        "cg/slice/job/memory.current": "0\n",
        "cg/slice/memory.max": "300000\n",
        "cg/slice/memory.current": "100000\n",
    }
    assert kernel(files) == 200_000


def test_inside_a_container_the_mount_itself_has_the_limit(kernel):
    files = {
        "proc/self/cgroup": "0::/not/visible/here\n",
        "cg/memory.max": "700000\n",
        "cg/memory.current": "100000\n",
    }
    assert kernel(files) == 600_000


def test_cgroup_v1(kernel):
    files = {
        "proc/self/cgroup": "5:cpu,cpuacct:/job\n4:memory:/job\n",
        "cg/memory/job/memory.limit_in_bytes": "500000\n",
        "cg/memory/job/memory.usage_in_bytes": "200000\n",
        "cg/memory/job/memory.stat": "inactive_file 1\ntotal_inactive_file 7\n",
        "cg/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "cg/memory/memory.usage_in_bytes": "300000\n",
    }
    assert kernel(files) == 300_007


def test_a_cgroup_over_its_limit_leaves_nothing(kernel):
    files = {"proc/self/cgroup": "0::/\n", "cg/memory.max": "100\n", "cg/memory.current": "200\n"}
    assert kernel(files) == 0
