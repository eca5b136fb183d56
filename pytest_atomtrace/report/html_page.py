"""What every page of ours is made with: assets of the package, templates that escape, and a policy that loads nothing.

jinja2 is imported when the first page is rendered.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from functools import cache
from importlib import metadata, resources
from typing import TYPE_CHECKING

from pytest_atomtrace.report.escape import clipped_text, printable
from pytest_atomtrace.report.html_data import MOST_NAME, script_safe
from pytest_atomtrace.trace.names import short_name
from pytest_atomtrace.units import format_duration, format_seconds
from pytest_atomtrace.verdicts.evidence import shown_engine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jinja2 import Environment

    from pytest_atomtrace.report.detail import BenchLine

__all__ = [
    "COLOURS",
    "MOST_TEXT",
    "UPLOT_VERSION",
    "WORDS",
    "missing_extra",
    "render_page",
]

UPLOT_VERSION = "1.6.32"
WORDS = {"infra": "infra error", "wrong_check": "wrong check", "fail": "failed", "pass": "passed", "skip": "skipped"}
# Of one failure's text.
MOST_TEXT = 20_000
_STYLES = ("uplot.min.css", "report.css")
_SCRIPTS = ("uplot.min.js", "core.js")

# Colours of kernel families: related ones are neighbours, and each is visible on white and on near-black.
COLOURS = {
    "gemm": "#4c84d0", "moe_gemm": "#2a56a8", "moe_routing": "#5fb2e6",
    "attention": "#e0772b", "kv_cache": "#eda83c", "indexer": "#a8642a",
    "rccl": "#c93a3a", "allreduce": "#e8716b",
    "norm": "#2f9e66", "rope": "#74bf7a", "quant": "#8a62c9", "activation": "#b492e0",
    "sampling": "#cf4fa6", "embedding": "#ea93c8", "triton_fused": "#17a3a3",
    "elementwise": "#7f8896", "copy": "#a9b0bb", "unclassified": "#5d6573",
}  # fmt: skip


def missing_extra() -> str:
    """What to install before a report can be rendered, "" if nothing is missing."""
    from importlib.util import find_spec

    if find_spec("jinja2") is not None:
        return ""
    return "no HTML report: it needs jinja2, which pip install 'pytest-atomtrace[report]' brings"


def render_page(
    template: str, *, data: object, scripts: Sequence[str], styles: Sequence[str] = (), **values: object
) -> str:
    """One page that loads nothing: `template` with `values`, and `data` for the shared scripts and `scripts`.

    Needs jinja2 (`missing_extra`).
    """
    from markupsafe import Markup

    css = "\n".join([_style(), *(_asset(name) for name in styles)])
    script = "\n".join(_asset(name) for name in (*_SCRIPTS, *scripts))
    return _environment().get_template(template).render(
        **values,
        words=WORDS,
        version=_version(),
        uplot_version=UPLOT_VERSION,
        csp=_policy(css, script),
        style=Markup(css),  # noqa: S704  # our own assets, and nothing else
        script=Markup(script),  # noqa: S704
        data=Markup(script_safe(data)),  # noqa: S704  # every character that could end the element is escaped
    )  # fmt: skip


def _policy(css: str, script: str) -> str:
    """The Content-Security-Policy: nothing may be loaded, run or sent, but for the page's one style and one script."""
    style_hash, script_hash = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (css, script)
    )
    return (
        f"default-src 'none'; style-src 'sha256-{style_hash}'; script-src 'sha256-{script_hash}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


@cache
def _asset(name: str) -> str:
    """The text of one of the package's own files."""
    return resources.files("pytest_atomtrace.report").joinpath("assets").joinpath(name).read_text("utf-8").rstrip("\n")


def _style() -> str:
    """The style of all pages, with the colours of kernel families."""
    families = "".join(f".f-{name}{{--c:{colour}}}" for name, colour in COLOURS.items())
    return "\n".join([*(_asset(name) for name in _STYLES), families])


@cache
def _environment() -> Environment:
    """Templates that escape every value and show control characters."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    made = Environment(
        loader=FunctionLoader(_asset),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalized,
    )
    made.filters |= {
        "duration": lambda ns: format_duration(ns) if ns is not None else "–",
        "signed": lambda ns: f"{'−' if ns < 0 else '+'}{format_duration(abs(ns))}",
        "seconds": lambda seconds: format_seconds(seconds) if seconds is not None else "–",
        "percent": lambda share: f"{share * 100:.1f} %",
        "used": _used,
        "change": lambda share: f"{share * 100:+.1f} %".replace("-", "−"),
        "short": short_name,
        "raw_hint": lambda raw: clipped_text(raw, 200),
        "is_shortened": lambda raw: short_name(raw) != raw,
        "clip": lambda text: clipped_text(text, MOST_NAME),
        "long": lambda text: clipped_text(text, MOST_TEXT),
        "quoted": shlex.quote,
        "figure": _figure,
        "engine": lambda row: shown_engine(row.engine, simulated=row.simulated),
    }
    return made


def _used(share: float) -> str:
    """A share of a budget; what is beyond by a hair must not read as 100.0 %."""
    return f"{share * 100:.{1 if abs(share - 1) >= 0.0005 or share == 1 else 3}f} %"


def _finalized(value: object) -> object:
    """Every text that leaves a template: control characters become visible, line breaks stay."""
    if type(value) is str:
        return "\n".join(printable(line) for line in value.split("\n"))
    return value


def _figure(line: BenchLine) -> str:
    if line.unit == "ns":
        return format_duration(line.value)
    if line.unit == "share":
        return f"{line.value * 100:.1f} %"
    number = f"{line.value:,.0f}" if line.value == int(line.value) or line.value >= 1000 else f"{line.value:,.2f}"
    return f"{number} {line.unit}".strip()


def _version() -> str:
    """Of this package."""
    try:
        return metadata.version("pytest-atomtrace")
    except metadata.PackageNotFoundError:
        return "(not installed)"
