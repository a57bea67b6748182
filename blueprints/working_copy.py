"""`working-copy`: clones of git repositories, built on hosts that are leased for them.

    [blueprint.sources]
    kind = "working-copy"
    repositories = { app = "https://git.example.org/app.git", docs = "git@git.example.org:docs.git" }
    root = "/srv/copies"       # on the host; must hold a file .drydock-root, which says that we may delete things there
    host = { type = "host", blueprints = ["lab"], attributes = { arch = "arm64" } }
    limit = 4

A lease asks for what must be there, `--attributes '{"repository.app": true}'`, or for just that and nothing else,
`'{"repositories": ["app", "docs"]}'`; who asks for nothing gets any copy, or the first repository by name. It says what
is to be checked out, `"ref": "main"` or `"ref": {"app": "v1.2", "docs": "main"}`: a branch, a tag, a commit, or a full
name such as `refs/pull/7/head`; else it is the origin's default branch. The repository `app` is in the folder `app` of
the copy, which is the attribute `path` and where commands run; its HEAD is detached.

Nothing of a holder's is left for the next: the folder is made new for each lease, from packs that are kept beside it
and checked (`working_copy.sh` says how). Filters such as LFS's are not run, and submodules are left alone: who wants
them says `git lfs pull` or `git submodule update --init`. Whoever shares the host's account may change what is being
made while it is made, and whoever may write into our state folder may do as they like, as with Drydock's own store.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from drydock.blueprint import (
    Attributes,
    Builder,
    CommandFailed,
    ConfigError,
    Interface,
    LeaseInfo,
    Need,
    Plan,
    Refused,
    ResourceInfo,
    Setting,
    Support,
    check_name,
    check_text,
    listed,
    quoted,
    run_on,
    slot_lock,
)

MARKER = ".drydock-root"
MOST_COPIES = 1000
HAS = "repository."  #: before a repository's name, the attribute that says that it is there
NONE = "-"  #: for working_copy.sh, which no ref or seal looks like
ITS_OWN_FAILURE = 3  #: the exit code of working_copy.sh when it says why, in a sentence
SCRIPT = Path(__file__).with_suffix(".sh")

_URL = re.compile(r"(?:(https?|git|file)://|ssh://(?:[\w.+-]+@)?)([^/@]*)/.+", re.ASCII)
_SCP = re.compile(r"(?:\w[\w.+-]*@)?[\w\[][\w.\]-]*:[^:-].*", re.ASCII)
_NOT_IN_A_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|$)")
_SEAL = re.compile(r"[0-9a-f.]+")


class WorkingCopy(Builder):
    """Copies `copy-0`, `copy-1` ...; the slot lock of one is `working-copy(BLUEPRINT/copy-N)`."""

    type = "working-copy"
    summary = "clones of git repositories on a leased host, clean for each lease"
    settings_schema = {
        "repositories": Setting(dict, "the URL of each repository, by name"),
        "root": Setting(str, f"the parent folder on the host, absolute; must hold a file {MARKER}"),
        "host": Setting(dict, "what a copy is built on: type, blueprints, attributes", {}),
        "clone_seconds": Setting(int, "how long one clone or fetch may take", 900),
    }
    per_lease = ("ref",)
    time_limit = 86_400.0  # clone_seconds is what limits

    def check(self) -> None:
        names = [check_name(name, "repository") for name in self._urls()]
        if not names:
            raise ConfigError('"repositories" must name at least one')
        for name in names:
            if any(other != name and other.lower() == name.lower() for other in names):
                raise ConfigError(f"repository {quoted(name)}: another one differs only by case")
            check_url(self._urls()[name], f"repository {quoted(name)}")
        root = self.settings["root"]
        check_text(root, '"root"', longest=1000)
        if not root.startswith("/") or ".." in PurePosixPath(root).parts:
            raise ConfigError(f'"root" must be an absolute path without "..", not {quoted(root)}')
        if self.settings["clone_seconds"] < 1:
            raise ConfigError('"clone_seconds" must be at least 1')
        self._need()

    def plans(self, wanted: Attributes) -> Iterator[Plan]:
        check_refs(wanted.get("ref"))
        repositories = self._repositories(wanted)
        if not repositories:
            return
        need = self._need()
        for number in range(MOST_COPIES):
            name = f"copy-{number}"
            path = self._path(name)
            if wanted.get("path", path) == path:
                attributes = {"path": path, "repositories": repositories, **{HAS + one: True for one in repositories}}
                yield Plan(name, (slot_lock("working-copy", f"{self.name}/{name}"),), attributes, on=need)

    def activate(self, resource: ResourceInfo) -> None:
        self._make("build", resource, {})

    def destroy(self, resource: ResourceInfo) -> None:
        if resource.on is not None and resource.on.interface is not None:  # else nothing was ever built
            self._run("remove", resource)
        self._seals(resource).unlink(missing_ok=True)

    def interface(self, resource: ResourceInfo) -> Interface:
        return self._host(resource)._replace(folder=self._path(resource.name))

    def activate_lease(self, resource: ResourceInfo, lease: LeaseInfo) -> None:
        self._make("hand-over", resource, self._refs(resource, lease.attributes))

    def destroy_lease(self, resource: ResourceInfo, lease: LeaseInfo) -> None:
        self._run("clean", resource)

    # ---- what is wanted

    def _urls(self) -> Mapping[str, str]:
        urls: Mapping[str, str] = self.settings["repositories"]
        return urls

    def _need(self) -> Need:
        host = self.settings["host"]
        for key in host:
            if key not in Need._fields:
                raise ConfigError(f'"host": unknown key {quoted(key)}; known keys: {listed(Need._fields)}')
        blueprints, attributes = host.get("blueprints", []), host.get("attributes", {})
        if not isinstance(blueprints, list | tuple) or not isinstance(attributes, Mapping):
            raise ConfigError('"host": "blueprints" must be a list and "attributes" a table')
        names = tuple(check_name(name, '"host": blueprint') for name in blueprints)
        return Need(check_name(host.get("type", "host"), '"host": type'), attributes, names)

    def _repositories(self, wanted: Attributes) -> list[str]:
        """Which repositories a copy for `wanted` has; none if there is no such copy."""
        if "repositories" in wanted:
            asked = wanted["repositories"]
            if not isinstance(asked, list | tuple) or not all(isinstance(name, str) for name in asked):
                raise ConfigError(f'"repositories" must be a list of names, not {quoted(asked)}')
            if list(asked) != sorted(set(asked)):
                raise ConfigError(f'"repositories" must be in order and each named once: {listed(sorted(set(asked)))}')
        else:
            asked = sorted(key.removeprefix(HAS) for key in wanted if key.startswith(HAS)) or sorted(self._urls())[:1]
        has = {HAS + name: True for name in asked}
        for key, value in wanted.items():
            if key not in ("repositories", "path", *self.per_lease) and has.get(key) is not value:
                return []
        return list(asked) if set(asked) <= self._urls().keys() else []

    def _refs(self, resource: ResourceInfo, wanted: Attributes) -> Mapping[str, str]:
        """The ref of each repository for which one was asked for."""
        refs = check_refs(wanted.get("ref"))
        if not isinstance(refs, str):
            there = resource.attributes["repositories"]
            for name in refs:
                if name not in there:
                    raise ConfigError(f'"ref": this copy has no repository {quoted(name)}; it has {listed(there)}')
            return refs
        # One ref is meant for what was asked for: the copy may have more, in which it need not be.
        asked = wanted.get("repositories") or [key.removeprefix(HAS) for key in wanted if key.startswith(HAS)]
        return dict.fromkeys(asked or resource.attributes["repositories"], refs)

    # ---- on the host

    def _make(self, verb: str, resource: ResourceInfo, refs: Mapping[str, str]) -> None:
        seals, words = self._read_seals(resource), []
        for name in resource.attributes["repositories"]:
            if name not in self._urls():
                raise Refused(f"{quoted(self.name)} has no repository {quoted(name)} any more")
            words += [name, self._urls()[name], refs.get(name, NONE), seals.get(name, NONE)]
        made = self._run(verb, resource, *words, repositories=len(words) // 4)
        lines = (line.split(" ") for line in made.decode().splitlines())
        self._write_seals(resource, {line[0]: line[1] for line in lines if len(line) == 2})

    def _run(self, verb: str, resource: ResourceInfo, *words: str, repositories: int = 1) -> bytes:
        argv = ["sh", "-s", "--", verb, self._root(), self._folder(resource.name), *words]
        seconds = self.settings["clone_seconds"] * repositories
        try:
            return run_on(self._host(resource), argv, input=SCRIPT.read_bytes(), seconds=seconds)
        except CommandFailed as error:
            if error.code == ITS_OWN_FAILURE:
                raise Refused(f"{error.said} ({error.where})") from error
            raise

    def _host(self, resource: ResourceInfo) -> Interface:
        host: Support | None = resource.on
        if host is None:
            raise Refused(f"{quoted(resource.name)} has no host to stand on")
        if host.interface is None:
            raise Refused(f"no command can be run on {quoted(host.name)}: its blueprint says no way there")
        return host.interface

    def _root(self) -> str:
        return str(PurePosixPath(self.settings["root"]))

    def _folder(self, name: str) -> str:
        # Of one plain part, worked out from names: attributes are data, and never a path to delete.
        return f"{check_name(self.name, 'blueprint')}.{check_name(name, 'copy')}"

    def _path(self, name: str) -> str:
        return f"{self._root()}/{self._folder(name)}"

    # ---- what the packs that are kept must be to be ours: known here, where no holder on another host can write

    def _seals(self, resource: ResourceInfo) -> Path:
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        return Path(state, "drydock", "working-copy", self._folder(resource.name))

    def _read_seals(self, resource: ResourceInfo) -> dict[str, str]:
        """Without them, on another machine or after a crash, all that was kept is checked by its content."""
        try:
            read: Any = json.loads(self._seals(resource).read_text())
        except (OSError, ValueError):
            return {}
        seals = read.items() if isinstance(read, dict) else ()
        return {name: seal for name, seal in seals if isinstance(seal, str) and _SEAL.fullmatch(seal)}

    def _write_seals(self, resource: ResourceInfo, seals: Mapping[str, str]) -> None:
        path = self._seals(resource)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = path.with_name(f"{path.name}.{os.getpid()}")
        new.write_text(json.dumps(seals))
        new.replace(path)


def check_url(value: object, where: str) -> str:
    """`value` if git may be told to clone it: with no transport that runs a command, no option, no password to show."""
    url = check_text(value, f"{where}: URL", longest=1000)
    if url.startswith("/"):
        return url
    if " " in url or "::" in url:
        raise ConfigError(f'{where}: URL {quoted(url)} may have no space and no "::"')
    found = _URL.fullmatch(url)
    if "://" in url and found is None:
        if "@" in url.split("://")[1].split("/")[0]:
            raise ConfigError(
                f"{where}: a URL may hold no user or password here; give git on the host a credential helper"
            )
        raise ConfigError(f"{where}: not a URL that may be cloned: {quoted(url)}; use https, ssh, git, file or http")
    if found and (found[2].startswith("-") or (not found[2] and found[1] != "file")):
        raise ConfigError(f"{where}: not the name of a host in {quoted(url)}")
    if found is None and _SCP.fullmatch(url) is None:
        raise ConfigError(f"{where}: not a URL, an absolute path or HOST:PATH: {quoted(url)}")
    return url


def check_refs(value: object) -> str | Mapping[str, str]:
    """What was asked for as `ref`: one for all, or one for each repository by name."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return {check_name(name, '"ref"'): check_ref(ref) for name, ref in value.items()}
    return check_ref(value)


def check_ref(value: object) -> str:
    """`value` if git would let it name a branch, a tag or a commit."""
    if not isinstance(value, str) or not 1 <= len(value.encode("utf-8", "replace")) <= 255 or not value.isprintable():
        raise ConfigError(f'"ref" must be the name of a branch, a tag or a commit, not {quoted(value)}')
    if value[0] in "-./" or value[-1] in "./" or value in ("@", "HEAD") or _NOT_IN_A_REF.search(value):
        raise ConfigError(f'"ref": {quoted(value)} is not a name that git allows for a branch, a tag or a commit')
    return value
