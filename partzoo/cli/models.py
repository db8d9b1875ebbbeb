"""The commands ``partzoo list``, ``info``, ``download``, ``publish`` and ``verify``."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from partzoo.cli.command import Command, megabytes, print_json, table
from partzoo.cli.options import complete_weights, json_option
from partzoo.errors import PartzooError, UnknownModelError, UsageError, WeightsError
from partzoo.files import expand_user

if TYPE_CHECKING:
    from partzoo.models.recorded import Recorded
    from partzoo.models.registry import Architecture
    from partzoo.weights.manifest import WeightRecord


@click.command(
    "list",
    cls=Command,
    short_help="List the models.",
    epilog="""
    \b
    Examples:
      partzoo list                     all architectures
      partzoo list "part-*"            those whose name begins with part-
      partzoo list --pretrained        trained weights that are on this machine or on the Hub
      partzoo list --family encoder --json
    \b
    partformer-ENCODER and mpae-ENCODER name a part model on any encoder, to be trained.
    Weights are named ARCHITECTURE.TAG, such as part-vitt8.tin. Those that newer ones
    have replaced are listed with --all.
    """,
)
@click.argument("filter", default="*")
@click.option("--family", help="Only this family: part, encoder, ...")
@click.option("--pretrained", is_flag=True, help="List trained weights instead of architectures.")
@click.option("--all", "everything", is_flag=True, help="Also list weights that newer ones have replaced.")
@json_option
def list_(filter: str, family: str | None, pretrained: bool, everything: bool, as_json: bool) -> None:
    """List models whose names match FILTER (wildcards: * and ?)."""
    from partzoo.models.recorded import recorded
    from partzoo.models.registry import names_among, split_tag
    from partzoo.weights.manifest import manifest

    known = recorded()
    architectures = {record.name: record.architecture for record in manifest().values()}
    names: dict[str, list[str]] = {}
    replaced = set()
    for record in manifest().values():
        if everything or record.superseded_by is None:
            names.setdefault(record.architecture, []).append(record.name)
        else:
            replaced.add(record.name)
    found = []
    for name in names_among(known, filter, family, pretrained):
        if name in replaced:
            continue
        entry = known[architectures.get(name, name)]
        weights = [name] if pretrained else names.get(entry.name, [])
        found.append(
            {
                "name": name,
                "family": entry.family,
                "aliases": entry.aliases,
                "weights": weights,
                "what": entry.summary,
            }
        )
    if as_json:
        print_json(found)
    elif not found:
        click.echo(f"No model matches {filter!r}.")
    else:
        rows = []
        for each in found:
            tags = [] if pretrained else [split_tag(name)[1] or "" for name in each["weights"]]
            tagged = f"Weights: {', '.join(tags)}. " if tags else ""
            rows.append((each["name"], each["family"], f"{tagged}{each['what']}"))
        table(rows, ("name", "family", "description"), wrap=True)


@click.command(
    cls=Command,
    short_help="Describe one model.",
    epilog="""
    \b
    Examples:
      partzoo info part-vitt8
      partzoo info part-vitt8.tin --json
      partzoo info timm/vit_small_patch14_dinov2.lvd142m
      partzoo info partformer-dinov2-vits14
    """,
)
@click.argument("name", shell_complete=complete_weights)
@json_option
def info(name: str, as_json: bool) -> None:
    """Describe the model NAME: its configuration, size, input images, and the source of its weights."""
    from partzoo.models.engines.recorded import recipes
    from partzoo.models.recorded import find_recorded

    entry = find_recorded(name)
    records = _records(name, entry)
    names = {record.name for record in records}
    about: dict[str, Any] = {
        "name": entry.name,
        "family": entry.family,
        "aliases": list(entry.aliases),
        "what": entry.summary,
        "parameters": entry.parameters,
        "config": dict(entry.config),
        "preprocess": dict(entry.preprocess),
        "weights": [record.to_json() for record in records],
        "precisions": {each.name: each.to_json() for each in recipes().values() if each.name in names},
    }
    if as_json:
        print_json(about)
        return
    click.echo(f"{entry.name}: {entry.summary}")
    click.echo(f"family: {entry.family}")
    if entry.aliases:
        click.echo(f"aliases: {', '.join(entry.aliases)}")
    click.echo(f"parameters: {about['parameters'] / 1e6:.2f} million")
    for title in ("config", "preprocess"):
        click.echo(f"{title}: " + ", ".join(f"{key}={value}" for key, value in about[title].items()))
    for record in records:
        _print_record(record)
        _print_precisions(about["precisions"].get(record.name, {}))
    if not records:
        click.echo("weights: " + _without_record(name, entry))


def _print_record(record: WeightRecord) -> None:
    where = "in the package" if record.bundled else "in checkpoints/ of a clone"
    if record.hub:
        where += f", on the Hub in {record.hub['repo']}"
    click.echo(f"\nweights {record.name}: {megabytes(record.bytes)}, {where}")
    if record.alias:
        click.echo(f"  short name: {record.alias}")
    if record.superseded_by:
        click.echo(f"  replaced by: {record.superseded_by}")
    click.echo(f"  trained on: {record.data}{' (labels used)' if record.labels_used else ' (no labels used)'}")
    click.echo(f"  terms of that data: {record.terms}; licence of the weights: {record.licence}")
    budget = record.budget
    hardware = budget.get("hardware", "unknown hardware")
    if isinstance(hardware, dict):
        hardware = hardware.get("gpu") or f"{hardware.get('cores')} cores of {hardware.get('cpu')}"
    seen = f"{budget.get('images_seen', 0):,} images seen"
    click.echo(f"  budget: {budget.get('minutes')} minutes on {hardware}, {seen}")
    click.echo(f"  made by: {record.command}")
    for metric in record.metrics:
        click.echo(f"  {metric['name']}: {metric['value']} ({metric['protocol']})")


def _print_precisions(precisions: dict[str, Any]) -> None:
    for engine, found in precisions.get("agreement", {}).items():
        for precision, figures in found.items():
            auto = "" if figures["offered"] else "; not chosen by dtype=auto"
            click.echo(
                f"  {precision} in {engine}: features have a cosine of {figures['cosine']:.4f} to float32's, "
                f"{100 * figures['same']:.2f} % of pixels the same label{auto}"
            )


def _records(name: str, entry: Architecture | Recorded) -> list[WeightRecord]:
    """Return the released weights that a name refers to: one if it has a tag, otherwise all of its architecture."""
    from partzoo.models.registry import records_of, split_tag

    found = records_of(name, entry.name)
    tag = None if name.startswith("timm/") else split_tag(name)[1]
    if tag is not None and not found:
        names = ", ".join(record.name for record in records_of(entry.name, entry.name)) or "none"
        raise UnknownModelError(f"{entry.name} has no weights tagged {tag!r}; available tags: {names}.")
    return found


def _without_record(name: str, entry: Recorded) -> str:
    if not entry.needs_weights:
        return "none needed: its parameters are seeded"
    if entry.converted:
        return f"by 'partzoo convert' from {entry.converted}; timm has none"
    if entry.by_timm:
        return f"through timm from the Hub (partzoo download {name})"
    return "none yet; train them with 'partzoo train', or load it with pretrained=False"


@click.command(
    cls=Command,
    short_help="Download weights to this machine.",
    epilog="""
    \b
    Examples:
      partzoo download part-vitn8               part of the package: nothing to download
      partzoo download dinov2-vits14            DINOv2 by Meta, from the Hugging Face Hub
      partzoo download hf-hub:owner/repo        a repository of partzoo weights
      partzoo download part-vitt8.tin -o tiny   a folder that partzoo.load("local-dir:tiny") reads
      partzoo download part-vitt8.tin dinov2-vits14 -o bundle
    \b
    Files go to the Hugging Face cache (HF_HOME). To use them on a machine without
    network, copy that folder, and set HF_HUB_OFFLINE=1 there; or carry the folder of
    --out, which holds a folder for each of several models. With PARTZOO_CHECKPOINTS
    set to it, released weights in it load by their plain names.
    """,
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_weights)
@click.option(
    "-o", "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for copies that load by themselves."
)
def download(names: tuple[str, ...], out: Path | None) -> None:
    """Download weights to this machine, so that they load without a network.

    If several are named, those that cannot be downloaded are skipped; the exit code is then 1.
    """
    from partzoo.cli.failures import Failures

    if out is not None:
        _check_bundle(out, alone=len(names) == 1)
    failures: Failures[int] = Failures(len(names), names.__getitem__, what="models", strict=len(names) == 1)
    for number, name in enumerate(names):
        try:
            lines = _download(name) if out is None else [str(_save(name, _folder_of(name, names, out)))]
            for line in lines:
                click.echo(f"{name}: {line}")
        except PartzooError as error:
            failures.pass_over(number, error)
    failures.check()


def _download(name: str) -> list[str]:
    from partzoo.models.recorded import find_recorded

    if name.startswith("hf-hub:"):
        from partzoo.weights.folder import download_repo

        repo, _, revision = name.removeprefix("hf-hub:").partition("@")
        return [str(download_repo(repo, revision or None))]
    entry = find_recorded(name)
    records = _records(name, entry)[:1]
    if records:
        from partzoo.weights.store import download as fetch

        return [str(path) for path in fetch(records[0])]
    if entry.needs_weights:
        from partzoo.models.loading import load

        load(name, device="cpu", dtype="float32")
        return ["in the Hugging Face cache, and it loads"]
    return [_without_record(name, entry)]


def _check_bundle(out: Path, *, alone: bool) -> None:
    """Refuse to put a model among the folders of several models, or several models into the folder of one."""
    from partzoo.weights.tensors import CONFIG

    if alone and not (out / CONFIG).exists() and any(out.glob(f"*/{CONFIG}")):
        raise UsageError(f"{out} holds a folder for each of several models: name a folder in it, or another one.")
    if not alone and (out / CONFIG).exists():
        raise UsageError(f"{out} holds a model itself: choose another folder for several models.")


def _folder_of(name: str, names: tuple[str, ...], out: Path) -> Path:
    """Return the folder for a model: ``out`` for a single one, otherwise a folder in it that has the model's name."""
    if len(names) == 1:
        return out
    return out / re.sub(r"[^\w.@-]+", "-", name.removeprefix("hf-hub:"))


