"""``write_report``: one web page that shows the parts of many images."""

from __future__ import annotations

import dataclasses
import hashlib
import html
import os
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sized
from importlib.resources import files
from pathlib import PurePath
from typing import Any

import numpy as np

import partzoo
from partzoo.discovery.labeller import DOUBTFUL
from partzoo.discovery.vocabulary import PartVocabulary, read_vocabulary
from partzoo.errors import UsageError, counted
from partzoo.files import expand_user, write_aside
from partzoo.parts.drawing import palette
from partzoo.parts.parts import Parts
from partzoo.places import check_apart, check_place
from partzoo.report.thumbnails import thumbnail
from partzoo.weights.card import facts
from partzoo.weights.manifest import manifest

ROOM, IMAGES = 18_000_000, 500  # characters for the images of a page; of fewer images, each has no more than its share


def write_report(
    parts: Parts | Iterable[Parts],
    path: str | os.PathLike,
    *,
    vocabulary: PartVocabulary | str | os.PathLike | None = None,
    title: str = "Parts",
) -> None:
    """Write one self-contained web page with every image, its parts, and each part over all images.

    The page needs no network and forbids it to itself. Pages of up to 500 images stay below 20 MB; of more, the
    thumbnails become smaller.

    Args:
        parts: parts of one image, or of many that share one vocabulary; of an iterator, one is held at a time.
        path: file to write, such as ``report.html``.
        vocabulary: vocabulary that the parts were found with, or its file; the page then states its settings and its
            models.
        title: title of the page.

    Raises:
        UsageError: there are no images, they do not share their parts, or the file is one of the images.
        WeightsError: the vocabulary's file cannot be read.
        PartzooError: the file cannot be written.
    """
    several = [parts] if isinstance(parts, Parts) else parts
    count = len(several) if isinstance(several, Sized) else IMAGES
    words = read_vocabulary(vocabulary)
    about = {} if words is None else settings_of(words)
    write_page(several, path, count=count, about=about, title=title)


def settings_of(vocabulary: PartVocabulary) -> dict[str, Any]:
    """Return the settings that a page states of a vocabulary."""
    return {"k": vocabulary.k} | dataclasses.asdict(vocabulary.settings)


def write_page(
    several: Iterable[Parts], path: str | os.PathLike, *, count: int, about: Mapping[str, Any], title: str
) -> None:
    """Write the page; see :func:`write_report`.

    Args:
        several: parts of each image.
        path: file to write.
        count: number of images, or more, which decides how large the thumbnails can be.
        about: settings that the page states; those that name a released model bring its record.
        title: title of the page.
    """
    check_place(expand_user(path))
    room = ROOM // max(count, IMAGES)
    entries = [_Entry.of(parts, room) for parts in several]
    if not entries:
        raise UsageError("There are no parts to report on: pass those of at least one image.")
    if len({entry.names for entry in entries}) > 1:
        raise UsageError("These images do not share their parts: discover the parts of all images in one call.")
    check_apart([path], [entry.source for entry in entries])
    text = _page(entries, about, title)
    with write_aside(path) as file:
        file.write(text.encode("utf-8"))


@dataclasses.dataclass(frozen=True)
class _Entry:
    """What the page needs to know of one image.

    Attributes:
        source: path or address of the image; may be empty.
        size: ``(height, width)`` of the image.
        names: names of the k parts.
        shares: share of the image that each part covers, ``(k,)``.
        confidences: ``(k,)``, or None if unknown.
        quality: confidence in the foreground, or in the part model's parts.
        small: ``(height, width)`` of the thumbnail.
        jpeg: the thumbnail in base64.
        labels: the thumbnail's labels, as :func:`partzoo.report.thumbnails.runs`.
    """

    source: str
    size: tuple[int, int]
    names: tuple[str, ...]
    shares: np.ndarray
    confidences: np.ndarray | None
    quality: float
    small: tuple[int, int]
    jpeg: str
    labels: str

    @classmethod
    def of(cls, parts: Parts, room: int) -> _Entry:
        shares = parts.areas / parts.labels.size
        return cls(
            parts.source,
            parts.size,
            parts.names,
            shares,
            parts.confidences,
            parts.quality,
            *thumbnail(parts, room),
        )

    @property
    def present(self) -> list[int]:
        """Numbers of the parts in the image."""
        return (np.flatnonzero(self.shares) + 1).tolist()

    @property
    def doubtful(self) -> bool:
        """Whether the page warns of the parts; not if their quality is unknown, NaN."""
        return self.quality < DOUBTFUL


def _page(entries: list[_Entry], about: Mapping[str, Any], title: str) -> str:
    names = entries[0].names
    colours = palette(len(names))[1:].tolist()
    rules = "".join(f".p{i}{{--part:rgb({r} {g} {b})}}" for i, (r, g, b) in enumerate(colours, 1))
    style, script = _file("page.css") + rules, _file("page.js")
    doubtful = sum(entry.doubtful for entry in entries)
    fields = {
        "style": style,
        "script": script,
        "style_hash": _digest(style),
        "script_hash": _digest(script),
        "title": _escaped(title),
        "summary": f"{counted(len(entries), 'image')}, {counted(len(names), 'part')}, "
        f"{counted(doubtful, 'warning')} of doubtful parts. Written by partzoo {_escaped(partzoo.__version__)}.",
        "sorts": _sorts(any(entry.confidences is not None for entry in entries)),
        "buttons": "".join(_button(number, name) for number, name in enumerate(names, 1)),
        "images": "\n".join(
            _image(number, entry, name)
            for number, (entry, name) in enumerate(zip(entries, _short_names(entries), strict=True), 1)
        ),
        "parts": "\n".join(_part(number, name, entries) for number, name in enumerate(names, 1)),
        "settings": _table(about) if about else "<p>These results do not record their settings.</p>",
        "models": _models(about),
    }
    # Split at the marks: the images' names, which are filled in, may themselves look like marks.
    pieces = _file("page.html").split("%%")
    return "".join(fields[piece] if place % 2 else piece for place, piece in enumerate(pieces))


