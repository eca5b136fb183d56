"""A small catalog with every feature that ATOM's models.json has; its totals are counted by hand beside it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CELLS", "MODELS", "STRUCTURED", "VARIANTS", "write_catalog"]

JSON_ARGUMENT = '{"ragged": true, "sizes": "8", "note": "two words"}'

STRUCTURED: dict[str, Any] = {
    "default_scenarios": [
        {"isl": 1024, "osl": 1024, "concurrency": [2, 4, 64, 256, 512], "random_range_ratio": 0.8},
        {"isl": 8192, "osl": 1024, "concurrency": [4, 1024]},
    ],
    "models": [
        {
            "display": "Big-Model",
            "path": "maker/Big-Model",
            "prefix": "big-model",
            "runner": "eight-gpus",
            "env_vars": "SHARED_A=0\nSHARED_B=x=y",
            "config": {
                "tp": 8,
                "kv_cache_dtype": "fp8",
                "trust_remote_code": True,
                "extra_args": "--index_cache_dtype fp4 --no-enable_prefix_caching",
            },
            "variants": [
                # default band 0..256: 2 4 64 256 | 4
                {"label": "", "suffix": ""},
                # 4..256: 4 64 256 | 4
                {
                    "label": "MTP3",
                    "suffix": "-mtp3",
                    "extra_args": "--method mtp --num-speculative-tokens 3",
                    "bench_args": "--use-chat-template --seed 7",
                    "conc_min": 4,
                    "conc_max": 256,
                },
                # 512..2048: 512 | 1024
                {
                    "label": "DPA Spark",
                    "suffix": "-dpa-spark",
                    "path": "maker/Big-Model-Spark",
                    "extra_args": f"--enable-dp-attention --spark-config '{JSON_ARGUMENT}'",
                    "env_vars": "NUMA=1",
                    "conc_min": 512,
                    "conc_max": 2048,
                },
                # 2000..: both scenarios are left empty and vanish
                {"label": "Huge", "suffix": "-huge", "conc_min": 2000, "conc_max": 4000},
            ],
        },
        {
            # no tp, no variants (so one), scenarios of its own: 16 | nothing of 1024
            "display": "Small",
            "path": "maker/Small",
            "prefix": "small",
            "runner": "one-gpu",
            "env_vars": "",
            "config": {"kv_cache_dtype": "auto"},
            "scenarios": [
                {"isl": 100, "osl": 10, "concurrency": [16], "random_range_ratio": 1},
                {"isl": 200, "osl": 10, "concurrency": [1024], "random_range_ratio": 0.5},
            ],
        },
        {
            # the variant's scenarios win over the model's: 1 8
            "display": "Middle",
            "path": "maker/Middle",
            "prefix": "middle",
            "runner": "one-gpu",
            "config": {"tp": 1},
            "scenarios": [{"isl": 1, "osl": 2, "concurrency": [3]}],
            "variants": [
                {
                    "label": "",
                    "suffix": "",
                    "scenarios": [{"isl": 512, "osl": 64, "concurrency": [1, 8]}],
                    "bench_args": "",
                }
            ],
        },
    ],
}
MODELS, VARIANTS = 3, 6
CELLS = (4 + 1) + (3 + 1) + (1 + 1) + 0 + 1 + 2


def write_catalog(folder: Path, document: object = STRUCTURED) -> Path:
    path = folder / "models.json"
    path.write_text(json.dumps(document))
    return path
