"""The fault table: what is broken, what must happen, and the code that looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torture import commands, damage, field, health, kills, malice, resources
from torture.bench import Bench, Result

Check = Callable[[Bench, int], Result]


@dataclass(frozen=True)
class Row:
    """One fault.

    Args:
        number: in the table.
        fault: what is done to the run.
        expected: what must happen.
        check: does it and looks, ``(bench, part)``.
        state: how often to a run that learns from the state, in the short and the full version,
            each time with random numbers of its own.
        pixel: how often to one that learns from pixels.
    """

    number: int
    fault: str
    expected: str
    check: Check
    state: tuple[int, int] = (1, 1)
    pixel: tuple[int, int] = (0, 0)


ROWS = (
    Row(1, "stop, move the folder, resume", "same H", kills.stop_and_resume, (0, 1), (0, 1)),
    Row(2, "kill -9 at random times", "same H, each time", kills.kill_at_random, (2, 50), (1, 50)),
    Row(3, "kill at each step of a commit", "a valid checkpoint", kills.kill_at_each_commit_step),
    Row(4, "kill while resuming, twice", "same H", kills.kill_while_resuming, (0, 5), (0, 2)),
    Row(5, "kill in mid-row of the replay", "0 torn rows, same H", kills.torn_row, (1, 5), (0, 2)),
    Row(6, "kill after three wraps", "same H", kills.kill_after_wraps, (0, 1), (0, 1)),
    Row(7, "truncated checkpoint", "0 accepted, falls back", damage.truncated_checkpoint),
    Row(8, "flipped byte", "all found", damage.flipped_byte),
    Row(9, "replay file shortened", "error, no SIGBUS", damage.shortened_replay),
    Row(10, "disk full at start", "refused, bytes named", resources.disk_full_at_start),
    Row(
        11, "disk full at a checkpoint", "stop, same H", resources.disk_full_at_a_checkpoint, (1, 2)
    ),
    Row(12, "TMPDIR elsewhere, kill", "loads, same H", kills.other_tmpdir, (0, 1)),
    Row(13, "unwritable run folder", "error names the path", resources.unwritable_folder, (0, 1)),
    Row(14, "NaN action", "stops, row not stored", health.nan_action),
    Row(15, "NaN reward", "stops before the step", health.nan_loss),
    Row(16, "silent simulator reset", "stops, names env, step, seed", health.silent_reset, (0, 1)),
    Row(17, "worker killed", "error within 30 s, no orphans", health.dead_worker),
    Row(18, "worker hangs", "timeout error", health.hanging_worker, (0, 1)),
    Row(19, "started twice", "second refuses", commands.started_twice),
    Row(20, "stale lock", "free at once", kills.stale_lock, (0, 1)),
    Row(21, "kill between checkpoints", "no duplicate rows", kills.duplicate_rows, (0, 1)),
    Row(22, "SIGTERM, Ctrl-C, twice", "checkpoint, exit code, same H", commands.signals, (1, 3)),
    Row(23, "nothing to resume", "error, no restart", commands.nothing_to_resume),
    Row(
        24, "other threads, version, renderer", "refused, forced", commands.other_conditions, (0, 1)
    ),
    Row(25, "changed config", "refused", commands.changed_config),
    Row(26, "malicious checkpoint", "nothing executed", malice.malicious_checkpoint),
    Row(27, "malicious config", "nothing executed", malice.malicious_config),
    Row(28, "manifest leads outside", "refused, unchanged", malice.manifest_leads_outside, (0, 1)),
    Row(29, "10M rows asked", "refused with the sum", resources.too_large),
    Row(30, "bad input", "one clear line", commands.bad_input),
    Row(31, "a sweep's run, resumed alone", "same H", field.run_of_a_sweep, (0, 1), (0, 1)),
    Row(32, "a checkpoint's path, stray files", "nothing written, same H", field.stray_files),
    Row(33, "scheduler's variables, signals", "checkpoint, same H", field.scheduler, (0, 3)),
    Row(34, "suspended machine", "goes on, same H", field.suspended, (0, 1), (0, 1)),
    Row(35, "evaluation worker killed", "nothing lost, same H", field.evaluation_worker, (0, 2)),
    Row(36, "killed during start-up", "starts again, same H", field.killed_at_start, (0, 2)),
    Row(37, "small averaged images, kill", "same H", kills.kill_of_small_images, (0, 0), (1, 2)),
    Row(38, "student killed, teacher removed", "same H", kills.student_without_teacher, (1, 3)),
)
