"""Find the kinds there are: drop-in files first, then the entry points that installed packages registered.

A drop-in is a file `my_kind.py` in a folder that `DRYDOCK_BLUEPRINTS` names; it defines one subclass of `Pool` or
`Builder`, and its kind is the file's name with "-" for "_". An entry point is a name in the group
`drydock.blueprints`. A kind that two places offer, or that cannot be loaded, is refused to whoever wants it, and those
places are told; all others can be used. Kinds are trusted code; they are loaded from nowhere else.
"""

import contextlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from .attributes import clean
from .blueprint import API, REQUIRED, Blueprint, Builder, Pool, Setting
from .errors import BlueprintError, ConfigError, listed, printable, quoted
from .masking import masked

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "drydock.blueprints"
FOLDERS = "DRYDOCK_BLUEPRINTS"

Result = TypeVar("Result")
KindClass = type[Pool] | type[Builder]


class FoundKind(NamedTuple):
    """One kind that somebody ships. `load()` imports it; what it raises is a `BlueprintError` that names the kind."""

    name: str
    origin: str  #: the distribution and its version, or the drop-in's path
    load: Callable[[], KindClass]


def find_kinds(environment: Mapping[str, str] = os.environ) -> dict[str, FoundKind]:
    """Every kind there is, by name, none of them imported."""
    found: dict[str, FoundKind] = {}
    for kind in (*_drop_ins(environment.get(FOLDERS, "")), *_entry_points()):
        other = found.get(kind.name)
        if other is not None and other.origin != kind.origin:
            # Neither is preferred: which code runs must not depend on the order of folders.
            kind = _refused(kind.name, (both := f"{other.origin} and {kind.origin}"), f"two places offer it: {both}")
        found[kind.name] = kind
    return found


def describe_kinds(environment: Mapping[str, str] = os.environ) -> list[dict[str, Any]]:
    """Every kind as `drydock blueprints --kinds` tells it: kind, origin, type, summary, settings, error."""
    described = []
    for found in find_kinds(environment).values():
        entry: dict[str, Any] = {
            "kind": found.name,
            "origin": found.origin,
            "type": None,
            "summary": "",
            "settings": {},
        }
        try:
            kind = found.load()
        except BlueprintError as error:
            entry["error"] = str(error)
        else:
            settings = {name: _described(setting) for name, setting in kind.settings_schema.items()}
            entry |= {"type": kind.type, "summary": kind.summary, "settings": settings, "error": None}
        described.append(entry)
    return described


def _described(setting: Setting) -> dict[str, Any]:
    required = setting.default is REQUIRED
    default = {} if required else {"default": setting.default}
    return {"type": setting.type.__name__, "help": setting.help, "required": required, **default}


def load_kind(name: str, environment: Mapping[str, str] = os.environ) -> KindClass:
    """The class of the kind `name`. Raises `ConfigError` if there is none."""
    kinds = find_kinds(environment)
    if name not in kinds:
        raise ConfigError(f"no kind {quoted(name)} is installed; there are: {listed(sorted(kinds))}")
    return kinds[name].load()


def make(kind: KindClass, name: str, settings: Mapping[str, Any], source: Mapping[str, Any] | None) -> Pool | Builder:
    """The blueprint `name` of this kind; what its constructor raises is a `BlueprintError`."""
    return _guarded(name, "__init__", lambda: kind(name, settings, source))


