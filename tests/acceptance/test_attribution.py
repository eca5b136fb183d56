"""Twenty changes of simulated kernels: is the difference explained by what was changed, and where?"""

from __future__ import annotations

import contextlib
import os
import random
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace import Case, Trace
from pytest_atomtrace.capture.session import CaptureSession, RunInfo
from pytest_atomtrace.settings import Settings
from pytest_atomtrace.trace.load import load
from pytest_atomtrace.verdicts.attribution import attribute
from pytest_atomtrace.verdicts.step_profile import profile_steps

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_atomtrace.verdicts.attribution import Attribution, Change

LAYERS = 6
SLOWED = ("mfma_moe1_", "mfma_moe2_", "topk_gating_kernel_opt", "_swa_write_kernel")
ROUTER, SORT = "topk_gating_kernel_opt", "opus_moe_sorting_entry"
MOE1 = "mfma_moe1_silu_mul_afp8_wfp4_fp8_t32x128x256_pm1_fp8q_sort_async_gui_v33"


@dataclass(frozen=True)
class Lab:
    """Captures of one seed, each from a launch of its own."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    seed: int

    def trace(self, tp: int, *, launch: int, mutate: str = "") -> Trace:
        for name, value in {"SEED": self.seed, "LAUNCH": launch, "LAYERS": LAYERS, "MUTATE": mutate}.items():
            self.monkeypatch.setenv(f"ATOMTRACE_SIM_{name}", str(value))
        case = Case(model="deepseek-ai/DeepSeek-V4-Pro", tp=tp, isl=16, osl=34, conc=2)
        name = f"{self.seed}-{tp}-{launch}"
        run = RunInfo(name, self.folder / name, "main", (os.getpid(),), ci=False)
        settings = Settings(backend="sim", lock_dir=str(self.folder / "locks"))
        session = CaptureSession(settings, run, progress=lambda _: None)
        with contextlib.closing(session):
            capture = session.obtain(case, needed=[case], test_id=name)
        return Trace(load(capture.ranks, expected=capture.expected_ranks), case=case, directory=capture.directory)


@dataclass(frozen=True)
class Answer:
    """What was injected, and what the first line of the explanation says of it."""

    name: str
    injected_ns: float
    change: Change | None
    right: bool

    @property
    def text(self) -> str:
        delta = self.change.delta_ns if self.change is not None else 0.0
        word = "right" if self.right else "WRONG"
        figures = f"injected {self.injected_ns / 1000:+.1f} us, attributed {delta / 1000:+.1f} us"
        return f"{self.name}: {figures}, {word} {self.share * 100:.1f} %"

    @property
    def share(self) -> float:
        """Share of the injected difference that was attributed right; more than was injected is as wrong as less."""
        if not self.right or self.change is None:
            return 0.0
        ratio = self.change.delta_ns / self.injected_ns
        return min(ratio, 1 / ratio) if ratio > 0 else 0.0


def explain(before: Trace, after: Trace) -> Attribution:
    reference = profile_steps(before, "decode")
    return attribute(reference.usage(), reference.worst_busy_ns, profile_steps(after, "decode"))


def four_experiments(lab: Lab) -> list[Answer]:
    """A kernel slowed on all ranks, the same on one of eight, one replaced, two fused."""
    rng = random.Random(lab.seed)
    factor = round(rng.uniform(1.25, 1.8), 2)
    rank = rng.randrange(8)
    eight, two = lab.trace(8, launch=0), lab.trace(2, launch=0)
    usage = {tp: profile_steps(trace, "decode").usage() for tp, trace in ((8, eight), (2, two))}

    def time_of(tp: int, part: str) -> float:
        return sum(use.ns for name, use in usage[tp].items() if part in name)

    slowed = rng.choice(SLOWED)
    found = explain(two, lab.trace(2, launch=1, mutate=f"slow:*{slowed}*={factor}@phase=decode"))
    first = found.changes[0]
    right = first.sort == "grew" and slowed in first.after[0]
    answers = [Answer(f"{slowed} x {factor} everywhere", time_of(2, slowed) * (factor - 1), first, right)]

    found = explain(eight, lab.trace(8, launch=2, mutate=f"slow:*{slowed}*={factor}@phase=decode@rank={rank}"))
    first = found.changes[0]
    right = first.sort == "grew" and slowed in first.after[0] and first.ranks == (f"rank_{rank}",)
    answers.append(Answer(f"{slowed} x {factor} on rank {rank} of 8", time_of(8, slowed) * (factor - 1), first, right))

    mutation = f"rename:{ROUTER}=triton_router_v2;slow:{ROUTER}={factor}@phase=decode"
    first = explain(two, lab.trace(2, launch=3, mutate=mutation)).changes[0]
    right = first.sort == "replaced" and first.after == ("triton_router_v2",) and ROUTER in first.before[0]
    answers.append(Answer(f"router replaced, x {factor}", time_of(2, ROUTER) * (factor - 1), first, right))

    # What takes the place of two is slower than both: a fusion that went wrong.
    mutation = f"rename:{SORT}=fused_sort_moe1;drop:{MOE1}@phase=decode;slow:{SORT}={5 * factor}@phase=decode"
    injected = time_of(2, SORT) * (5 * factor - 1) - time_of(2, MOE1)
    first = explain(two, lab.trace(2, launch=4, mutate=mutation)).changes[0]
    right = first.sort == "fused" and first.after == ("fused_sort_moe1",) and any(MOE1 in name for name in first.before)
    answers.append(Answer("sort and first MoE GEMM fused", injected, first, right))
    return answers


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 6))])
def test_what_was_changed_explains_the_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    answers = four_experiments(Lab(tmp_path, monkeypatch, seed))
    for answer in answers:
        sys.stdout.write(f"seed {seed}: {answer.text}\n")
    assert all(answer.right for answer in answers)
    assert sum(answer.share for answer in answers) / len(answers) >= 0.95
