"""The command ``partzoo convert``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from partzoo.cli.command import Command
from partzoo.errors import PartzooError, UsageError, WeightsError, counted
from partzoo.files import expand_user, read_json
from partzoo.locks import PREFIX
from partzoo.places import check_apart, check_place, made_folder

if TYPE_CHECKING:
    from partzoo.conversion.convert import Published
    from partzoo.models.base import Model


@click.command(
    cls=Command,
    short_help="Convert a published checkpoint to a model.",
    epilog="""
    \b
    Examples:
      partzoo convert CelebA_K4.pth -o models/celeba-k4           a released PartFormer
      partzoo convert CUB_K16.pth -o models/cub --with-backbone   an MPAE, with its encoder in the file
      partzoo convert checkpoint.tar -o models/cifar --set size=32
      partzoo convert dino_deitsmall8_pretrain.pth -o models/dino
      partzoo convert CelebA_K4.pth CelebA_K8.pth -o models/      models/CelebA_K4, models/CelebA_K8
    \b
    --set KEY=VALUE: a value of the model's configuration that cannot be inferred from shapes.
    Afterwards: partzoo discover photo.jpg --model models/celeba-k4 -o parts.png
    """,
)
@click.argument("files", type=click.Path(), nargs=-1, required=True, metavar="FILE...")
@click.option(
    "-o", "--out", required=True, type=click.Path(file_okay=False),
    help="Folder to write the model to; for several files, the folder above the models.",
)  # fmt: skip
@click.option("--with-backbone", is_flag=True, help="Store the frozen encoder as well, instead of only its name.")
@click.option("--architecture", metavar="NAME", help="Architecture of the checkpoint.  [default: inferred from shapes]")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="One value of the model's configuration.")
@click.option("--strict", is_flag=True, help="Stop at the first file that cannot be converted.")
def convert(
    files: tuple[str, ...],
    out: str,
    with_backbone: bool,
    architecture: str | None,
    settings: tuple[str, ...],
    strict: bool,
) -> None:
    """Convert FILE, a checkpoint published by a model's authors, and write the model to a folder.

    It reads checkpoints of the methods listed in docs/convert.md, such as PartFormer, MPAE, Spatial Reasoning and DINO.

    FILE is a released file or a training checkpoint. 'partzoo discover --model' and partzoo.load accept the folder.
    A part model's frozen encoder is not stored in the folder but referred to by name, unless --with-backbone is given.
    If several files are given, each becomes a folder in --out, named after the file; those that cannot be converted
    are skipped and listed in failed.csv there.
    """
    from partzoo.cli.failures import Failures
    from partzoo.cli.part_files import file_names

    above, several = expand_user(out), len(files) > 1
    folders = [above / name for name in file_names(files)] if several else [above]
    if not several:
        _check_folder(above)
    check_apart([each for folder in folders if folder.is_dir() for each in folder.iterdir()], files)
    failures: Failures[int] = Failures(
        len(files), files.__getitem__, what="files", strict=strict or not several, folder=above if several else None
    )
    with made_folder(above):
        for folder in folders:
            _check_folder(folder)
        failures.begin()
        for number, (file, folder) in enumerate(zip(files, folders, strict=True)):
            try:
                _convert(file, folder, with_backbone, architecture, settings)
            except PartzooError as error:
                failures.pass_over(number, error)
    failures.check()


def _convert(file: str, folder: Path, with_backbone: bool, architecture: str | None, settings: tuple[str, ...]) -> None:
    """Write the model in a file to a folder."""
    from partzoo.conversion.convert import assemble, recognize
    from partzoo.models.loading import has_frozen_encoder
    from partzoo.models.registry import find
    from partzoo.models.sharing import save_pretrained
    from partzoo.settings import checked, parse_settings, types_of
    from partzoo.weights.tensors import ENCODER

    found = recognize(file, architecture)
    entry = find(found.architecture)
    types = types_of(type(entry.config))
    config = {key: checked(key, v, types.get(key, type(v))) for key, v in parse_settings(settings)["task"].items()}
    model = assemble(found, file, device="cpu", dtype="float32", **config)
    over = has_frozen_encoder(model)
    click.echo(f"recognized: {_described(model, entry.family)}")
    click.echo(f"tensors: {found.tensors} in {file}, {found.tensors - len(found.unused)} used{_rest(found)}")
    if over:
        inside = any(name.startswith(ENCODER) for name in found.state)
        click.echo(f"backbone: {_backbone(model, with_backbone, inside)}")
    save_pretrained(model, folder, backbone=with_backbone or not over)
    click.echo(f"written: {folder}, for partzoo.load({str(folder)!r})")


def _check_folder(folder: Path) -> None:
    """Refuse to replace the contents of a folder, unless they are a model of the zoo.

    What a killed process has left there does not count.

    Raises:
        UsageError: the folder holds other files.
    """
    from partzoo.weights.replacing import readable

    if not folder.exists():
        return check_place(folder.absolute().parent)
    check_place(folder)
    names = {each.name for each in folder.iterdir() if not each.name.startswith(PREFIX)}
    try:
        ours = read_json(readable(folder) / "config.json")["library_name"] == "partzoo"
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if names and not (ours and all(name in ("config.json", "README.md") or ".safetensors" in name for name in names)):
        raise UsageError(f"{folder} holds files other than a model of partzoo. Choose an empty or a new folder.")


def _described(model: Model, family: str) -> str:
    config = model.config
    words = [f"{model.architecture} ({family})"]
    if hasattr(config, "parts"):
        words.append(
            f"K = {config.parts}" + (f" in {counted(config.classes, 'class')}" if getattr(config, "classes", 0) else "")
        )
    if hasattr(config, "compress"):
        words.append(f"compression {config.compress}, {'cosines' if config.cosine else 'dot products'}")
    return ", ".join([*words, f"{model.preprocess.size} pixels"])


def _rest(found: Published) -> str:
    if not found.unused:
        return ""
    return f", {len(found.unused)} left out ({', '.join(found.unused[:4])}{', ...' if len(found.unused) > 4 else ''})"


def _backbone(model: Model, stored: bool, inside: bool) -> str:
    """Describe where the weights of the frozen encoder are.

    Raises:
        PartzooError: the folder would name an encoder whose weights differ from those in the file.
    """
    name = model.config.encoder
    if stored:
        return f"{name}, stored in the folder"
    if not inside:
        return f"{name}, not in the file; named in the folder"
    same = _equals_released(model)
    if same is None:
        return (
            f"{name}, named in the folder. Its weights are not on this machine, so whether they equal those in "
            "the file is unknown: --with-backbone stores the latter"
        )
    if not same:
        raise PartzooError(f"The file's backbone has other weights than {name}: add --with-backbone to store it.")
    return f"{name}, named in the folder; its weights equal those in the file"


def _equals_released(model: Model) -> bool | None:
    """Return whether the frozen encoder equals the released one of the same name; None if that is not available."""
    import torch

    from partzoo.models.loading import load

    try:
        named = load(model.config.encoder, device="cpu", dtype="float32", local_files_only=True).state_dict()
    except WeightsError:
        return None
    return all(torch.allclose(named[name], value, atol=1e-6) for name, value in model.encoder.state_dict().items())