def checked_settings(kind: type[Blueprint], given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`given` with defaults filled in. Raises `ConfigError` for a setting that is unknown, missing or of another type."""
    for name in given:
        if name not in kind.settings_schema:
            known = listed(sorted(kind.settings_schema), most=20)
            raise ConfigError(f"{where}: unknown setting {quoted(name)}; this kind has: {known}")
    return {name: _setting(given, name, setting, where) for name, setting in kind.settings_schema.items()}


def describe(error: BaseException, longest: int = 2000) -> str:
    """The class and message of an author's exception, even if its own `__str__` fails; without what is secret."""
    try:
        text = str.__str__(str(error))
    except BaseException:  # noqa: BLE001 - it is the author's __str__ that we guard against
        return f"<unprintable {type(error).__name__}>"
    return f"{type(error).__name__}: {masked(text[:longest])}" if text else type(error).__name__


def _setting(given: Mapping[str, Any], name: str, setting: Setting, where: str) -> Any:
    if name not in given:
        if setting.default is REQUIRED:
            raise ConfigError(f"{where}: missing setting {quoted(name)} ({setting.help})")
        return setting.default
    value = given[name]
    wanted = (int, float) if setting.type is float else setting.type
    if not isinstance(value, wanted) or (isinstance(value, bool) and setting.type is not bool):
        raise ConfigError(f"{where}: {quoted(name)} must be of type {setting.type.__name__}, not {quoted(value)}")
    return value


def _drop_ins(folders: str) -> Iterator[FoundKind]:
    for folder in filter(None, folders.split(os.pathsep)):
        for path in sorted(Path(folder).glob("*.py")):
            if not path.name.startswith("_"):
                name = path.stem.replace("_", "-")
                yield FoundKind(name, str(path), partial(_load_drop_in, name, path))


def _entry_points() -> Iterator[FoundKind]:
    from importlib.metadata import distributions, entry_points  # costs as much as click; only who needs a kind pays

    try:
        points = list(entry_points(group=GROUP))
    except Exception:  # noqa: BLE001 - one package's file cannot be read; the others' can
        points = []
        # As everywhere, the first of a name on the path is the one that counts.
        for package in {package.name: package for package in reversed(list(distributions()))}.values():
            try:
                points += package.entry_points.select(group=GROUP)
            except Exception as error:  # noqa: BLE001 - it may be anything that is in that file
                text = f"the entry points of {printable(package.name)} cannot be read: {describe(error)}"
                yield _refused(str(package.name), "an installed package", text)
    for point in points:
        yield FoundKind(point.name, _origin(point), partial(_load_entry_point, point))


def _origin(point: "EntryPoint") -> str:
    """Which package it is from, and which version of it, as far as that package says so."""
    try:
        return f"{point.dist.name} {point.dist.version}" if point.dist else point.value
    except Exception:  # noqa: BLE001 - a package without its metadata fails in its own way in each Python
        return point.value


def _refused(name: str, origin: str, why: str) -> FoundKind:
    """A kind that is there and cannot be used."""

    def load() -> KindClass:
        raise BlueprintError(name, "discovery", why)

    return FoundKind(name, origin, load)


def _load_entry_point(point: "EntryPoint") -> KindClass:
    return _checked(point.name, _guarded(point.name, "import", point.load))


def _load_drop_in(name: str, path: Path) -> KindClass:
    module_name = f"drydock_drop_in_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise BlueprintError(name, "import", f"cannot read {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    loader = spec.loader
    _guarded(name, "import", lambda: loader.exec_module(module))
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Blueprint) and value.__module__ == module_name
    ]
    if len(own) != 1:
        raise BlueprintError(name, "import", f"{path} must define one Blueprint, and defines {len(own)}")
    return _checked(name, own[0])


def _guarded(name: str, step: str, do: Callable[[], Result]) -> Result:
    # Foreign code must not be able to end the command, nor to write into its output.
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return do()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise BlueprintError(name, step, describe(error)) from error


def _checked(name: str, found: object) -> KindClass:
    if not isinstance(found, type) or not issubclass(found, Pool | Builder):
        raise BlueprintError(
            name, "import", f"{printable(found)} is not a subclass of drydock.blueprint.Pool or Builder"
        )
    required = "bindings" if issubclass(found, Pool) else "plans"
    if getattr(found, required) is getattr(Pool if issubclass(found, Pool) else Builder, required):
        raise BlueprintError(name, "import", f"{found.__name__} lacks the method {required}()")
    _check_card(name, found)
    return found


def _check_card(name: str, kind: KindClass) -> None:
    """Raise `BlueprintError` for a class attribute that does not say what it must: it would only be found much later."""
    api: object = kind.api
    if type(api) is not int or api != API:
        raise BlueprintError(name, "import", f"it speaks plugin API {printable(repr(api))}, this drydock {API}")
    schema = kind.settings_schema
    wrong = {
        "type": kind.type is not None and not isinstance(kind.type, str),
        "summary": not isinstance(kind.summary, str),
        "settings_schema": not isinstance(schema, Mapping) or not all(map(_is_setting, schema, schema.values())),
        "source_table": kind.source_table is not None and not isinstance(kind.source_table, str),
        "grace": not _is_seconds(kind.grace),
        "cooldown": not _is_seconds(kind.cooldown),
        "lifetime": kind.lifetime is not None and not (_is_seconds(kind.lifetime) and kind.lifetime > 0),
        "ttl": kind.ttl is not None and not _is_seconds(kind.ttl),
        "time_limit": not (_is_seconds(kind.time_limit) and kind.time_limit > 0),
        "observe_every": not (_is_seconds(kind.observe_every) and kind.observe_every > 0),
        "shares_bindings": not isinstance(kind.shares_bindings, bool),
        "per_lease": issubclass(kind, Builder) and not _are_names(kind.per_lease),
    }
    for attribute in filter(wrong.__getitem__, wrong):
        value = quoted(getattr(kind, attribute))
        raise BlueprintError(name, "import", f"{kind.__name__}.{attribute} may not be {value}; see drydock.blueprint")


def _is_setting(name: object, setting: object) -> bool:
    if not isinstance(name, str) or not isinstance(setting, Setting) or not isinstance(setting.help, str):
        return False
    try:
        default = None if setting.default is REQUIRED else clean(setting.default, "default")
    except ConfigError:
        return False
    known = setting.type in (list, str, int, float, bool, dict)
    return known and (default is None or isinstance(default, (int, float) if setting.type is float else setting.type))


def _are_names(value: object) -> bool:
    return isinstance(value, tuple | list) and all(isinstance(name, str) for name in value)


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
