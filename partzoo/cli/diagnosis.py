"""Check for ``partzoo doctor`` whether everything that partzoo needs is installed, and say how to get the rest."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

import partzoo
from partzoo.errors import PartzooError, counted
from partzoo.models.precision import explain, has_amx, has_vnni
from partzoo.system.device import default_device, why_no_cuda
from partzoo.system.hardware import hardware
from partzoo.weights.checked import cache_folder
from partzoo.weights.manifest import checkpoint_folders, manifest
from partzoo.weights.store import remedy, verify


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
                    "fix": "" if found.state == "ok" else remedy(records[found.record], found.file),
                }
            )
            if found.problem:
                problems.append(found.problem)
            elif found.path is None and records[found.record].bundled:
                problems.append(
                    f"{found.file.path} is missing from the package: {remedy(records[found.record], found.file)}."
                )
    except PartzooError as error:
        problems.append(str(error))
    caches = _caches()
    try:
        caches["checkpoints"] = [str(folder) for folder in checkpoint_folders()]
    except PartzooError as error:
        problems += [str(error)] * (str(error) not in problems)
    return {
        "versions": versions,
        "device": _device(),
        "caches": caches,
        "weights": weights,
        "extras": [_extra(name, wanted) for name, wanted in extras.items()],
        "problems": problems,
    }


def lines(found: dict[str, Any]) -> list[str]:
    """Format the findings of :func:`examine` as readable lines."""
    device, caches = found["device"], found["caches"]
    text = ["Versions: " + ", ".join(f"{name} {number or 'missing'}" for name, number in found["versions"].items())]
    text.append(f"Device: {device['name']} ({device['device']})")
    cores, threads = counted(device["cores"], "core"), counted(device["threads"], "thread")
    text.append(f"  {cores}, {threads}, {device['memory_gib']} GiB of memory")
    text.append(f"  dtype='auto' means {device['precision']}: {device['why']}")
    if device["device"] == "cpu":
        gain = "can be faster here" if device["vnni"] else "is hardly faster here"
        text.append(f"  dtype='int8' {gain}: this CPU has {'' if device['vnni'] else 'no '}AVX-512 VNNI")
    if device["hint"]:
        text.append(f"  {device['hint']}")
    text.append(f"Hugging Face cache: {caches['hugging_face']}{', offline mode is on' if caches['offline'] else ''}")
    text.append(f"partzoo's notes: {caches['partzoo']}")
    text.append(f"Folders of checkpoints: {', '.join(caches['checkpoints']) or 'none'}")
    text.append("Weights:" if found["weights"] else "Weights: none are recorded")
    for each in found["weights"]:
        text.append(f"  {each['name']}: {each['state']}, {each['path'] or each['fix']}")
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
        hint = f"The NVIDIA GPU here is not used: {why_no_cuda() or 'its driver may be too old for this torch'}."
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
        "checkpoints": [],
    }
