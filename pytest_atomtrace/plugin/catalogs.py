"""ATOM's model catalog as a run of pytest sees it: found by the settings, read once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.plugin.state import STATE

if TYPE_CHECKING:
    from pytest_atomtrace.cases.catalog import Catalog

__all__ = ["NO_CATALOG", "catalog_of"]

NO_CATALOG = "no catalog of models: give --atom-catalog=PATH, or --atom-root with a checkout of ATOM"

_CATALOG: pytest.StashKey[Catalog | None] = pytest.StashKey()


def catalog_of(config: pytest.Config) -> Catalog | None:
    """The catalog of this run, None where ``auto`` finds none.

    Raises:
        ConfigError: what was named cannot be read, or is no catalog.

    """
    from pytest_atomtrace.cases.catalog import find_catalog, load_catalog

    if _CATALOG not in config.stash:
        settings = config.stash[STATE].settings
        path = find_catalog(settings.catalog, settings.root, base=config.rootpath)
        config.stash[_CATALOG] = load_catalog(path) if path is not None else None
    return config.stash[_CATALOG]
