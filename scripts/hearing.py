"""How soon the critics hear the camera: variants of an agent on one replay of random play.

    python scripts/hearing.py [--experiment pixel_push_laptop_critic] [--env-steps 15000]
        [--updates 3000] [--every 500] "VARIANT" "VARIANT" ...

A variant is a line of overrides ("feature_norm=running pooling.temperature=0.1"; "" is the
experiment itself). All are trained on the same stored episodes of uniform actions, none collects.
What is told, on moments of episodes that no replay holds: in what share of pairs of moments i, j
the critics give the goal that lies at moment i's object more than the goal at moment j's, both seen
at moment i. Each position is as often the right one as the wrong one, so critics that are deaf to
the camera get 50 %, whatever they know of goals; critics that know the state get near 100 %.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "scripts" / "bench")]

import torch  # noqa: E402
from measure.frames import Moments, collect  # noqa: E402
from training import without_trainer  # noqa: E402

from fetchlab.algos.off_policy import OffPolicy  # noqa: E402
from fetchlab.build import Parts, build_module, build_parts  # noqa: E402
from fetchlab.config import compose, typed  # noqa: E402

TOLD = ("critic_loss", "q_mean", "feature_gradient_critic", "goal_error_m")
APART_M = 0.05  # objects nearer to each other than a success are no pair


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiment", default="pixel_push_laptop_critic")
    parser.add_argument("--env-steps", type=int, default=15_000, help="of uniform actions, stored")
    parser.add_argument("--updates", type=int, default=3000)
    parser.add_argument("--every", type=int, default=500, help="updates between two looks")
    parser.add_argument("--moments", type=int, default=256, help="held out, an episode each")
    parser.add_argument("variants", nargs="+", help="lines of overrides")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    common = (f"total_env_steps={asked.env_steps}", "trainer=cpu", "collect.n_envs=16")
    cfgs = [compose(asked.experiment, *common, *variant.split()) for variant in asked.variants]
    first = cfgs[0]
    if any(cfg["obs"]["pixels"] != first["obs"]["pixels"] for cfg in cfgs):
        parser.error("obs.pixels differs: variants learn from the same images; run them apart")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        first["collect"]["learning_starts"] = asked.env_steps
        moments = collect(first, asked.moments)
        parts = build_parts(typed(first), Path(folder))
        try:
            fill(parts, asked.env_steps)
            for variant, cfg in zip(asked.variants, cfgs, strict=True):
                train(parts, cfg, moments, asked.updates, asked.every, variant)
        finally:
            parts.env.close()


def fill(parts: Parts, env_steps: int) -> None:
    """Store episodes of uniform actions."""
    parts.data.setup("fit")
    while parts.data.env_steps < env_steps:
        parts.data.round()
    parts.data.settle()


def train(
    parts: Parts, cfg: dict[str, Any], moments: Moments, updates: int, every: int, title: str
) -> None:
    """Train one variant, and tell what it hears after every so many updates."""
    run = typed(cfg)
    module = without_trainer(build_module(run, moments.layout))
    module.observe(moments.visited)
    module.agent.normalizer.freeze()
    print(f"\n{title or cfg['experiment']}")
    spent = 0.0
    for done in range(0, updates + 1, every):
        metrics = module.pop_metrics() if done else {}
        line = f"  {done:6d} updates {spent:5.0f} s  hears {hearing(module, moments):6.1%}"
        line += "".join(
            f"  {n} {metrics[f'train/{n}']:.4g}" for n in TOLD if f"train/{n}" in metrics
        )
        print(line, flush=True)
        if done == updates:
            return
        began = time.perf_counter()
        for _ in range(every):
            module.learn(parts.data.replay.draw(run.algo.batch_size, env_steps=0))
        spent += time.perf_counter() - began


@torch.no_grad()
def hearing(module: OffPolicy, moments: Moments) -> float:
    """Share of pairs in which the goal at the object that is seen is worth more."""
    agent, spec = module.agent, moments.layout
    where = spec.achieved_goal(moments.rows)
    features = agent.encode(moments.pixels)
    wins: list[torch.Tensor] = []
    actions = torch.zeros(len(where), spec.action_dim)

    def worth(goal: torch.Tensor) -> torch.Tensor:
        vectors = agent.vectors(moments.rows, goal)
        return agent.critic(agent.critic_input(vectors, features), actions).mean(0)

    right = worth(where)
    for shift in range(1, 17):
        other = where.roll(shift, 0)
        apart = torch.linalg.vector_norm(where - other, dim=-1) > APART_M
        wins.append((right > worth(other))[apart])
    return float(torch.cat(wins).float().mean())


if __name__ == "__main__":
    main()
