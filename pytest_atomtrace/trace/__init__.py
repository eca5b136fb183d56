"""Trace files become numbers: reader, columns, labels, steps, names, intervals, health."""

from __future__ import annotations

__all__: list[str] = []