def _sorts(scored: bool) -> str:
    options = {
        "given": "order given",
        "name": "file name",
        "largest": "size, largest first",
        "smallest": "size, smallest first",
        **({"clearest": "score, highest first", "vaguest": "score, lowest first"} if scored else {}),
        "quality": "warnings first",
    }
    return "".join(f'<option value="{value}">{label}</option>' for value, label in options.items())


def _button(number: int, name: str) -> str:
    shown = str(number) if name == f"part {number}" else f"{number} {_escaped(name)}"
    return (
        f'<button type="button" class="p{number}" data-part="{number}" aria-pressed="false" '
        f'aria-label="{_escaped(_called(number, name))}"><span class="swatch"></span>{shown}</button>'
    )


def _image(number: int, entry: _Entry, name: str) -> str:
    height, width = entry.small
    name = _escaped(name or f"image {number}")
    quality = "" if np.isnan(entry.quality) else f"{entry.quality:.3f}"
    confidence = f"confidence {entry.quality:.2f}" if quality else "confidence not recorded"
    rows = "".join(
        f'<li class="p{i}" data-part="{i}"><span class="swatch"></span>'
        f'<span class="hidden">{_escaped(_called(i, entry.names[i - 1]))}: </span>'
        f'<span aria-hidden="true">{i}&nbsp;</span>{entry.shares[i - 1]:.1%}</li>'
        for i in entry.present
    )
    scores = "" if entry.confidences is None else f' data-scores="{_numbers(entry.confidences)}"'
    warning = '<strong class="warning">Check: doubtful parts</strong>' if entry.doubtful else ""
    return (
        f'<li id="image-{number}" class="card" tabindex="-1" data-name="{name}" data-quality="{quality}" '
        f'data-shares="{_numbers(entry.shares)}"{scores} data-labels="{entry.labels}"><figure>'
        f'<div class="view"><img src="data:image/jpeg;base64,{entry.jpeg}" width="{width}" height="{height}" '
        f'alt="{name}"><canvas aria-hidden="true"></canvas></div>'
        f"<figcaption><h3>{name}</h3><p>{entry.size[1]} &times; {entry.size[0]} pixels, "
        f"{confidence} {warning}</p><ul>{rows}</ul></figcaption></figure></li>"
    )


def _part(number: int, name: str, entries: list[_Entry]) -> str:
    shares = np.array([entry.shares[number - 1] for entry in entries])
    found = int((shares > 0).sum())
    size = f", {shares[shares > 0].mean():.1%} of them on average" if found else ""
    return (
        f'<section class="part p{number}" aria-labelledby="part-{number}">'
        f'<h3 id="part-{number}"><span class="swatch"></span>P{_escaped(_called(number, name))[1:]}</h3>'
        f'<p>In {found} of {counted(len(entries), "image")}{size}.</p><ul class="crops" data-of="{number}"></ul>'
        f'<button type="button" class="more" data-more="{number}" hidden>Show all {found}</button></section>'
    )


def _called(number: int, name: str) -> str:
    return name if name == f"part {number}" else f"part {number}, {name}"


def _models(about: Mapping[str, Any]) -> str:
    """Return a section with the record of each released model that the settings name; "" if they name none."""
    records, found = manifest(), []
    for name in dict.fromkeys(str(about[key]) for key in ("model", "background") if about.get(key)):
        if record := records.get(name):
            scores = {
                f"{each['name']} ({each['protocol']})": f"{each['value']:.4g}"
                if isinstance(each["value"], float)
                else each["value"]
                for each in record.metrics
            }
            known = facts(record) | {"command": record.command, "licence of the weights": record.licence} | scores
            found.append(f"<h3>{_escaped(name)}</h3>{_table(known)}")
    body = "\n".join(found)
    return f'<section aria-labelledby="models"><h2 id="models">Models</h2>{body}</section>' if body else ""


def _table(rows: Mapping[str, Any]) -> str:
    lines = (
        f'<tr><th scope="row">{_escaped(name)}</th><td>{_escaped(_said(value))}</td></tr>'
        for name, value in rows.items()
        if value is not None
    )
    return f"<table>{''.join(lines)}</table>"


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{value:.4f}" for value in values)


def _short_names(entries: list[_Entry]) -> list[str]:
    """Return the images' paths without the folders that all have in common, which may name a person."""
    sources = [entry.source.partition("?")[0] if "://" in entry.source else entry.source for entry in entries]
    paths = [PurePath(source).parts for source in sources]
    folders = [path[:-1] for path in paths if path]
    levels = enumerate(zip(*folders, strict=False))
    common = next((i for i, names in levels if len(set(names)) > 1), min(map(len, folders), default=0))
    return ["/".join(path[common:]) for path in paths]


def _escaped(text: str) -> str:
    """Escape text for HTML, also in attributes; write out characters that are invisible or change the direction."""
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return html.escape("".join(shown))


def _digest(text: str) -> str:
    """Return the hash that allows an inline style or script in a Content-Security-Policy."""
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _file(name: str) -> str:
    return (files("partzoo.report") / name).read_text(encoding="utf-8")
