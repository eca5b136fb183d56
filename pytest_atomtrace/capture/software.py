"""The software below a real server: versions, commits and local edits of torch, triton, ATOM and AITER.

Asked of the interpreter that runs the server, without importing anything there; git is asked about a package's
directory only where git tracks it, since a virtual environment may lie inside some other repository.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.process import read_output

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["inspect_package", "inspect_software", "installed_packages"]

_PROBE_S, _GIT_S = 30.0, 20.0
_DIFF_LIMIT_BYTES = 64 << 20
_PROBE = """
import importlib.metadata as metadata, importlib.util, json
names = {
    "torch": ["torch"], "triton": ["triton", "pytorch-triton-rocm"], "atom": ["atom"], "aiter": ["amd-aiter", "aiter"]
}
answer = {}
for module, distributions in names.items():
    row = {}
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    places = list(spec.submodule_search_locations or ()) if spec else []
    if places:
        row["place"] = places[0]
    for name in distributions:
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        row["version"] = found.version
        direct = found.read_text("direct_url.json")
        commit = (json.loads(direct).get("vcs_info") or {}).get("commit_id") if direct else None
        if commit:
            row["commit"] = commit
        break
    answer[module] = row
print(json.dumps(answer))
"""


def installed_packages(python: str, env: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Version, place and (for installs from git) commit of torch, triton, atom and aiter, of those that are there.

    Raises:
        OSError: the interpreter does not answer; the text says why.

    """
    try:
        answer = json.loads(read_output([python, "-c", _PROBE], env=env, timeout_s=_PROBE_S))
    except ValueError as error:
        raise OSError(f"{python} answered with no JSON: {error}") from error
    return {str(module): {str(k): str(v) for k, v in row.items()} for module, row in answer.items() if row}


def inspect_software(python: str, env: Mapping[str, str], unknown: dict[str, str]) -> dict[str, object]:
    """``versions`` of torch and triton, ``atom`` and ``aiter`` with commit and edits; the rest goes to `unknown`."""
    try:
        packages = installed_packages(python, env)
    except OSError as error:
        unknown["software"] = str(error)
        return {}
    facts: dict[str, object] = {}
    versions = {name: packages[name]["version"] for name in ("torch", "triton") if "version" in packages.get(name, {})}
    for name in ("torch", "triton"):
        if name not in versions:
            unknown[name] = f"{python} has none"
    facts["versions"] = versions
    for name in ("atom", "aiter"):
        if name in packages:
            facts[name] = inspect_package(name, packages[name], env, unknown)
        else:
            unknown[name] = f"{python} has none"
    tuned = _tuned_tables(packages.get("aiter", {}).get("place", ""), env)
    if tuned:
        facts["aiter_tuned"] = tuned
    return facts


def inspect_package(
    name: str, package: Mapping[str, str], env: Mapping[str, str], unknown: dict[str, str]
) -> dict[str, object]:
    """Version, commit, and a digest of the working tree's edits ("clean" without any)."""
    facts: dict[str, object] = {key: package[key] for key in ("version", "commit") if key in package}
    place = package.get("place", "")
    if not place:
        return facts
    try:
        _git(place, env, "ls-files", "--error-unmatch", "--", ".")
        facts["commit"] = _git(place, env, "rev-parse", "HEAD").decode().strip()
        diff = _git(place, env, "diff", "HEAD", "--no-color", "--no-ext-diff", "--no-textconv", "--binary")
        facts["edits"] = sha256(diff).hexdigest()[:16] if diff else "clean"
    except OSError as error:
        unknown[f"{name}_edits" if "commit" in facts else f"{name}_commit"] = f"git: {error}"
    return facts


def _git(place: str, env: Mapping[str, str], *words: str) -> bytes:
    # GIT_DIR of a hook that started us would point into another repository.
    clean = {key: value for key, value in env.items() if not key.startswith("GIT_")}
    # A checkout of another user is refused without the first; the second would run a program of the checkout's choice.
    argv = ["git", "-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-C", place, *words]
    return read_output(argv, env={**clean, "GIT_OPTIONAL_LOCKS": "0"}, timeout_s=_GIT_S, limit_bytes=_DIFF_LIMIT_BYTES)


def _tuned_tables(package: str, env: Mapping[str, str]) -> dict[str, str]:
    """Digests of AITER's tuned tables: those that it ships, and those that AITER_CONFIG_* name instead."""
    paths: dict[str, Path] = {}
    if package:
        configs = Path(package) / "configs"
        if not configs.is_dir():  # an installed package keeps them beside itself
            configs = Path(package).parent / "aiter_meta" / "configs"
        paths = {str(path.relative_to(configs)): path for path in sorted(configs.rglob("*.csv"))}
    for name, value in sorted(env.items()):
        if name.startswith("AITER_CONFIG"):
            paths |= {f"{name}:{Path(part).name}": Path(part) for part in value.split(":") if part.endswith(".csv")}
    found = {}
    for name, path in paths.items():
        try:
            found[name] = sha256(path.read_bytes()).hexdigest()[:16]
        except OSError as error:
            found[name] = f"unreadable: {error.strerror}"
    return found
