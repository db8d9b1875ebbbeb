"""Run the ``partzoo`` command with ``python -m partzoo``."""

from partzoo.cli import main

main(prog_name="partzoo")
