"""The ``partzoo`` command, also run by ``python -m partzoo``."""

import sys

from partzoo.errors import UsageError


def run() -> None:
    """Run the command; an environment variable that cannot be read ends it with one sentence, as every error does."""
    try:
        from partzoo.cli import main
    except UsageError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
    main(prog_name="partzoo")


if __name__ == "__main__":
    run()
