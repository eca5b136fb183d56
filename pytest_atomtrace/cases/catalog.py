"""ATOM's model catalog: ``.github/benchmark/models.json`` becomes cases, as ATOM's own ``catalog.py`` expands it.

Rules (ATOM .github/scripts/catalog.py, described there): a model has variants (none listed: one, unnamed);
scenarios are the variant's, else the model's, else the catalog's defaults, cut to the variant's band of
concurrencies (0 to 256 unless it says so); server arguments are ``--kv_cache_dtype``, ``-tp``,
``--trust-remote-code``, the model's and the variant's extra ones, in this order; environment lines are the
model's and the variant's. A bare list of models (the older form) has no default scenarios.
"""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Final

import msgspec

from pytest_atomtrace.cases.matrix import MAX_CASES, expand, too_many
from pytest_atomtrace.cases.specs.problems import meant
from pytest_atomtrace.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pytest_atomtrace.cases.case import Case

__all__ = ["OVERRIDES", "Catalog", "Cell", "Scenario", "Variant", "find_catalog", "load_catalog"]

CATALOG_IN_ATOM: Final = ".github/benchmark/models.json"
MAX_BYTES: Final = 4 * 1024 * 1024
_BAND: Final = (0, 256)
_RATIO: Final = 0.8
# Arguments that are fields of a case; True: the next word is the value.
_FLAGS: Final[Mapping[str, tuple[str, bool]]] = {
    "-tp": ("tp", True),
    "--tensor-parallel-size": ("tp", True),
    "-dp": ("dp", True),
    "--data-parallel-size": ("dp", True),
    "-pp": ("pp", True),
    "--pipeline-parallel-size": ("pp", True),
    "--enable-dp-attention": ("dp_attention", False),
    "--load-dummy": ("load_dummy", False),
    "--mark-trace": ("mark_trace", False),
}
_CHAT: Final = "--use-chat-template"
# What a user may say beside the catalog; the rest is what the catalog is for.
OVERRIDES: Final = (
    "isl",
    "osl",
    "conc",
    "range_ratio",
    "prompts_per_slot",
    "chat_template",
    "profiler_more",
    "mark_trace",
    "load_dummy",
    "captures",
)
_OF_SCENARIO: Final = ("isl", "osl", "conc", "range_ratio")


class _ScenarioRow(msgspec.Struct):
    isl: int
    osl: int
    concurrency: list[int]
    random_range_ratio: float = _RATIO


class _ConfigRow(msgspec.Struct):
    tp: int | None = None
    kv_cache_dtype: str = "fp8"
    trust_remote_code: bool = False
    extra_args: str = ""


class _VariantRow(msgspec.Struct):
    label: str = ""
    suffix: str = ""
    extra_args: str = ""
    bench_args: str = ""
    env_vars: str = ""
    conc_min: int = _BAND[0]
    conc_max: int = _BAND[1]
    path: str | None = None
    scenarios: list[_ScenarioRow] = []


class _ModelRow(msgspec.Struct):
    display: str
    path: str
    prefix: str
    runner: str = ""
    env_vars: str = ""
    config: _ConfigRow = msgspec.field(default_factory=_ConfigRow)
    scenarios: list[_ScenarioRow] = []
    variants: list[_VariantRow] = []
    # The flat form, one entry a variant: arguments as one text.
    args: str | None = None
    bench_args: str = ""
    suffix: str = ""


class _File(msgspec.Struct):
    models: list[_ModelRow]
    default_scenarios: list[_ScenarioRow] = []


@dataclass(frozen=True)
class Scenario:
    """Lengths and concurrencies of one benchmark."""

    isl: int
    osl: int
    conc: tuple[int, ...]
    ratio: float


@dataclass(frozen=True)
class Variant:
    """One way to serve a model; `args`, `bench_args` and `env_vars` are texts as the catalog composes them."""

    model: str
    prefix: str
    label: str
    suffix: str
    path: str
    runner: str
    args: str
    bench_args: str
    env_vars: str
    band: tuple[int, int]
    scenarios: tuple[Scenario, ...]

    @property
    def display(self) -> str:
        """The model's name and the variant's label."""
        return f"{self.model} {self.label}" if self.label else self.model

    def cells(self) -> Iterator[Cell]:
        """One cell per scenario and concurrency inside the band."""
        for scenario in self.scenarios:
            for conc in scenario.conc:
                if self.band[0] <= conc <= self.band[1]:
                    yield Cell(self, scenario.isl, scenario.osl, conc, scenario.ratio)

    def fields(self) -> dict[str, object]:
        """Everything of a case but the load.

        Raises:
            ConfigError: the texts are no shell words, an argument or a line of the environment lacks its value.

        """
        fields = _server_fields(_words(self.args, f"{self.display}: server arguments"), self.display)
        fields["model"] = self.path
        fields["env"] = _environment(self.env_vars, self.display)
        bench = _words(self.bench_args, f"{self.display}: bench_args")
        if _CHAT in bench:
            fields["chat_template"] = True
        rest = [word for word in bench if word != _CHAT]
        if rest:
            fields["bench_args"] = rest
        return fields


