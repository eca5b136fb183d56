"""What AITER writes to a server's log about shapes that nobody tuned and modules that it compiles."""

from __future__ import annotations

import asyncio
import os

__all__ = ["build_lines", "log_untuned"]

_UNTUNED = ((64, 7168, 2048, "a8w8_blockscale_bpreshuffle_tuned_gemm"), (64, 512, 7168, "bf16_tuned_gemm"))
_MOE = (
    "(256, 64, 7168, 256, 384, 6, 'ActivationType.Silu', 'torch.bfloat16', 'torch.float8_e4m3fn', "
    "'torch.float4_e2m1fn_x2', 'QuantType.per_1x32', True, False)"
)
_MODULE = "module_moe_ck2stages_f8_f4_preshuffle_on_b16"


def _write(message: str) -> None:
    os.write(2, f"[aiter] {message}\n".encode())


def log_untuned(workers: int) -> None:
    """Two GEMM shapes and a fused MoE without a tuned config, each said once by every worker."""
    for _ in range(workers):
        for m, n, k, table in _UNTUNED:
            path = f"/tmp/aiter_configs/{table}.csv"  # noqa: S108  # the path in AITER's own line; nothing is there
            _write(f"shape is M:{m}, N:{n}, K:{k}, not found tuned config in {path}, will use default config!")
        _write(f"[fused_moe] using 2stage default for {_MOE}")


async def build_lines(seconds: float) -> None:
    """A module is compiled: the second worker waits for the first one's lock."""
    where = f"/opt/aiter/aiter/jit/build/{_MODULE}"
    _write(f"[pid={os.getpid()} pname=ModelRunner0] start build [{_MODULE}] under {where}")
    _write(f"[pid={os.getpid()} pname=ModelRunner1] waiting for baton release at {where}/lock_{_MODULE}")
    await asyncio.sleep(seconds)
    _write(f"[pid={os.getpid()} pname=ModelRunner0] \033[32mfinish build [{_MODULE}], cost {seconds:.1f}s \033[0m")
