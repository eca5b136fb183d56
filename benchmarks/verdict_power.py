"""False alarms and misses of the regression rule, simulated: ``python -m benchmarks.verdict_power``.

One experiment: a baseline of five launches of three windows, then a launch of now, and a second one where the first is
beyond its limit. Every experiment draws its own hidden parameters: how much of the variance the kernel families share,
their sizes, how steps follow each other (an autoregressive process), how much of a window's noise is that of its
steps. The CV is that of one window's figure from launch to launch; 70 % of its variance is the launch's, the rest the
window's.

Beside the rule, on the same numbers: a fixed limit on one number against one number, as ATOM's nightly job has it
(`.github/scripts/summarize.py`: throughput 5 %, latency 10 %), Welch's t-test and the Mann-Whitney test on the steps of
one window against those of another, at p < 0.01 in the bad direction.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from pytest_atomtrace.verdicts.regression import Figures, Rule, confirmed, judge

LAUNCHES, WINDOWS, STEPS, FAMILIES = 5, 3, 110, 6
WITHIN = 0.3
Z_ONE_SIDED = 2.326  # p < 0.01

Array = NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """Figures relative to 1.0: [experiment, launch, window, family]; shares: [experiment, family]; and steps of two
    single windows, [experiment, step], whose level is that of the first window of the first launch.
    """

    baseline: Array
    now: Array
    shares: Array
    steps_before: Array
    steps_now: Array


def draw(rng: np.random.Generator, n: int, cv: float, *, windows: int, effect: Array) -> World:
    """Draw `n` experiments in which a figure's CV is `cv` and now's families are slower by `effect` (per family)."""
    shares = rng.dirichlet(np.full(FAMILIES, 4.0), n)
    # The first family is the MoE GEMM: 30 % of the step, the others share the rest.
    shares = np.concatenate([np.full((n, 1), 0.3), 0.7 * shares[:, 1:] / shares[:, 1:].sum(1, keepdims=True)], axis=1)
    common = rng.uniform(0.3, 0.9, n)
    # Families that move together add up to more variance than families that do not; the step's CV is what is given.
    scale = cv / np.sqrt(common + (1 - common) * (shares**2).sum(1))

    def level(part: float, *shape: int) -> Array:
        together = rng.standard_normal((n, *shape, 1))
        apart = rng.standard_normal((n, *shape, FAMILIES))
        rho = common.reshape(n, *[1] * (len(shape) + 1))
        found: Array = sqrt(part) * scale.reshape(rho.shape) * (np.sqrt(rho) * together + np.sqrt(1 - rho) * apart)
        return found

    baseline = 1 + level(1 - WITHIN, LAUNCHES)[:, :, None, :] + level(WITHIN, LAUNCHES, WINDOWS)
    now = (1 + level(1 - WITHIN, 2)[:, :, None, :] + level(WITHIN, 2, windows)) * (1 + effect)
    first = (baseline[:, 0, 0] * shares).sum(-1), (now[:, 0, 0] * shares).sum(-1)
    before, after = (_steps(rng, one, cv) for one in first)
    return World(baseline, now, shares, before, after)


def _steps(rng: np.random.Generator, level: Array, cv: float) -> Array:
    """Steps of one window around its level; neighbours resemble each other."""
    n = len(level)
    phi = rng.uniform(0.3, 0.8, n)
    # A quarter to three quarters of the window's own noise comes from its steps: their spread follows from that.
    error = cv * np.sqrt(WITHIN * rng.uniform(0.25, 0.75, n))
    spread = error * sqrt(STEPS) / np.sqrt((1 + phi) / (1 - phi))
    noise = rng.standard_normal((n, STEPS))
    walk = np.empty_like(noise)
    walk[:, 0] = noise[:, 0]
    for step in range(1, STEPS):
        walk[:, step] = phi * walk[:, step - 1] + np.sqrt(1 - phi**2) * noise[:, step]
    # The window's level already holds the mean of its steps' noise.
    walk -= walk.mean(1, keepdims=True)
    found: Array = level[:, None] * (1 + spread[:, None] * walk)
    return found


def rule_says(world: World, rule: Rule) -> Array:
    """For each experiment whether the rule calls a confirmed regression of the step, and of the step or a family."""
    step_before = (world.baseline * world.shares[:, None, None, :]).sum(-1)
    step_now = (world.now * world.shares[:, None, None, :]).sum(-1)
    found = np.zeros((len(step_now), 2), np.float64)
    for row in range(len(step_now)):
        attempts = []
        for launch in range(2):
            metrics = [Figures("step", _tuples(step_before[row]), _tuples(step_now[row, launch : launch + 1]))]
            now = world.now[row, launch : launch + 1]
            metrics += [
                Figures(f"f{k}", _tuples(world.baseline[row, :, :, k]), _tuples(now[:, :, k]), group="f")
                for k in range(FAMILIES)
                if world.shares[row, k] >= 0.05
            ]
            attempts.append(judge(metrics, rule))
            if launch == 0 and not confirmed(attempts[0], attempts[0]):
                break
        names = confirmed(attempts[0], attempts[1]) if len(attempts) == 2 else []
        found[row] = "step" in names, bool(names)
    return found


def _tuples(values: Array) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(one) for one in row) for row in values)


def others_say(world: World) -> dict[str, Array]:
    """The usual rules on one window against one window: whether each calls a regression."""
    a, b = world.steps_before, world.steps_now
    change = np.median(b, 1) / np.median(a, 1) - 1
    welch = (b.mean(1) - a.mean(1)) / np.sqrt(a.var(1, ddof=1) / STEPS + b.var(1, ddof=1) / STEPS)
    ranks = np.concatenate([a, b], 1).argsort(1).argsort(1) + 1.0
    u = ranks[:, STEPS:].sum(1) - STEPS * (STEPS + 1) / 2
    u_z = (u - STEPS * STEPS / 2) / sqrt(STEPS * STEPS * (2 * STEPS + 1) / 12)
    return {
        "fixed 5 %": change >= 0.05,
        "fixed 10 %": change >= 0.10,
        "Welch, steps": welch > Z_ONE_SIDED,
        "U test, steps": u_z > Z_ONE_SIDED,
    }


def table(experiments: int, seed: int, windows: int) -> list[str]:
    """Rows of a Markdown table: percentages of experiments in which each rule says "regression"."""
    whole = np.ones(FAMILIES)
    moe = np.eye(FAMILIES)[0]
    effects = [("none (false alarms)", 0 * whole)] + [(f"step +{p} %", p / 100 * whole) for p in (3, 5, 10)]
    effects += [("MoE GEMM +7 %, 30 % of the step", 0.07 * moe)]
    names = ["ours, step", "ours, all", "fixed 5 %", "fixed 10 %", "Welch, steps", "U test, steps"]
    rows = ["| CV | change | " + " | ".join(names) + " |", "|---|---|" + "---:|" * len(names)]
    rng = np.random.default_rng(seed)
    for cv in (0.01, 0.03, 0.05):
        for label, effect in effects:
            world = draw(rng, experiments, cv, windows=windows, effect=effect)
            found = rule_says(world, Rule()).mean(0) * 100
            cells = [f"{found[0]:.2f}", f"{found[1]:.2f}"]
            cells += [f"{says.mean() * 100:.2f}" for says in others_say(world).values()]
            rows.append(f"| {cv * 100:.0f} % | {label} | " + " | ".join(cells) + " |")
    return rows


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=6000, help="per row of the tables")
    parser.add_argument("--seed", type=int, default=20260601)
    arguments = parser.parse_args()
    for windows in (1, 3):
        print(f"\nNow: {windows} window{'s' * (windows > 1)} a launch ({arguments.experiments} experiments a row)\n")
        print("\n".join(table(arguments.experiments, arguments.seed, windows)))


if __name__ == "__main__":
    main()
