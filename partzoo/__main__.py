"""``python -m partzoo`` is the ``partzoo`` command."""

from partzoo.cli import main

main(prog_name="partzoo")
