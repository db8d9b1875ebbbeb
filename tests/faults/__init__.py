"""Faults injected into partzoo, and a table of what came of them.

Each area is a module of this package with a function ``inject(scale, seed, place)``, which injects ``scale`` times as
many faults as the table asks for and returns a :class:`~tests.faults.table.Row`. Run them with
``python -m tests.faults`` from the root of a clone.
"""
