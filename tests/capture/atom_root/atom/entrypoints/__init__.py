"""A stand-in for the package of this name, for tests of launcher and workload."""