def _save(name: str, folder: Path) -> Path:
    from partzoo.hub import save_pretrained, save_released
    from partzoo.models.loading import load
    from partzoo.models.registry import find

    records = [] if name.startswith("hf-hub:") else _records(name, find(name))
    if records:
        return save_released(records[0], folder)
    return save_pretrained(load(name, device="cpu", dtype="float32"), folder)


@click.command(
    cls=Command,
    short_help="Upload released weights to the Hub.",
    epilog="""
    \b
    Examples:
      partzoo publish part-vitt8.tin --repo owner/part-vitt8 --dry-run
      partzoo publish part-vitt8.tin --repo owner/part-vitt8 --private
      partzoo publish part-vitt8.tin --repo owner/part-vitt8 --record
    \b
    The weights keep their sha256; config.json and a model card are written beside
    them. Log in with 'hf auth login', or set HF_TOKEN.
    """,
)
@click.argument("name", shell_complete=complete_weights)
@click.option("--repo", required=True, metavar="OWNER/NAME", help="Repository, created if necessary.")
@click.option("--private", is_flag=True, help="Create the repository as a private one.")
@click.option("--revision", metavar="BRANCH", help="Branch to commit to.  [default: main]")
@click.option("--dry-run", is_flag=True, help="Print what would be sent, with the model card, and send nothing.")
@click.option("--record", is_flag=True, help="Write repository and commit into the clone's manifest.")
def publish(name: str, repo: str, private: bool, revision: str | None, dry_run: bool, record: bool) -> None:
    """Upload the released weights NAME to a Hub repository in one commit."""
    from partzoo import hub
    from partzoo.models.publishing import texts
    from partzoo.models.registry import find
    from partzoo.weights.manifest import add_record
    from partzoo.weights.store import find_record

    records = _records(name, find(name))
    released = records[0] if records else find_record(name)
    if dry_run:
        files = hub.planned(released, repo)
        where = f"{repo} ({'private' if private else 'public'}), branch {revision or 'main'}"
        click.echo(f"{released.name} would be sent to {where}:")
        table([(file, megabytes(size)) for file, size in files.items()], ("file", "size"))
        for file, text in texts(released, repo).items():
            click.echo(f"\n{file}:\n\n{text}", nl=False)
        return
    commit = hub.publish(released, repo, private=private, revision=revision)
    click.echo(f"{released.name}: hf-hub:{repo}@{commit}")
    if record:
        path = add_record(dataclasses.replace(released, hub={"repo": repo, "revision": commit}))
        click.echo(f"recorded in {path}")


