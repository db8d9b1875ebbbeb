"""Arguments and options shared by several commands, and their Tab completion."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from partzoo.errors import PartzooError
from partzoo.limits import MAX_BYTES, MAX_PIXELS, MAX_SEED


def complete_weights(_: click.Context, __: click.Parameter, start: str) -> list[str]:
    """Return names of released weights and their architectures; reads the manifest without importing torch."""
    from partzoo.weights.manifest import manifest

    try:
        records = manifest().values()
    except PartzooError:
        return []
    names = {name for record in records for name in (record.architecture, record.name, record.alias)}
    return sorted(name for name in names if name and name.startswith(start))


class Numbers(click.ParamType):
    """A parameter such as ``4,8,16``: whole numbers from ``least`` on; the word given as ``word`` becomes None."""

    name = "NUMBERS"

    def __init__(self, *, least: int = 1, word: str | None = None) -> None:
        self.least, self.word = least, word

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> list[int | None]:
        try:
            found = [None if each == self.word else int(each) for each in value.split(",")]
        except ValueError:
            or_word = f", or {self.word!r}" if self.word else ""
            self.fail(f"{value!r} must be numbers separated by commas, such as 4,8,16{or_word}.", param, ctx)
        if any(each is not None and each < self.least for each in found):
            self.fail(f"{value!r}: every number must be at least {self.least}.", param, ctx)
        return found


seed_range = click.IntRange(0, MAX_SEED)
threads_range = click.IntRange(1, 1024)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for other programs.")
images_argument = click.argument("images", type=click.Path(), nargs=-1, required=True, metavar="IMAGE...")


def one_or_many(images: Sequence[str]) -> str | list[str]:
    """Return the argument IMAGE as functions take it: a single name may be that of a folder, a pattern or a video."""
    return images[0] if len(images) == 1 else list(images)


strict_option = click.option("--strict", is_flag=True, help="Stop at the first image that cannot be read.")
resume_option = click.option(
    "--resume/--no-resume",
    default=None,
    help="Continue a stopped run of the same command.  [default: if the settings are the same]",
)


def limit_options(command: Callable) -> Callable:
    """Add ``--max-pixels`` and ``--max-bytes``."""
    at_least_one = click.IntRange(1)
    for name, default, what in (("--max-bytes", MAX_BYTES, "file"), ("--max-pixels", MAX_PIXELS, "image")):
        command = click.option(
            name, type=at_least_one, default=default, show_default=True, help=f"Refuse a larger {what}."
        )(command)
    return command


device_option = click.option(
    "--device",
    metavar="NAME",
    help="Where the model runs: cpu, cuda, cuda:1, mps.  [default: cuda where there is a GPU, else cpu]",
)
ENGINES = ("auto", "torch", "onnxruntime", "openvino")
engine_option = click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default="torch",
    show_default=True,
    help="What runs the model. onnxruntime and openvino need less of the CPU's time once the model is prepared, which "
    "takes up to minutes the first time.",
)
model_option = click.option(
    "--model",
    metavar="NAME",
    shell_complete=complete_weights,
    help="Model name, weights file or folder; see 'partzoo list'.",
)


class BackgroundOption(click.Option):
    """The option ``--background``, whose help lists the registered methods."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        from partzoo.discovery.foreground import METHODS

        methods = " ".join(f"{name}: {each.summary}" for name, each in METHODS.items())
        self.help = f"Model of 'partzoo list --family foreground' or method that finds the foreground. {methods}"
        return super().get_help_record(ctx)


background_option = click.option(
    "--background", cls=BackgroundOption, metavar="NAME", default="auto", show_default=True
)
