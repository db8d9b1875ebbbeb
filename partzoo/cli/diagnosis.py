"""Check for ``partzoo doctor`` whether everything that partzoo needs is installed, and say how to get the rest."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

import torch

import partzoo
from partzoo.errors import PartzooError
from partzoo.models.precision import default_device, explain, has_amx, has_vnni
from partzoo.system.hardware import hardware
from partzoo.weights.manifest import clones, manifest
from partzoo.weights.store import cache_folder, verify


def examine() -> dict[str, Any]:
    """Examine this installation: nothing is downloaded; weights on this machine are read and hashed.

    Returns:
        A dictionary with ``versions``, ``device``, ``caches``, ``weights``, ``extras`` and ``problems``: sentences that
        each name a fix, empty if all is well. A missing extra is not a problem.
    """
    needed, extras = _requirements()
    versions = {
        "partzoo": partzoo.__version__,
        "python": platform.python_version(),
        "torch": _version("torch"),
    }
    problems = []
    for name, specifier in needed.items():
        versions[name] = _version(name)
        if not _serves(versions[name], specifier):
            problems.append(f'{name} is {versions[name] or "missing"}: pip install "{name}{specifier}".')
    weights = []
    try:
        records = manifest()
        for found in verify():
            weights.append(
                {
                    "name": found.record,
                    "file": found.file.path,
                    "bundled": records[found.record].bundled,
                    "path": str(found.path) if found.path else None,
                    "state": found.state,
                }
            )
            if found.problem:
                problems.append(found.problem)
            elif found.path is None and records[found.record].bundled:
                problems.append(
                    f"{found.file.path} is missing from the package: pip install --force-reinstall partzoo."
                )
    except PartzooError as error:
        problems.append(str(error))
    return {
        "versions": versions,
        "device": _device(),
        "caches": _caches(),
        "weights": weights,
        "extras": [_extra(name, wanted) for name, wanted in extras.items()],
        "problems": problems,
    }


def lines(found: dict[str, Any]) -> list[str]:
    """Format the findings of :func:`examine` as readable lines."""
    device, caches = found["device"], found["caches"]
    text = ["Versions: " + ", ".join(f"{name} {number or 'missing'}" for name, number in found["versions"].items())]
    text.append(f"Device: {device['name']} ({device['device']})")
    text.append(f"  {device['cores']} cores, {device['threads']} threads, {device['memory_gib']} GiB of memory")
    text.append(f"  dtype='auto' means {device['precision']}: {device['why']}")
    if device["device"] == "cpu":
        gain = "can be faster here" if device["vnni"] else "is hardly faster here"
        text.append(f"  dtype='int8' {gain}: this CPU has {'' if device['vnni'] else 'no '}AVX-512 VNNI")
    if device["hint"]:
        text.append(f"  {device['hint']}")
    text.append(f"Hugging Face cache: {caches['hugging_face']}{', offline mode is on' if caches['offline'] else ''}")
    text.append(f"partzoo's notes: {caches['partzoo']}")
    text.append(f"Clone with checkpoints/: {', '.join(caches['clones']) or 'none'}")
    text.append("Weights:" if found["weights"] else "Weights: none are recorded")
    for each in found["weights"]:
        where = each["path"] or f"run 'partzoo download {each['name']}'"
        text.append(f"  {each['name']}: {each['state']}, {where}")
    text.append("Extras:" if found["extras"] else "Extras: unknown, partzoo is not installed by pip")
    for each in found["extras"]:
        text.append(f"  {each['name']}: " + ("installed" if not each["missing"] else each["fix"]))
    if found["problems"]:
        text += ["Problems:", *(f"  {problem}" for problem in found["problems"])]
    else:
        text.append("Everything that partzoo needs is here.")
    return text


def _requirements() -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Read from the installed package which versions partzoo and each of its extras require."""
    from packaging.requirements import Requirement

    needed: dict[str, Any] = {}
    extras: dict[str, dict[str, Any]] = {}
    try:
        stated = [Requirement(text) for text in requires("partzoo") or ()]
    except PackageNotFoundError:
        return needed, extras
    for requirement in stated:
        if requirement.name == "partzoo":
            continue
        _, _, extra = str(requirement.marker or "").partition("extra == ")
        wanted = extras.setdefault(extra.strip("\"'"), {}) if extra else needed
        wanted[requirement.name] = requirement.specifier
    return needed, extras


def _extra(name: str, wanted: dict[str, Any]) -> dict[str, Any]:
    missing = [package for package, specifier in wanted.items() if not _serves(_version(package), specifier)]
    return {"name": name, "missing": missing, "fix": f'pip install "partzoo[{name}]"' if missing else ""}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _serves(number: str | None, specifier: Any) -> bool:
    return number is not None and specifier.contains(number, prereleases=True)


def _device() -> dict[str, Any]:
    device, machine = default_device(), hardware()
    precision, why = explain(device)
    hint = ""
    if device.type != "cuda" and os.path.exists("/proc/driver/nvidia"):
        why_not = "this torch has no CUDA" if torch.version.cuda is None else "its driver may be too old"
        hint = f"The NVIDIA GPU here is not used, {why_not}: see https://pytorch.org/get-started."
    return {
        "device": str(device),
        "name": machine["gpu"] or machine["cpu"],
        "cores": machine["cores"],
        "threads": machine["threads"],
        "memory_gib": machine["memory_gib"],
        "precision": precision,
        "why": why,
        "amx": has_amx(),
        "vnni": has_vnni(),
        "hint": hint,
    }


def _caches() -> dict[str, Any]:
    from huggingface_hub import constants

    return {
        "hugging_face": str(constants.HF_HUB_CACHE),
        "offline": bool(constants.HF_HUB_OFFLINE),
        "partzoo": str(cache_folder()),
        "clones": sorted({str(folder.resolve()) for folder in clones()}),
    }