@dataclass(frozen=True)
class Cell:
    """One benchmark run of the catalog."""

    variant: Variant
    isl: int
    osl: int
    conc: int
    ratio: float

    @property
    def result_filename(self) -> str:
        """As ATOM's CI names the result, without the ending."""
        ratio = int(self.ratio) if self.ratio == int(self.ratio) else self.ratio
        return f"{self.variant.prefix}{self.variant.suffix}-{self.isl}-{self.osl}-{self.conc}-{ratio}"


class Catalog:
    """The variants of one file."""

    def __init__(self, path: Path, variants: Sequence[Variant]) -> None:
        self.path = path
        self.variants = tuple(variants)

    def cells(self) -> Iterator[Cell]:
        """Every cell of every variant."""
        for variant in self.variants:
            yield from variant.cells()

    def expand(
        self, model: str, *, variants: Sequence[str] | None = None, fields: Mapping[str, object] | None = None
    ) -> tuple[Case, ...]:
        """Cases of one model (by display name, prefix or path), of all its variants or those named by label.

        `fields` stand in for those of the scenarios (lists multiply); each variant's band still applies, and a
        variant of which it leaves nothing vanishes, as in ATOM's own expansion.

        Raises:
            ConfigError: no such model or variant, a field that the catalog decides, nothing left of any variant.

        """
        asked = dict(fields or {})
        owned = [name for name in asked if name not in OVERRIDES]
        if owned:
            raise ConfigError(f"{owned[0]} comes from the catalog; one may set {', '.join(OVERRIDES)}")
        found: dict[Case, None] = {}
        vanished: list[str] = []
        for variant in self._chosen(model, variants):
            loads = list(_loads(variant, asked))
            rest = {name: value for name, value in asked.items() if name not in _OF_SCENARIO}
            inside = [load for load in loads if not _out_of_band(load["conc"], variant.band)]
            if not inside:
                vanished.append(_nothing_left(variant, loads))
            for load in inside:
                found.update(dict.fromkeys(expand({**variant.fields(), **rest, **load})))
                if len(found) > MAX_CASES:
                    raise ConfigError(f"{model} {too_many(len(found))} and more")
        if not found:
            raise ConfigError(f"no case is left of {'; nor of '.join(vanished)}")
        return tuple(found)

    def _chosen(self, model: str, labels: Sequence[str] | None) -> list[Variant]:
        mine = [one for one in self.variants if model in (one.model, one.prefix, one.path)]
        if not mine:
            known = dict.fromkeys(one.prefix for one in self.variants)
            raise ConfigError(f"the catalog has no model {model!r}{meant(model, known)}")
        if labels is None:
            return mine
        chosen = []
        for label in labels:
            of_label = [one for one in mine if label in (one.label, one.suffix)]
            if not of_label:
                known = dict.fromkeys(repr(one.label) for one in mine)
                raise ConfigError(f"{mine[0].model} has no variant {label!r} (it has {', '.join(known)})")
            chosen += [one for one in of_label if one not in chosen]
        return chosen


def _listed(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _loads(variant: Variant, asked: Mapping[str, object]) -> Iterator[dict[str, object]]:
    scenarios: Sequence[Scenario | None] = variant.scenarios
    if not scenarios:
        missing = [name for name in ("isl", "osl", "conc") if name not in asked]
        if missing:
            raise ConfigError(f"the catalog has no scenarios for {variant.display}; give {', '.join(missing)}")
        scenarios = [None]
    seen: list[dict[str, object]] = []
    for scenario in scenarios:
        own: dict[str, object] = {"range_ratio": _RATIO}
        if scenario is not None:
            own = {"isl": scenario.isl, "osl": scenario.osl, "conc": list(scenario.conc), "range_ratio": scenario.ratio}
        axes = [_listed(asked.get(name, own.get(name))) for name in _OF_SCENARIO]
        number = math.prod(len(axis) for axis in axes)
        if number > MAX_CASES:
            raise ConfigError(f"{variant.display} {too_many(number)}")
        for values in product(*axes):
            load = dict(zip(_OF_SCENARIO, values, strict=True))
            if load not in seen:
                seen.append(load)
                yield load


def _out_of_band(conc: object, band: tuple[int, int]) -> bool:
    # What is no number is Case's to refuse.
    return isinstance(conc, int) and not band[0] <= conc <= band[1]


def _nothing_left(variant: Variant, loads: Sequence[Mapping[str, object]]) -> str:
    asked = ", ".join(dict.fromkeys(str(load["conc"]) for load in loads)) or "none"
    low, high = variant.band
    return f"{variant.display}: its concurrencies are {low} to {high}, asked for: {asked}"


def _words(text: str, what: str) -> list[str]:
    try:
        # JSON values stand in single quotes; splitting at blanks would cut them in pieces.
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"{what} are no shell words ({error}): {text!r}") from None


