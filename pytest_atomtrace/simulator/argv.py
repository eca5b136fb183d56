"""ATOM's server command line: its flags, both separators, abbreviations, exit code 2 for anything else."""

from __future__ import annotations

import argparse
import ast
from typing import NoReturn

__all__ = ["parse_argv"]

CAPTURE_SIZES = "[1,2,4,8,16,32,48,64,128,256,512]"

_VALUES: dict[str, object] = {
    "served-model-name": None, "attn-prefill-chunk-size": 16384, "long-prefill-token-threshold": 0,
    "scheduler-delay-factor": 0.0, "block-size": 16, "gpu-memory-utilization": 0.9,
    "all2all-backend": "high-throughput",
    "moe-backend": "standard", "cudagraph-capture-sizes": CAPTURE_SIZES, "max-num-seqs": 512,
    "max-num-batched-tokens": 16384, "index-cache-dtype": None, "draft-model": None, "num-speculative-tokens": 1,
    "torch-profiler-dir": None, "host": "0.0.0.0",  # noqa: S104 - ATOM's default; the server binds 127.0.0.1 whatever it says
    "server-port": 8000, "port": 8006, "timeout-keep-alive": 5,
    "online-quant-config": None, "hf-overrides": None, "kv-transfer-config": None, "dspark-config": None,
    "eplb-config": None, "chat-template": None, "default-chat-template-kwargs": None, "request-log": None,
    "dp-master-ip": "127.0.0.1", "dp-master-port": 29500, "tokenizer": None, "seed": 0,
}  # fmt: skip
_FLAGS = (
    "trust-remote-code", "enable-dp-attention", "enable-expert-parallel", "enforce-eager", "mark-trace",
    "fake-eplb", "eplb-enable", "enable-rapidserve", "disable-uvicorn-access-log",
)  # fmt: skip
_CHOICES: dict[str, tuple[str, tuple[str, ...]]] = {
    "dp-load-balance": ("least_requests", ("round_robin", "least_requests", "least_tokens")),
    "cudagraph-mode": ("FULL", ("NONE", "PIECEWISE", "FULL", "FULL_AND_PIECEWISE", "AF_PIECEWISE")),
    "kv-cache-dtype": ("bf16", ("bf16", "fp8")),
}


class _Parser(argparse.ArgumentParser):
    """argparse with ``--kebab-case`` and ``--snake_case`` taken for the same long flag, as ATOM does."""

    def error(self, message: str) -> NoReturn:
        self.print_usage()
        self.exit(2, f"{self.prog}: error: {message}\n")


def _kebab(token: str) -> str:
    if not token.startswith("--"):
        return token
    flag, equals, value = token.partition("=")
    return flag.replace("_", "-") + equals + value


def _sizes(text: str) -> list[int]:
    value = ast.literal_eval(text)
    if not isinstance(value, (list, tuple)) or not all(isinstance(size, int) and size > 0 for size in value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of positive integers")
    return sorted(value)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="api_server.py", description="ATOM OpenAI-compatible API server (simulated)")
    parser.add_argument("--model", default="Qwen/Qwen3-0.6B")
    for short, name in (("-tp", "tensor"), ("-dp", "data"), ("-pp", "pipeline")):
        parser.add_argument(short, f"--{name}-parallel-size", type=int, default=1)
    parser.add_argument("-pcp", "--prefill-context-parallel-size", type=int, default=1)
    parser.add_argument("-dcp", "--decode-context-parallel-size", type=int, default=1)
    parser.add_argument("--enable-tbo", nargs="?", const="prefill", choices=("prefill", "all"))
    parser.add_argument("--load-dummy", nargs="?", const="empty", choices=("empty", "zero", "xavier"))
    parser.add_argument("--level", type=int, default=3, choices=(0, 1, 2, 3))
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--method", choices=("mtp", "eagle3", "dspark"))
    parser.add_argument("--spec-decode-acceptance-length", type=float)
    parser.add_argument("--spec-decode-acceptance-rate", type=float)
    for name in ("prefix-caching", "chunked-prefill"):
        parser.add_argument(f"--enable-{name}", action=argparse.BooleanOptionalAction, default=True)
    for name in _FLAGS:
        parser.add_argument(f"--{name}", action="store_true")
    for name, (default, choices) in _CHOICES.items():
        parser.add_argument(f"--{name}", default=default, choices=choices)
    for name, value in _VALUES.items():
        kind = _sizes if name == "cudagraph-capture-sizes" else str if value is None else type(value)
        parser.add_argument(f"--{name}", default=value, type=kind)
    return parser


def parse_argv(argv: list[str]) -> argparse.Namespace:
    """The parsed arguments; argparse's own exit (2, usage and message on stderr) for anything unknown."""
    parser = _parser()
    args = parser.parse_args([_kebab(token) for token in argv])
    if args.method == "eagle3" and not args.draft_model:
        parser.error("--draft-model is required for --method eagle3")
    length, rate = args.spec_decode_acceptance_length, args.spec_decode_acceptance_rate
    if length is not None and not 1 <= length <= args.num_speculative_tokens + 1:
        parser.error(f"--spec-decode-acceptance-length {length} is not within 1 and the drafts + 1")
    if rate is not None and not 0 <= rate <= 1:
        parser.error(f"--spec-decode-acceptance-rate {rate} is not within 0 and 1")
    if args.method == "mtp" and args.draft_model:
        parser.error("--draft-model is rejected for --method mtp")
    if args.pipeline_parallel_size > 1 and (args.data_parallel_size > 1 or args.enable_dp_attention):
        parser.error("pipeline parallel with data parallel or dp attention is not supported")
    if args.host not in (_VALUES["host"], "127.0.0.1", "localhost"):
        parser.error(f"the simulator serves on loopback only: --host {args.host} is refused")
    return args
