"""A small client with the command line, the result file and the exit status of ATOM's benchmark_serving."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import statistics
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit


def parser() -> argparse.ArgumentParser:
    """The flags that ATOM's client has and the harness gives; anything else is refused, as there."""
    made = argparse.ArgumentParser()
    for name in ("backend", "base-url", "endpoint", "model", "tokenizer", "result-dir", "result-filename"):
        made.add_argument(f"--{name}", required=True)
    made.add_argument("--dataset-name", choices=["random"], default="sharegpt")
    for name in ("random-input-len", "random-output-len", "num-prompts", "max-concurrency", "seed", "num-warmups"):
        made.add_argument(f"--{name}", type=int, required=True)
    made.add_argument("--random-range-ratio", type=float, required=True)
    made.add_argument("--request-rate", type=float, default=float("inf"))
    made.add_argument("--burstiness", type=float, default=1.0)
    made.add_argument("--percentile-metrics", default="ttft,tpot,itl")
    for name in ("ignore-eos", "save-result", "disable-tqdm", "trust-remote-code", "use-chat-template", "profile"):
        made.add_argument(f"--{name}", action="store_true")
    return made


class Answer:
    """One request's times and tokens."""

    def __init__(self) -> None:
        self.ok = False
        self.tokens = 0
        self.prompt_tokens = 0
        self.times: list[float] = []
        self.sent = 0.0


def ask(args: argparse.Namespace, prompt: str, tokens: int, answer: Answer) -> None:
    """One streamed completion; what goes wrong is only counted."""
    place = urlsplit(args.base_url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port or 80, timeout=30)
    body = {
        "model": args.model, "prompt": prompt, "temperature": 0.0, "best_of": 1, "max_tokens": tokens,
        "logprobs": None, "stream": True, "stream_options": {"include_usage": True}, "ignore_eos": args.ignore_eos,
    }  # fmt: skip
    answer.sent = time.perf_counter()
    try:
        connection.request("POST", args.endpoint, json.dumps(body), {"Content-Type": "application/json"})
        reply = connection.getresponse()
        if reply.status != 200:
            return
        for line in reply:
            if line.startswith(b"data:") and b"[DONE]" not in line:
                event = json.loads(line[5:])
                if event["choices"]:
                    answer.times.append(time.perf_counter())
                usage = event.get("usage") or {}
                answer.tokens = usage.get("completion_tokens", answer.tokens)
                answer.prompt_tokens = usage.get("prompt_tokens", answer.prompt_tokens)
        answer.ok = True
    except (OSError, http.client.HTTPException, ValueError):
        return
    finally:
        connection.close()


def run(args: argparse.Namespace) -> list[Answer]:
    """All requests at once, so many in flight."""
    rng = random.Random(args.seed)
    slots = threading.Semaphore(args.max_concurrency)
    answers = [Answer() for _ in range(args.num_prompts)]
    threads = []
    for answer in answers:
        low = int(args.random_input_len * args.random_range_ratio)
        prompt = " ".join(str(rng.randrange(10000)) for _ in range(rng.randint(low, args.random_input_len)))
        low = int(args.random_output_len * args.random_range_ratio)
        tokens = rng.randint(low, args.random_output_len)

        def work(prompt: str = prompt, tokens: int = tokens, answer: Answer = answer) -> None:
            with slots:
                ask(args, prompt, tokens, answer)

        threads.append(threading.Thread(target=work))
        threads[-1].start()
    for thread in threads:
        thread.join()
    return answers


def spread(name: str, seconds: list[float]) -> dict[str, float]:
    """Mean, median, std and p99 in milliseconds."""
    ms = sorted(value * 1e3 for value in seconds) or [0.0]
    p99 = ms[min(len(ms) - 1, int(0.99 * len(ms)))]
    return {
        f"mean_{name}_ms": statistics.fmean(ms), f"median_{name}_ms": statistics.median(ms),
        f"std_{name}_ms": statistics.pstdev(ms), f"p99_{name}_ms": p99,
    }  # fmt: skip


def main() -> int:
    """Exit status 0 whatever became of the requests, as ATOM's client."""
    args = parser().parse_args()
    sys.stdout.write(f"{args}\n" + json.dumps(sys.argv[1:]) + "\n")
    sys.stdout.flush()
    hook = os.environ.get("STANDIN_CLIENT", "")
    if hook == "crash":
        raise RuntimeError("no tokenizer for this model")
    if hook == "hang":
        time.sleep(600)
    start = time.perf_counter()
    answers = run(args)
    duration = time.perf_counter() - start
    good = [answer for answer in answers if answer.ok]
    tokens = sum(answer.tokens for answer in good)
    failed = len(answers) - len(good)
    sys.stdout.write(f"Successful requests: {len(good)}\n" + (f"FAILED requests: {failed}\n" if failed else ""))
    if hook == "no-result":
        return 0
    result: dict[str, object] = {
        "date": time.strftime("%Y%m%d-%H%M%S"), "backend": args.backend, "model_id": args.model,
        "tokenizer_id": args.tokenizer, "num_prompts": args.num_prompts, "request_rate": "inf",
        "max_concurrency": args.max_concurrency, "duration": duration, "completed": len(good),
        "total_input_tokens": sum(answer.prompt_tokens for answer in good), "total_output_tokens": tokens,
        "request_throughput": len(good) / duration, "output_throughput": tokens / duration,
        **spread("ttft", [a.times[0] - a.sent for a in good if a.times]),
        **spread("tpot", [(a.times[-1] - a.times[0]) / (a.tokens - 1) for a in good if a.tokens > 1]),
        **spread("itl", [b - c for a in good for b, c in zip(a.times[1:], a.times, strict=False)]),
        **spread("e2el", [a.times[-1] - a.sent for a in good if a.times]),
    }  # fmt: skip
    Path(args.result_dir, args.result_filename).write_text(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