def _server_fields(words: Sequence[str], display: str) -> dict[str, object]:
    fields: dict[str, object] = {}
    rest: list[str] = []
    pending = last = ""
    for word in words:
        if pending:
            fields[pending] = int(word) if word.isdecimal() else word
            pending = ""
            continue
        flag, equals, value = word.partition("=")
        name, takes_value = _FLAGS.get(flag.replace("_", "-"), ("", False))
        if not name:
            rest.append(word)
        elif not takes_value:
            fields[name] = True
        elif equals:
            fields[name] = int(value) if value.isdecimal() else value
        else:
            pending, last = name, word
    if pending:
        raise ConfigError(f"{display}: the server arguments end with {last}, which takes a value: {shlex.join(words)}")
    fields["server_args"] = rest
    return fields


def _environment(text: str, display: str) -> dict[str, str]:
    found = {}
    for line in text.splitlines():
        if line.strip():
            name, equals, value = line.strip().partition("=")
            if not equals or not name:
                raise ConfigError(f"{display}: the line {line.strip()!r} of env_vars is no NAME=VALUE")
            found[name] = value
    return found


def find_catalog(setting: str, atom_root: str, *, base: Path) -> Path | None:
    """The file that ``--atom-catalog`` means: a path (of the file or of an ATOM checkout), or ``auto``.

    None where ``auto`` finds none: no ``--atom-root``, or a checkout without one.
    """
    if setting == "auto":
        place = base / atom_root / CATALOG_IN_ATOM if atom_root else None
        return place if place is not None and place.is_file() else None
    place = base / setting
    return place / CATALOG_IN_ATOM if place.is_dir() else place


def load_catalog(path: Path) -> Catalog:
    """Read a catalog, structured or a bare list.

    Raises:
        ConfigError: it cannot be read or is no catalog; with the place in the document.

    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"the catalog cannot be read: {error.strerror}", str(path)) from None
    if len(data) > MAX_BYTES:
        raise ConfigError(f"the catalog has more than {MAX_BYTES:,} bytes", str(path))
    try:
        if data.lstrip()[:1] == b"[":
            file = _File(models=msgspec.json.decode(data, type=list[_ModelRow]))
        else:
            file = msgspec.json.decode(data, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"no catalog of models: {error}", str(path)) from None
    if not file.models:
        raise ConfigError("the catalog lists no models", str(path))
    return Catalog(path, [_variant(file, model, row) for model in file.models for row in _rows(model)])


def _rows(model: _ModelRow) -> list[_VariantRow]:
    return model.variants or [_VariantRow(suffix=model.suffix, bench_args=model.bench_args)]


def _variant(file: _File, model: _ModelRow, row: _VariantRow) -> Variant:
    config = model.config
    if model.args is not None:
        parts = [model.args]
    else:
        parts = [f"--kv_cache_dtype {config.kv_cache_dtype}"]
        parts += [f"-tp {config.tp}"] * (config.tp is not None)
        parts += ["--trust-remote-code"] * config.trust_remote_code
        parts += [config.extra_args]
    parts += [row.extra_args]
    scenarios = row.scenarios or model.scenarios or file.default_scenarios
    return Variant(
        model=model.display,
        prefix=model.prefix,
        label=row.label,
        suffix=row.suffix,
        path=row.path if row.path is not None else model.path,
        runner=model.runner,
        args=" ".join(part for part in parts if part),
        bench_args=row.bench_args,
        env_vars="\n".join(lines for lines in (model.env_vars, row.env_vars) if lines),
        band=(row.conc_min, row.conc_max),
        scenarios=tuple(
            Scenario(one.isl, one.osl, tuple(one.concurrency), one.random_range_ratio) for one in scenarios
        ),
    )
