"""For every test of specs."""

from __future__ import annotations

# In-process runs of pytest drop the modules that they imported. Compiled ones stay, and do not know the classes of a
# second import: numpy warns, and yaml's parser makes nodes that its new module takes for nothing ("is empty").
import numpy as np
import yaml

__all__ = ["np", "yaml"]
