"""The command ``partzoo relate``."""

from __future__ import annotations

from contextlib import nullcontext
from math import isnan

import click

from partzoo.cli.command import Command, print_json
from partzoo.cli.options import device_option, json_option, limit_options, model_option, seed_range
from partzoo.files import expand_user
from partzoo.locks import locked
from partzoo.places import check_apart, made_folder

FIGURES = ("figure-4.png", "figure-5.png", "figure-6.png")


@click.command(
    cls=Command,
    short_help="Predict how patches of an image are arranged.",
    epilog="""
    \b
    Examples:
      partzoo relate photo.jpg -o figures/
      partzoo relate photo.jpg -n 100 --seed 1 -o figures/
      partzoo relate photo.jpg --json
    \b
    Files in the folder:
      figure-4.png  the image rebuilt from patches off and on the grid, placed by prediction
      figure-5.png  a certain and an uncertain patch, and where all others place them
      figure-6.png  matrices of translations along x and y, predicted and true
    """,
)
@click.argument("image", type=click.Path(), metavar="IMAGE")
@click.option("-o", "--out", type=click.Path(file_okay=False), help="Folder for the figures.")
@click.option("-n", "n", type=click.IntRange(min=2), default=64, show_default=True, help="Number of off-grid patches.")
@click.option("--seed", type=seed_range, default=0, show_default=True, help="Random seed of the patches' positions.")
@model_option
@device_option
@limit_options
@json_option
def relate(
    image: str,
    out: str | None,
    n: int,
    seed: int,
    model: str | None,
    device: str | None,
    max_pixels: int,
    max_bytes: int,
    as_json: bool,
) -> None:
    """Draw the figures of the PART paper for an image: its patches at the positions that the model predicts."""
    from partzoo.files import write_aside
    from partzoo.images.opening import open_image
    from partzoo.relations.figures import assemblies
    from partzoo.relations.predict import model_of
    from partzoo.relations.predict import relate as predicted

    folder = None if out is None else expand_user(out)
    check_apart([folder / name for name in FIGURES] if folder else [], [image, model])
    with made_folder(folder), locked(folder) if folder else nullcontext():
        opened = open_image(image, max_pixels=max_pixels, max_bytes=max_bytes)
        chosen = model_of(model, device)
        off_grid = predicted(opened, n=n, model=chosen, seed=seed)
        if folder is not None:
            on_grid = predicted(opened, model=chosen, sampling="on-grid", seed=seed)
            drawn = (assemblies(off_grid, on_grid), off_grid.draw_uncertainty(), off_grid.draw_matrices())
            for name, figure in zip(FIGURES, drawn, strict=True):
                with write_aside(folder / name) as file:
                    figure.save(file, "PNG", compress_level=3)
    spread = off_grid.uncertainty()
    x, y = off_grid.symmetry_correlation()
    about = {
        "patches": len(off_grid),
        "error": off_grid.error,
        "single_reference_error": off_grid.assemble(0).error,
        "all_references_error": off_grid.assemble().error,
        "uncertainty": {"lowest": float(spread.min()), "highest": float(spread.max())},
        "symmetry_error": off_grid.symmetry_error(),
        "symmetry_correlation": {"x": None if isnan(x) else x, "y": None if isnan(y) else y},
    }
    if as_json:
        print_json(about | {"output": out})
        return
    click.echo(
        f"{len(off_grid)} patches: translations are {about['error']:.1f} pixels off on average, "
        f"opposite directions differ by {about['symmetry_error']:.1f} (correlation {x:.2f} along x, {y:.2f} along y)"
    )
    click.echo(f"Written: {out}" if out else "Nothing was written: add -o figures/ to see them.")
