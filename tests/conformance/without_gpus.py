"""Run a module of an ATOM checkout without torch, aiter and friends: ``without_gpus.py -m MODULE ARGS``.

Packages that cannot be found are answered with empty stand-ins, which is enough to build argument parsers and to
send requests. The tokenizer is one of words, so that no model's files are needed. ``-m parse`` reads command lines
(a JSON list of lists) from stdin and prints what ATOM's own server parser makes of each.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import runpy
import sys
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WANTED = (
    "torch", "transformers", "aiter", "triton", "zmq", "zmq.asyncio", "msgpack", "uvloop", "fastapi",
    "uvicorn", "pydantic", "huggingface_hub", "tqdm", "cachetools", "cloudpickle", "openai", "xgrammar",
    "setproctitle", "PIL", "prometheus_client", "xxhash", "openpyxl", "einops", "safetensors",
)  # fmt: skip


class _Asked(type):
    """Classes that have every attribute."""

    def __getattr__(cls, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything

    def __or__(cls, _: object) -> type:  # type: ignore[override]  # annotations of the checkout join classes
        return cls

    __ror__ = __or__  # type: ignore[assignment]


class _Anything(metaclass=_Asked):
    """Whatever is asked of it: a decorator, a base class, a type, a value."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __call__(self, *args: object, **_: object) -> object:
        return args[0] if len(args) == 1 and callable(args[0]) else self

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything()

    def __class_getitem__(cls, _: object) -> type:
        return cls

    def __getitem__(self, _: object) -> object:
        return self

    def __mro_entries__(self, _: tuple[type, ...]) -> tuple[type, ...]:
        return (_Anything,)

    def __or__(self, _: object) -> object:
        return self

    __ror__ = __or__

    def __iter__(self) -> Iterator[object]:  # without it, __getitem__ makes an endless sequence
        return iter(())

    def __hash__(self) -> int:
        return id(self)


class _Stub(types.ModuleType):
    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        value: object = type(name, (_Anything,), {}) if name[:1].isupper() else _Anything()
        setattr(self, name, value)
        return value


class _Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """The last finder: it is asked for what no other one has."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        if name.partition(".")[0] not in {wanted.partition(".")[0] for wanted in WANTED}:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Stub(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        module.__path__ = []
        if module.__name__ == "transformers":
            module.AutoTokenizer = Words  # type: ignore[attr-defined]
        if module.__name__ == "huggingface_hub":
            module.snapshot_download = lambda name, **_: f"/nonexistent/{name}"  # type: ignore[attr-defined]
        if module.__name__.startswith("tqdm"):
            module.tqdm = _Bar  # type: ignore[attr-defined]


class _Bar:
    """A progress bar that shows nothing."""

    def __init__(self, iterable: object = None, **_: object) -> None:
        self._iterable = iterable

    def __iter__(self) -> object:
        return iter(self._iterable or ())  # type: ignore[call-overload]

    def update(self, *_: object) -> None:
        pass

    def close(self) -> None:
        pass


class _Encoded(dict[str, object]):
    """Token ids, by attribute and by key."""

    def __getattr__(self, name: str) -> object:
        return self[name]


class Words:
    """A tokenizer whose tokens are blank-separated numbers."""

    vocab_size = 5000
    eos_token_id = 0
    bos_token_id = 1
    all_special_ids = (0, 1)
    all_special_tokens = ()
    name_or_path = "words"
    chat_template = "{{ messages }}"

    @classmethod
    def from_pretrained(cls, *_: object, **__: object) -> Words:
        return cls()

    def num_special_tokens_to_add(self, *_: object, **__: object) -> int:
        return 0

    def encode(self, text: str, **_: object) -> list[int]:
        return [int(word) if word.isdecimal() else 7 for word in text.split()]

    def decode(self, ids: Sequence[int], **_: object) -> str:
        return " ".join(str(int(one)) for one in ids)

    def batch_decode(self, lists: Sequence[Sequence[int]], **_: object) -> list[str]:
        return [self.decode(ids) for ids in lists]

    def __call__(self, text: str | list[str], **_: object) -> _Encoded:
        ids = [self.encode(one) for one in text] if isinstance(text, list) else self.encode(text)
        return _Encoded(input_ids=ids)

    def apply_chat_template(self, messages: Sequence[dict[str, str]], **_: object) -> str:
        return " ".join(["3", *(message["content"] for message in messages), "4"])

    def __len__(self) -> int:
        return self.vocab_size


def parse() -> None:
    """Print, for each command line, the namespace or why it was refused."""
    from atom.entrypoints.openai import api_server  # type: ignore[import-not-found]  # of the checkout

    answers: list[dict[str, object]] = []
    built: list[argparse.ArgumentParser] = []
    original = argparse.ArgumentParser.parse_args

    class ParsedError(Exception):
        pass

    def spy(self: argparse.ArgumentParser, args: object = None, namespace: object = None) -> object:
        del args, namespace
        built.append(self)
        raise ParsedError

    argparse.ArgumentParser.parse_args = spy  # type: ignore[assignment,method-assign]
    with contextlib.suppress(ParsedError):
        api_server.main()
    argparse.ArgumentParser.parse_args = original  # type: ignore[method-assign]
    for line in json.loads(sys.stdin.read()):
        try:
            answers.append({key: str(value) for key, value in vars(built[0].parse_args(line)).items()})
        except SystemExit as error:
            answers.append({"refused": str(error.code)})
    sys.stdout.write("\n" + json.dumps(answers) + "\n")


def main() -> None:
    """``-m MODULE ARGS``, as python itself."""
    sys.meta_path.append(_Absent())
    flag, module, *rest = sys.argv[1:]
    if flag != "-m":
        raise SystemExit(f"{flag}: only -m MODULE is known")
    sys.argv[1:] = rest
    if module == "parse":
        parse()
    else:
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
