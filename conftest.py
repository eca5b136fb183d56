"""Shared by the tests and the specs of this checkout."""

pytest_plugins = ["pytester"]
