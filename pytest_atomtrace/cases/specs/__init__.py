"""Specs without Python: the grammar of ``*.atom.yaml`` files, and its located errors."""