@click.command(
    cls=Command,
    short_help="Check weights files against their sha256.",
    epilog="""
    \b
    Examples:
      partzoo verify                  all weights that are on this machine
      partzoo verify part-vitt8.tin
      partzoo verify runs/one/model.safetensors models/celeba-k4
      partzoo verify out/              shards of features or parts, against their manifest
    \b
    Of a safetensors file that partzoo has written, or a folder of them, the content is
    compared with the digest in the header.
    \b
    The exit code is 1 if a file is damaged, or if one that you named is missing or has no digest.
    """,
)
@click.argument("names", nargs=-1, metavar="[NAME_OR_PATH]...", shell_complete=complete_weights)
@json_option
@click.pass_context
def verify(context: click.Context, names: tuple[str, ...], as_json: bool) -> None:
    """Read weights files from first to last byte and compare their sha256 with the recorded one."""
    results, failed = [], []
    for name in names or (None,):
        try:
            results += _verified(name)
        except WeightsError as error:
            failed.append(error)
    if as_json:
        print_json([{key: value for key, value in result.items() if key != "bytes"} for result in results])
    elif results:
        rows = [
            (r["name"], r["file"], "" if r["bytes"] is None else megabytes(r["bytes"]), r["state"]) for r in results
        ]
        table(rows, ("name", "file", "size", ""))
        for result in results:
            if result["problem"]:
                click.echo(f"Error: {result['problem']}", err=True)
    elif not failed:
        click.echo("There are no recorded weights to verify.")
    for problem in failed:
        click.echo(f"Error: {problem}", err=True)
    if failed or any(result["state"] == "damaged" or (names and result["state"] != "ok") for result in results):
        context.exit(1)


