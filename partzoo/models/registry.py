"""Register architectures by name, and look them up by wildcards and tags, with suggestions for misspelt names.

A file under ``partzoo/models`` registers its architectures with :func:`register`, and their weights are records of
``weights_manifest.json``: adding a model changes no other file. The registry itself imports no architecture.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypeVar

from partzoo.errors import UnknownModelError, UsageError, WeightsError
from partzoo.limits import check_range
from partzoo.settings import checked, types_of
from partzoo.weights.manifest import full_name, manifest, short_names
from partzoo.weights.store import available

if TYPE_CHECKING:
    from torch import Tensor

    from partzoo.models.base import Model
    from partzoo.models.recorded import Recorded
    from partzoo.weights.manifest import WeightRecord

Maker = TypeVar("Maker", bound="Callable[[Any], Model]")

_ARCHITECTURES: dict[str, Architecture] = {}
_PREFIXES: dict[str, Callable[[str], Architecture]] = {}


@dataclass(frozen=True)
class Architecture:
    """A registered architecture.

    Attributes:
        name: name in lower case, with hyphens.
        family: ``"part"``, ``"partformer"``, ``"mpae"``, ``"spatial"``, ``"foreground"`` or ``"encoder"``.
        config: default configuration, a frozen dataclass.
        build: function from a configuration to the model.
        aliases: other names of the architecture.
        needs_weights: False if the parameters are random, from a fixed seed.
        fetch: function from a configuration to tensors by name, for weights that the manifest does not list; it takes
            ``revision``, ``local_files_only`` and ``cache_dir`` of :func:`partzoo.load`.
    """

    name: str
    family: str
    config: Any
    build: Callable[[Any], Model]
    aliases: tuple[str, ...] = ()
    needs_weights: bool = True
    fetch: Callable[..., dict[str, Tensor]] | None = None

    @property
    def summary(self) -> str:
        """The first line of the docstring of ``build``."""
        return (self.build.__doc__ or "").strip().partition("\n")[0]

    def configure(self, overrides: dict[str, Any]) -> Any:
        """Return the architecture's configuration with some values replaced.

        Raises:
            UsageError: an override is not a field of the configuration (the message lists the fields), has another
                type, or is out of the range in :data:`partzoo.limits.RANGES`.
        """
        fields = [field.name for field in dataclasses.fields(self.config)]
        unknown = sorted(set(overrides) - set(fields))
        if unknown:
            raise UsageError(
                f"{self.name} has no option {', '.join(map(repr, unknown))}; its options are {', '.join(fields)}."
            )
        types = types_of(type(self.config))
        values = {key: checked(key, value, types[key]) for key, value in overrides.items()}
        for key, value in values.items():
            check_range(key, value)
        return dataclasses.replace(self.config, **values)


def register(
    *,
    family: str,
    config: Any,
    aliases: Iterable[str] = (),
    needs_weights: bool = True,
    fetch: Callable[..., dict[str, Tensor]] | None = None,
) -> Callable[[Maker], Maker]:
    """Register the decorated maker, a function from a configuration to a module, as an architecture.

    The architecture gets the maker's name, with hyphens for underscores, and the first line of its docstring as a
    summary. The arguments are those of :class:`Architecture`.
    """

    def decorate(build: Maker) -> Maker:
        name = build.__name__.replace("_", "-")
        if name in _ARCHITECTURES:
            raise ValueError(f"{name} is registered twice")
        _ARCHITECTURES[name] = Architecture(name, family, config, build, tuple(aliases), needs_weights, fetch)
        return build

    return decorate


def register_prefix(prefix: str) -> Callable[[Callable[[str], Architecture]], Callable[[str], Architecture]]:
    """Register the decorated function as the resolver of all other names that begin with ``prefix``.

    A resolver takes the whole name and returns its :class:`Architecture`, or raises :class:`UnknownModelError`.
    """

    def decorate(resolve: Callable[[str], Architecture]) -> Callable[[str], Architecture]:
        _PREFIXES[prefix] = resolve
        return resolve

    return decorate


@functools.cache
def architectures() -> dict[str, Architecture]:
    """Return all registered architectures by name, in alphabetical order."""
    package = importlib.import_module("partzoo.models")
    for module in pkgutil.walk_packages(package.__path__, "partzoo.models."):
        importlib.import_module(module.name)
    return dict(sorted(_ARCHITECTURES.items()))


def aliases() -> dict[str, str]:
    """Return all aliases with the architectures they name: ``{"part-vitt": "part-vitt8", ...}``."""
    return {alias: entry.name for entry in architectures().values() for alias in entry.aliases}


def split_tag(name: str) -> tuple[str, str | None]:
    """Split ``"part-vitt8.tin"`` into ``("part-vitt8", "tin")``; the tag is None if the name has none."""
    architecture, _, tag = name.partition(".")
    return architecture, tag or None


def find(name: str) -> Architecture:
    """Find an architecture by its name, with or without a tag, or by an alias of it or of its weights.

    Raises:
        UnknownModelError: the name is unknown; the message suggests the closest names.
    """
    known = architectures()
    plain, _ = split_tag(name)
    plain = aliases().get(plain, plain)
    for prefix, resolve in _PREFIXES.items():
        if plain not in known and name.startswith(prefix):
            return resolve(name)
    if plain not in known:  # only now: an alias of weights needs the manifest
        plain, _ = split_tag(full_name(name))
    if plain not in known:
        raise UnknownModelError(unknown(name))
    return known[plain]


def records_of(name: str, architecture: str) -> list[WeightRecord]:
    """Return the released weights of an architecture that a name selects: by tag or alias, or else all of them."""
    records = [record for record in manifest().values() if record.architecture == architecture]
    if named := [record for record in records if record.alias == name]:
        return named
    tag = split_tag(name)[1]
    return [record for record in records if tag in (None, split_tag(record.name)[1])]


def stored_architecture(name: str, config: dict[str, Any], where: str) -> Architecture:
    """Find the architecture that a file names, and check the configuration in the file, before anything is built.

    Args:
        name: name of the architecture.
        config: values of its configuration.
        where: name of the file in the message.

    Raises:
        WeightsError: the name is unknown, or a value is unknown, of another type or out of range.
    """
    try:
        entry = find(name)
        entry.configure(config)
    except UsageError as error:
        raise WeightsError(f"{where}: {error}") from error
    return entry


def unknown(name: str) -> str:
    """Return the error message for an unknown name, with the closest known names."""
    known = [*architectures(), *aliases(), *short_names(), *manifest()]
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    return f"Unknown model {name!r}.{hint} See partzoo.list_models()."


def list_models(filter: str = "*", *, family: str | None = None, pretrained: bool = False) -> list[str]:
    """Return the sorted names of models.

    Args:
        filter: pattern with wildcards, for example ``"part-*"`` or ``"*.tin"``.
        family: ``"part"``, ``"partformer"``, ``"mpae"``, ``"spatial"``, ``"foreground"`` or ``"encoder"``; None lists
            all families.
        pretrained: whether to list, instead of architectures, what :func:`partzoo.load` can load with trained weights:
            partzoo's recorded weights, as ``architecture.tag``, whose files are on this machine or have a repository on
            the Hub (which is not asked), and architectures that need no weights. Weights that timm downloads from the
            Hub, such as those of ``"dinov2-vits14"``, have no record and are not listed.

    Returns:
        Names of architectures, or of weights with ``pretrained``.

    Raises:
        UsageError: the family is unknown.
    """
    return names_among(architectures(), filter, family, pretrained)


def names_among(
    known: Mapping[str, Architecture | Recorded], filter: str, family: str | None, pretrained: bool
) -> list[str]:
    """Return the names of :func:`list_models` for some architectures by name."""
    families = sorted({entry.family for entry in known.values()})
    if family is not None and family not in families:
        raise UsageError(f"Unknown family {family!r}; the families are {', '.join(families)}.")
    if pretrained:
        names = {name: record.architecture for name, record in manifest().items() if available(record)}
        names |= {name: name for name, entry in known.items() if not entry.needs_weights}
    else:
        names = {name: name for name in known}
    return sorted(
        name
        for name, architecture in names.items()
        if fnmatchcase(name, filter) and family in (None, known[architecture].family)
    )
