"""A package with a kind of one's own, written from a template."""

import keyword
import re
import sys
from pathlib import Path

from . import blueprint
from .discovery import find_kinds
from .errors import ConfigError, Refused, StoreError, quoted

TEMPLATES = Path(__file__).parent / "templates"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", re.ASCII)
LONGEST = 40
#: classes that a template imports
TAKEN = {*blueprint.__all__, "ClassVar", "Iterator", "Path"}


def check_kind_name(name: str) -> None:
    """Raise `ConfigError` if no kind can have this name: it becomes that of a module, a class and a package too."""
    if not _NAME.fullmatch(name) or len(name) > LONGEST:
        raise ConfigError(
            f'a kind cannot be called {quoted(name)}; use up to {LONGEST} lower-case letters, digits and "-", as in usb-boards'
        )
    module, title = _spellings(name)
    if keyword.iskeyword(module) or module in (*sys.stdlib_module_names, "drydock") or title in TAKEN:
        raise ConfigError(
            f"a kind cannot be called {quoted(name)}, since Python or Drydock has that name already; add a word"
        )
    there = find_kinds().get(name)
    if there is not None:
        raise ConfigError(f"there is a kind {quoted(name)} already, from {there.origin}; choose another name")


def write(template: str, name: str, target: Path) -> list[str]:
    """Write the package into `target`, which must be new or empty; returns the names of its files."""
    module, title = _spellings(name)
    written = []
    try:
        if (target.is_symlink() or target.exists()) and not (target.is_dir() and not any(target.iterdir())):
            raise Refused(f"{quoted(target)} is not an empty folder; choose another one with --folder")
        target.mkdir(parents=True, exist_ok=True)
        for source in sorted((TEMPLATES / template).iterdir()):
            if source.is_file():
                text = source.read_text().replace("my-kind", name).replace("my_kind", module).replace("MyKind", title)
                file = source.name.replace("my_kind", module)
                with (target / file).open("x") as out:
                    out.write(text)
                written.append(file)
    except OSError as error:
        raise StoreError(f"cannot write to {quoted(target)}: {error.strerror or error}") from error
    return written


def _spellings(name: str) -> tuple[str, str]:
    """The names of its module and of its class."""
    return name.replace("-", "_"), "".join(part.capitalize() for part in name.split("-"))