def _own(name: str, path: Path) -> list[dict[str, Any]]:
    """Verify a file that partzoo has written, or a folder of them, against the digests in their headers."""
    from partzoo.weights.tensors import own_digests

    return [
        {
            "name": name,
            "file": file.name,
            "path": file,
            "state": state,
            "problem": problem,
            "bytes": file.stat().st_size if file.exists() else None,
        }
        for file, (state, problem) in own_digests(path).items()
    ]


def _verified(name: str | None) -> list[dict[str, Any]]:
    """Verify the files that a name or a path refers to; None is all recorded weights."""
    from partzoo.cli.collection import VOCABULARY
    from partzoo.collections.destinations import destination_of
    from partzoo.collections.manifest import is_result
    from partzoo.collections.manifest import verify as verify_result
    from partzoo.collections.storage import is_elsewhere, last_name
    from partzoo.models.registry import find
    from partzoo.weights.store import verify as check

    elsewhere = name is not None and is_elsewhere(name)
    path = None if name is None or elsewhere else expand_user(name.removeprefix("local-dir:"))
    if name is not None and (elsewhere or is_result(destination_of(path or name))):
        found = [
            {
                "name": name,
                "file": last_name(each.file),
                "path": each.file,
                "state": each.state,
                "problem": each.problem,
                "bytes": each.bytes,
            }
            for each in verify_result(path or name)
        ]
        vocabulary = None if path is None else path / VOCABULARY
        return found + (_own(name, vocabulary) if vocabulary and vocabulary.exists() else [])
    if name is not None and path is not None and (path.exists() or ".safetensors" in path.name):
        return _own(name, path)
    records = [None] if name is None else _records(name, find(name))
    return [
        {
            "name": each.record,
            "file": each.file.path,
            "path": each.path,
            "state": each.state,
            "problem": each.problem,
            "bytes": each.file.bytes,
        }
        for record in records
        for each in check(record)
    ]
