"""Working copies, hook by hook, with the real git: here, and on a host behind a real ssh server."""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from drydock_blueprints.working_copy import MARKER, SCRIPT, WorkingCopy, check_ref, check_url

from drydock.blueprint import (
    CommandFailed,
    ConfigError,
    Interface,
    LeaseInfo,
    Local,
    Plan,
    Refused,
    ResourceInfo,
    Support,
    fits,
)
from drydock.testing.poison import git, picture, plant, same_tree

pytestmark = pytest.mark.usefixtures("path")

NOBODY = 65534


@pytest.fixture(autouse=True)
def _git_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The git of the tests themselves has no configuration of whoever runs them."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


class Origin:
    """A repository that copies are made of."""

    def __init__(self, path: Path) -> None:
        self.path = path
        git(path.parent, "init", "-q", "-b", "main", path.name)

    def commit(self, **files: str) -> str:
        """Commit files; `__` in a name is a slash."""
        for name, text in files.items():
            file = self.path / name.replace("__", "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        git(self.path, "add", "-A")
        git(self.path, "commit", "-q", "-m", "a commit")
        return self.head()

    def head(self) -> str:
        return git(self.path, "rev-parse", "HEAD")


class Yard(NamedTuple):
    """What a test of the hooks has: two origins, an empty root, and a copy of the first origin to be built there."""

    folder: Path
    root: Path
    interface: Interface
    a: Origin
    b: Origin

    def kind(self, **settings: Any) -> WorkingCopy:
        repositories = {"a": str(self.a.path), "b": str(self.b.path)}
        given = {"repositories": repositories, "root": str(self.root), "host": {}, "clone_seconds": 60, **settings}
        kind = WorkingCopy("src", given)
        kind.check()
        return kind

    def resource(self, kind: WorkingCopy, **wanted: Any) -> ResourceInfo:
        plan = next(iter(kind.plans(wanted)))
        return ResourceInfo(1, plan.name, "working-copy", plan.attributes, Support("h1", "host", {}, self.interface))

    @property
    def copy(self) -> Path:
        return self.root / "src.copy-0"

    @property
    def kept(self) -> Path:
        return self.root / ".src.copy-0"

    @property
    def tree(self) -> Path:
        return self.copy / "a"


def a_yard(folder: Path, interface: Interface) -> Yard:
    root = folder / "root"
    root.mkdir()
    (root / MARKER).touch()
    yard = Yard(folder, root, interface, Origin(folder / "a"), Origin(folder / "b"))
    yard.a.commit(readme="a\n", src__run="#!/bin/sh\necho run\n", **{".gitignore": "*.o\n"})
    (yard.a.path / "src/run").chmod(0o755)
    (yard.a.path / "link").symlink_to("readme")
    yard.a.commit()
    yard.b.commit(readme="b\n")
    return yard


@pytest.fixture
def here(tmp_path: Path) -> Yard:
    return a_yard(tmp_path, Local())


@pytest.fixture(params=["here", "over ssh"])
def yard(request: pytest.FixtureRequest, tmp_path: Path) -> Yard:
    there = Local() if request.param == "here" else request.getfixturevalue("sshd").interface()
    return a_yard(tmp_path, there)


def lease(**wanted: Any) -> LeaseInfo:
    return LeaseInfo(1, "t", wanted, 1)


# ---- what a lease gets


def test_a_lease_gets_the_default_branch_and_leaves_nothing_when_all_is_torn_down(yard: Yard) -> None:
    """S75, the copy's own part."""
    kind = yard.kind()
    resource = yard.resource(kind)
    kind.activate(resource)
    kind.activate_lease(resource, lease())
    assert kind.interface(resource) == yard.interface._replace(folder=str(yard.copy))
    assert resource.attributes["path"] == str(yard.copy)
    assert git(yard.tree, "rev-parse", "HEAD") == yard.a.head()
    assert git(yard.tree, "status", "--porcelain", "--ignored") == ""
    assert (yard.tree / "readme").read_text() == "a\n"
    assert (yard.tree / "link").readlink() == Path("readme")
    assert os.access(yard.tree / "src/run", os.X_OK)
    assert [path.name for path in yard.copy.iterdir()] == ["a"]
    kind.destroy_lease(resource, lease())
    assert not yard.copy.exists()
    kind.destroy(resource)
    assert [path.name for path in yard.root.iterdir()] == [MARKER]


def test_the_holder_can_fetch_commit_and_push(here: Yard) -> None:
    kind = here.kind()
    resource = here.resource(kind)
    kind.activate(resource)
    kind.activate_lease(resource, lease())
    new = here.a.commit(more="more\n")
    git(here.tree, "fetch", "-q")
    git(here.tree, "switch", "-q", "main")
    git(here.tree, "merge", "-q", "--ff-only", "origin/main")
    assert git(here.tree, "rev-parse", "HEAD") == new
    assert git(here.tree, "symbolic-ref", "refs/remotes/origin/HEAD") == "refs/remotes/origin/main"
    git(here.tree, "commit", "-q", "--allow-empty", "-m", "theirs")
    git(here.tree, "push", "-q", "origin", "HEAD:refs/heads/theirs")
    assert git(here.a.path, "rev-parse", "theirs") == git(here.tree, "rev-parse", "HEAD")


def test_every_way_to_name_a_commit(here: Yard) -> None:
    """S100: checking out a commit does not move a branch. A branch is preferred to a tag of the same name."""
    first = here.a.head()
    git(here.a.path, "tag", "plain")
    git(here.a.path, "tag", "-m", "words", "v1.0")
    second = here.a.commit(more="two\n")
    git(here.a.path, "branch", "topic/deep")
    git(here.a.path, "branch", "v1.0", second)
    third = here.a.commit(more="three\n")
    git(here.a.path, "update-ref", "refs/pull/7/head", git(here.a.path, "commit-tree", f"{first}^{{tree}}", "-m", "x"))
    pull = git(here.a.path, "rev-parse", "refs/pull/7/head")
    kind = here.kind()
    resource = here.resource(kind)
    kind.activate(resource)
    refs = {
        "main": third, "plain": first, "topic/deep": second, first: first, second[:10]: second, "v1.0": second,
        "refs/tags/v1.0": first, "refs/heads/v1.0": second, "refs/pull/7/head": pull, pull: pull,
    }  # fmt: skip
    for ref, commit in refs.items():
        kind.activate_lease(resource, lease(ref=ref))
        assert git(here.tree, "rev-parse", "HEAD") == commit, ref
        assert git(here.tree, "rev-parse", "--symbolic-full-name", "HEAD") == "HEAD", "it is detached"
        assert git(here.tree, "for-each-ref", "--format=%(refname)", "refs/heads") == ""
        assert git(here.tree, "rev-parse", "origin/main") == third


def test_each_repository_has_a_ref_of_its_own(here: Yard) -> None:
    """One ref for all is meant for what was asked for, since the copy may have more."""
    old_a, old_b = here.a.head(), here.b.head()
    git(here.a.path, "tag", "only-a")
    new_a, new_b = here.a.commit(more="a\n"), here.b.commit(more="b\n")
    kind = here.kind()
    resource = here.resource(kind, repositories=["a", "b"])
    kind.activate(resource)

    def heads(**wanted: Any) -> tuple[str, str]:
        kind.activate_lease(resource, lease(**wanted))
        return git(here.copy / "a", "rev-parse", "HEAD"), git(here.copy / "b", "rev-parse", "HEAD")

    assert heads() == (new_a, new_b)
    assert heads(ref="main") == (new_a, new_b)
    assert heads(ref={"a": "only-a", "b": old_b}) == (old_a, old_b)
    assert heads(ref={"b": old_b}) == (new_a, old_b)
    assert heads(ref="only-a", **{"repository.a": True}) == (old_a, new_b)
    with pytest.raises(Refused, match='repository "b" has no ref "only-a"'):
        heads(ref="only-a", repositories=["a", "b"])
    with pytest.raises(ConfigError, match='this copy has no repository "c"; it has "a", "b"'):
        heads(ref={"c": "main"})


def test_an_empty_repository_works(yard: Yard) -> None:
    """S100. What is committed there later is seen."""
    empty = Origin(yard.folder / "empty")
    kind = yard.kind(repositories={"a": str(empty.path)})
    resource = yard.resource(kind)
    kind.activate(resource)
    kind.activate_lease(resource, lease())
    assert [path.name for path in yard.tree.iterdir()] == [".git"]
    with pytest.raises(Refused, match='repository "a" has no ref "main"'):
        kind.activate_lease(resource, lease(ref="main"))
    commit = empty.commit(readme="first\n")
    kind.activate_lease(resource, lease())
    assert git(yard.tree, "rev-parse", "HEAD") == commit


@pytest.mark.parametrize("ref", ["nope", "0" * 40, "abcdef0", "refs/pull/9/head", "refs/heads/nope", "refs/tags/nope"])
def test_an_unknown_ref_is_told_in_a_sentence(here: Yard, ref: str) -> None:
    kind = here.kind()
    resource = here.resource(kind)
    kind.activate(resource)
    with pytest.raises(Refused) as caught:
        kind.activate_lease(resource, lease(ref=ref))
    assert str(caught.value) == f'repository "a" has no ref "{ref}" (here)'


def test_an_origin_that_is_not_there_is_told_in_a_sentence(yard: Yard) -> None:
    kind = yard.kind(repositories={"a": str(yard.folder / "nowhere")})
    with pytest.raises(Refused, match=r'repository "a": git fetch failed: .*nowhere'):
        kind.activate(yard.resource(kind))


def test_a_host_without_git_is_told_in_a_sentence(here: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = here.folder / "bin"
    programs.mkdir()
    for name in ("sh", "dirname", "rm", "find", "mkdir", "chmod", "printf"):
        (programs / name).symlink_to(shutil.which(name) or name)
    monkeypatch.setenv("PATH", str(programs))
    kind = here.kind()
    with pytest.raises(Refused, match="git is not installed there"):
        kind.activate(here.resource(kind))


def test_an_origin_that_never_answers_costs_no_more_than_its_time(here: Yard) -> None:
    """S35: the limit is the pool file's, and nothing is left that waits."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"git://127.0.0.1:{silent.getsockname()[1]}/a"
        kind = here.kind(repositories={"a": url}, clone_seconds=1)
        resource = here.resource(kind)
        with pytest.raises(CommandFailed, match="it took longer than 1s"):
            kind.activate(resource)
        at_work = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        assert url not in at_work
        kind.destroy(resource)
    assert [path.name for path in here.root.iterdir()] == [MARKER]


def test_what_git_is_told_by_the_environment_is_not_meant_for_us(here: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drydock may be started by a hook of git's, which says where that repository is."""
    before = picture(here.b.path)
    for name, value in {
        "GIT_DIR": here.b.path / ".git", "GIT_WORK_TREE": here.b.path, "GIT_INDEX_FILE": here.b.path / ".git/index",
        "GIT_OBJECT_DIRECTORY": here.b.path / ".git/objects", "GIT_CONFIG_COUNT": "broken", "GIT_NAMESPACE": "x",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))
    kind = here.kind()
    resource = here.resource(kind)
    kind.activate(resource)
    kind.activate_lease(resource, lease())
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_CONFIG_COUNT"):
        monkeypatch.delenv(name)
    assert git(here.tree, "rev-parse", "HEAD") == here.a.head()
    assert picture(here.b.path) == before


def test_what_the_account_has_git_do_is_not_done_here(here: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody may have configured git for all repositories of the account: hooks, fsmonitor, filters, a template."""
    here.a.commit(**{".gitattributes": "* filter=planted\n"})
    ran = here.folder / "ran"
    hooks = here.folder / "template" / "hooks"
    hooks.mkdir(parents=True)
    for name in ("post-checkout", "reference-transaction", "post-index-change"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {ran}\n")
        (hooks / name).chmod(0o755)
    configuration = here.folder / "gitconfig"
    configuration.write_text(
        f"[core]\n\thooksPath = {hooks}\n\tfsmonitor = {hooks}/post-checkout\n[init]\n\ttemplateDir = {hooks.parent}\n"
        f'[filter "planted"]\n\tsmudge = touch {ran}; cat\n\tclean = touch {ran}; cat\n'
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(configuration))
    kind = here.kind()
    resource = here.resource(kind)
    kind.activate(resource)
    kind.activate_lease(resource, lease())
    assert not ran.exists()
    assert not (here.tree / ".git" / "hooks").exists()


# ---- one holder after another


def a_link(place: Path, victim: Path) -> None:
    shutil.rmtree(place)
    place.symlink_to(victim)


def copy_is_a_link(yard: Yard) -> None:
    a_link(yard.copy, yard.folder / "victim")


def tree_is_a_link(yard: Yard) -> None:
    a_link(yard.tree, yard.folder / "victim")


def dot_git_is_a_link(yard: Yard) -> None:
    a_link(yard.tree / ".git", yard.folder / "victim")


def kept_is_a_link(yard: Yard) -> None:
    a_link(yard.kept, yard.folder / "victim")


def dot_git_is_a_file(yard: Yard) -> None:
    shutil.rmtree(yard.tree / ".git")
    (yard.tree / ".git").write_text(f"gitdir: {yard.b.path}/.git\n")


def copy_is_a_file(yard: Yard) -> None:
    shutil.rmtree(yard.copy)
    yard.copy.write_text("a file\n")


def kept_is_a_file(yard: Yard) -> None:
    shutil.rmtree(yard.kept)
    yard.kept.write_text("a file\n")


def all_is_gone(yard: Yard) -> None:
    shutil.rmtree(yard.copy)
    shutil.rmtree(yard.kept)


def outputs_are_links(yard: Yard) -> None:
    for name in ("out", "err"):
        (yard.kept / name).unlink(missing_ok=True)
        (yard.kept / name).symlink_to(yard.folder / "victim" / "file")


def nothing_more(yard: Yard) -> None:
    pass


@pytest.mark.parametrize("clean_up", [True, False], ids=["cleaned up", "after a crash"])
@pytest.mark.parametrize(
    "further",
    [nothing_more, copy_is_a_link, tree_is_a_link, dot_git_is_a_link, kept_is_a_link, dot_git_is_a_file, copy_is_a_file,
     kept_is_a_file, all_is_gone, outputs_are_links],
)  # fmt: skip
def test_a_poisoned_copy_gives_the_next_holder_the_same_tree_and_runs_nothing(
    here: Yard, further: Callable[[Yard], None], clean_up: bool
) -> None:
    """S100 and PLUGIN-074. Whether the last holder's end was seen, or a crash lies in between."""
    hand_over_the_poisoned(here, further, clean_up=clean_up)


def test_a_poisoned_copy_over_ssh(yard: Yard) -> None:
    hand_over_the_poisoned(yard, nothing_more, clean_up=True)


def hand_over_the_poisoned(yard: Yard, further: Callable[[Yard], None], *, clean_up: bool) -> None:
    victim = yard.folder / "victim"
    victim.mkdir()
    (victim / "file").write_text("precious\n")
    kind = yard.kind()
    resource = yard.resource(kind)
    kind.activate(resource)
    kind.activate_lease(resource, lease())
    before, origins = picture(yard.copy), (picture(yard.a.path), picture(yard.b.path))
    ran = plant(yard.tree, yard.folder, yard.b.path)
    further(yard)
    if clean_up:
        kind.destroy_lease(resource, lease())
        assert not os.path.lexists(yard.copy)
    kind.activate_lease(resource, lease())
    after = picture(yard.copy)
    if further in (kept_is_a_link, kept_is_a_file, all_is_gone):  # cloned again, so it may be packed in another way
        assert same_tree(after) == same_tree(before)
    else:
        assert after == before
    assert git(yard.tree, "fsck", "--full", "--strict") == ""
    assert git(yard.tree, "status", "--porcelain", "--ignored") == ""
    assert not ran.exists()
    assert (victim / "file").read_text() == "precious\n"
    assert (picture(yard.a.path), picture(yard.b.path)) == origins
    kind.destroy(resource)
    assert [path.name for path in yard.root.iterdir()] == [MARKER]
    assert [path.name for path in victim.iterdir()] == ["file"]


def test_what_is_planted_would_run(here: Yard) -> None:
    """The test above could fail: whoever runs git in the poisoned copy runs what is planted."""
    kind = here.kind()
    resource = here.resource(kind)
    kind.activate(resource)
    kind.activate_lease(resource, lease())
    ran = plant(here.tree, here.folder, here.b.path)
    (here.tree / ".git").chmod(0o700)
    for lock in (here.tree / ".git").glob("*.lock"):
        lock.unlink()
    git(here.folder, "config", "-f", str(here.tree / ".git/config"), "--unset", "core.worktree")
    subprocess.run(["git", "status"], cwd=here.tree, capture_output=True, check=False)
    assert ran.exists()


# ---- what is kept in between


def another_history(yard: Yard) -> tuple[Path, str]:
    """A pack that is whole in itself, with content that no origin has, and its tip."""
    other = Origin(yard.folder / "other")
    tip = other.commit(readme="forged\n", secret="forged\n")
    git(other.path, "repack", "-adq")
    return next((other.path / ".git/objects/pack").glob("*.pack")), tip


def pack_of_another(kept: Path, yard: Yard) -> None:
    pack, tip = another_history(yard)
    shutil.copy(pack, kept / "pack")
    shutil.copy(pack.with_suffix(".idx"), kept / "idx")
    (kept / "tips").write_text(f"{tip}\n")


def more_than_the_origin_has(kept: Path, yard: Yard) -> None:
    """All of the origin, and more, with an index that fits."""
    _, tip = another_history(yard)
    other = yard.folder / "other"
    git(other, "fetch", "-q", str(yard.a.path), "main:theirs")
    git(other, "repack", "-adq")
    pack = next((other / ".git/objects/pack").glob("*.pack"))
    shutil.copy(pack, kept / "pack")
    shutil.copy(pack.with_suffix(".idx"), kept / "idx")
    (kept / "tips").write_text(f"{tip}\n{yard.a.head()}\n")


def an_index_that_lies(kept: Path, yard: Yard) -> None:
    """It says of one object that it is where another one is."""
    idx = bytearray((kept / "idx").read_bytes())
    count = int.from_bytes(idx[8 + 255 * 4 : 8 + 256 * 4], "big")
    at = 8 + 256 * 4 + count * 24  # past the names and the checksums
    idx[at : at + 4], idx[at + 4 : at + 8] = idx[at + 4 : at + 8], idx[at : at + 4]
    (kept / "idx").write_bytes(idx)


def bytes_changed(kept: Path, yard: Yard) -> None:
    pack = bytearray((kept / "pack").read_bytes())
    pack[30] ^= 0xFF
    (kept / "pack").write_bytes(pack)


def cut_off(kept: Path, yard: Yard) -> None:
    os.truncate(kept / "pack", 40)


def a_pack_that_lacks_a_file(kept: Path, yard: Yard) -> None:
    """All the rest is there, and it says that nothing is missing."""
    objects = git(yard.a.path, "rev-list", "--objects", "--no-object-names", "HEAD").splitlines()
    objects.remove(git(yard.a.path, "rev-parse", "HEAD:readme"))
    listed = yard.folder / "objects"
    listed.write_text("\n".join(objects) + "\n")
    with listed.open() as names:
        subprocess.run(
            ["git", "pack-objects", "-q", str(yard.folder / "lacking")], cwd=yard.a.path, stdin=names, check=True
        )
    [pack] = yard.folder.glob("lacking-*.pack")
    shutil.copy(pack, kept / "pack")
    shutil.copy(pack.with_suffix(".idx"), kept / "idx")


def tips_that_are_not_there(kept: Path, yard: Yard) -> None:
    (kept / "tips").write_text(f"{'1' * 40}\n")


def tips_that_are_no_names(kept: Path, yard: Yard) -> None:
    (kept / "tips").write_text(f"{yard.a.head()} refs/heads/x\n-x\n$(touch {yard.folder}/ran)\n../../x\n")


def tips_that_are_expressions(kept: Path, yard: Yard) -> None:
    (kept / "tips").write_text(f"{yard.a.head()}^{{tree}}\n")


def a_pipe(kept: Path, yard: Yard) -> None:
    (kept / "pack").unlink()
    os.mkfifo(kept / "pack")


def a_folder(kept: Path, yard: Yard) -> None:
    (kept / "pack").unlink()
    (kept / "pack").mkdir()


def links(kept: Path, yard: Yard) -> None:
    for name in ("pack", "idx", "tips"):
        (kept / name).rename(yard.folder / name)
        (kept / name).symlink_to(yard.folder / name)


def one_missing(kept: Path, yard: Yard) -> None:
    (kept / "tips").unlink()


def unreadable(kept: Path, yard: Yard) -> None:
    (kept / "pack").chmod(0)
    kept.chmod(0)
    kept.parent.chmod(0)


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "on another machine"])
@pytest.mark.parametrize(
    "change",
    [pack_of_another, more_than_the_origin_has, an_index_that_lies, bytes_changed, cut_off, a_pack_that_lacks_a_file, tips_that_are_not_there,
     tips_that_are_no_names, tips_that_are_expressions, a_pipe, a_folder, links, one_missing, unreadable],
)  # fmt: skip
def test_whatever_becomes_of_what_is_kept_the_next_holder_has_what_the_origin_has(
    here: Yard, change: Callable[[Path, Yard], None], sealed: bool, tmp_path: Path
) -> None:
    """And nothing else: what somebody added is neither named nor kept. The next hand-over trusts what this one made."""
    kind = here.kind()
    resource = here.resource(kind)
    kind.activate(resource)
    kind.activate_lease(resource, lease())
    before = same_tree(picture(here.copy))
    kept = here.kept / "a"
    for name in ("pack", "idx"):
        (kept / name).chmod(0o600)
    change(kept, here)
    if not sealed:
        shutil.rmtree(tmp_path / "state" / "drydock" / "working-copy")
    for _ in range(2):
        kind.activate_lease(resource, lease())
        assert same_tree(picture(here.copy)) == before
        assert git(here.tree, "fsck", "--full", "--strict", "--unreachable") == ""
    assert not (here.folder / "ran").exists()
    kind.destroy(resource)
    assert [path.name for path in here.root.iterdir()] == [MARKER]


def test_what_is_kept_is_used_again_and_what_is_new_is_fetched(yard: Yard) -> None:
    """It is packed anew when what is fetched for each lease has become a good part of the whole."""
    (yard.a.path / "large").write_bytes(os.urandom(200_000))
    yard.a.commit()
    kind = yard.kind()
    resource = yard.resource(kind)
    kind.activate(resource)

    def written() -> tuple[int, int]:
        status = (yard.kept / "a" / "pack").stat()
        return status.st_ino, status.st_mtime_ns

    def handed_over() -> tuple[str, int, tuple[int, int]]:
        kind.activate_lease(resource, lease())
        packs = list((yard.tree / ".git/objects/pack").glob("*.pack"))
        return git(yard.tree, "rev-parse", "HEAD"), len(packs), written()

    first = written()
    assert handed_over() == (yard.a.head(), 1, first)
    yard.a.commit(small="new\n")
    assert handed_over() == (yard.a.head(), 2, first)
    (yard.a.path / "larger").write_bytes(os.urandom(100_000))
    yard.a.commit()
    head, packs, second = handed_over()
    assert (head, packs) == (yard.a.head(), 1)
    assert second != first
    assert handed_over() == (yard.a.head(), 1, second)


def test_machines_that_take_turns_trust_the_same(here: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has not sealed what is kept looks at its content, and lets it be if that is the origin's, however packed."""
    kind = here.kind()
    resource = here.resource(kind)
    kind.activate(resource)
    names = git(here.a.path, "rev-list", "--objects", "--no-object-names", "HEAD").splitlines()
    (here.folder / "names").write_text("\n".join(sorted(names)) + "\n")
    with (here.folder / "names").open() as given:
        packing = [
            "git",
            "-c",
            "pack.compression=0",
            "pack-objects",
            "-q",
            "--no-reuse-object",
            str(here.folder / "mine"),
        ]
        subprocess.run(packing, cwd=here.a.path, stdin=given, capture_output=True, check=True)
    [pack] = here.folder.glob("mine-*.pack")
    (here.kept / "a/pack").chmod(0o600)
    shutil.copy(pack, here.kept / "a" / "pack")
    seals = []
    for machine in ("first", "second"):
        monkeypatch.setenv("XDG_STATE_HOME", str(here.folder / machine))
        kind.activate_lease(resource, lease())
        seals.append((here.folder / machine / "drydock/working-copy/src.copy-0").read_text())
        assert (here.kept / "a" / "pack").read_bytes() == pack.read_bytes()
    assert seals[0] == seals[1]


def test_a_branch_that_is_gone_or_was_moved_back_at_the_origin_is_so_here(here: Yard) -> None:
    first = here.a.head()
    git(here.a.path, "branch", "doomed")
    git(here.a.path, "tag", "doomed")
    here.a.commit(more="more\n")
    kind = here.kind()
    resource = here.resource(kind)
    kind.activate(resource)
    git(here.a.path, "reset", "-q", "--hard", first)
    git(here.a.path, "branch", "-D", "doomed")
    git(here.a.path, "tag", "-d", "doomed")
    kind.activate_lease(resource, lease())
    assert git(here.tree, "show-ref") == f"{first} refs/remotes/origin/HEAD\n{first} refs/remotes/origin/main"


def test_hooks_may_be_repeated_from_wherever_they_were_cut_off(here: Yard) -> None:
    """Each hook runs, killed after some of its commands, and then again to its end."""
    kind = here.kind()
    resource = here.resource(kind)
    hooks: dict[str, Callable[[], None]] = {
        "build": lambda: kind.activate(resource), "hand-over": lambda: kind.activate_lease(resource, lease()),
        "clean": lambda: kind.destroy_lease(resource, lease()), "remove": lambda: kind.destroy(resource),
    }  # fmt: skip
    text = SCRIPT.read_text().replace('main "$@" </dev/null', "")
    #: each function of the script, and each git that it starts, is once the last thing that happens
    steps = ("open_root", "open_git", "take_kept", "keep", "check_out", "git_to_origin", "seal_of", "git_alone")
    words = ["a", str(here.a.path), "-", "-"]
    for verb, hook in hooks.items():
        for step in steps:
            body = text.replace(f"\n{step}() {{\n", f"\n{step}() {{\n    kill -9 $$\n")
            assert body != text
            argv = ["sh", "-s", "--", verb, str(here.root), "src.copy-0", *words]
            subprocess.run(argv, input=body + 'main "$@" </dev/null', text=True, capture_output=True, check=False)
            hook()
            if verb == "hand-over":
                assert git(here.tree, "rev-parse", "HEAD") == here.a.head()
                assert git(here.tree, "status", "--porcelain", "--ignored") == ""
        hook()
    assert [path.name for path in here.root.iterdir()] == [MARKER]


# ---- where it may delete


def test_a_root_that_is_not_ours_is_refused(yard: Yard) -> None:
    kind = yard.kind()
    resource = yard.resource(kind)
    (yard.copy).mkdir()
    (yard.root / MARKER).unlink()
    for hook in (kind.activate, kind.destroy):
        with pytest.raises(Refused, match=f"is not ours: it has no file {MARKER}"):
            hook(resource)
    assert yard.copy.is_dir()
    real = yard.root.rename(yard.folder / "real")
    (real / MARKER).touch()
    with pytest.raises(Refused, match="there is no folder"):
        kind.destroy(resource)
    yard.root.symlink_to(real)
    with pytest.raises(Refused, match="must not be a symbolic link"):
        kind.destroy(resource)
    yard.root.unlink()
    real.rename(yard.root)
    (yard.folder / MARKER).touch()
    with pytest.raises(Refused, match="lies inside another"):
        kind.destroy(resource)
    assert yard.copy.is_dir()


def test_what_its_owner_made_read_only_is_removed_all_the_same(here: Yard) -> None:
    """As somebody whom permissions stop, also where the tests run as root."""
    folder = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip())
    try:
        root = folder / "root"
        inner = root / "src.copy-0" / "closed" / "inner"
        inner.mkdir(parents=True)
        (root / ".src.copy-0").mkdir()
        (root / MARKER).touch()
        (inner / "file").touch()
        for path in (inner / "file", inner, inner.parent, inner.parent.parent, root / ".src.copy-0"):
            path.chmod(0)
        user = {}
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", str(NOBODY), str(folder)], check=True)
            user = {"user": NOBODY}
        argv = ["sh", "-s", "--", "remove", str(root), "src.copy-0"]
        subprocess.run(argv, input=SCRIPT.read_bytes(), check=True, **user)  # type: ignore[call-overload]
        assert [path.name for path in root.iterdir()] == [MARKER]
    finally:
        subprocess.run(["chmod", "-R", "u+rwx", str(folder)], check=True)
        shutil.rmtree(folder)


def test_without_a_host_nothing_is_built_and_nothing_is_torn_down(here: Yard) -> None:
    kind = here.kind()
    resource = here.resource(kind)
    for on in (None, Support("h1", "host", {}, None)):
        with pytest.raises(Refused, match=r"no host to stand on|no way there"):
            kind.activate(resource._replace(on=on))
        kind.destroy(resource._replace(on=on))


# ---- what may be asked for


def offered(kind: WorkingCopy, **wanted: Any) -> list[Plan]:
    about_resource = {name: value for name, value in wanted.items() if name not in kind.per_lease}
    plans = [plan for plan in kind.plans(wanted) if fits(plan.attributes, about_resource)]
    assert plans == list(kind.plans(wanted)), "every plan fits what was asked for"
    return plans


def test_a_copy_has_what_was_asked_for(here: Yard) -> None:
    """S101: a copy of {a, b} fits who needs a, unless he says that he wants just that."""
    kind = here.kind()
    [first, second, *rest] = offered(kind, **{"repository.b": True, "repository.a": True, "ref": "main"})
    assert len(rest) == 998
    assert (first.name, first.slot_locks[0].key) == ("copy-0", "working-copy(src/copy-0)")
    assert (second.name, second.slot_locks[0].key) == ("copy-1", "working-copy(src/copy-1)")
    both = {"path": str(here.copy), "repositories": ["a", "b"], "repository.a": True, "repository.b": True}
    assert first.attributes == both
    assert fits(both, {"repository.a": True})
    assert not fits(both, {"repositories": ["a"]})
    assert not fits(both, {"repository.c": True})
    assert offered(kind)[0].attributes["repositories"] == ["a"]
    assert offered(kind, repositories=["b"])[0].attributes["repositories"] == ["b"]
    assert offered(kind, repositories=["a", "b"], **{"repository.b": True})[0].attributes == both
    assert [plan.name for plan in offered(kind, path=str(here.root / "src.copy-7"))] == ["copy-7"]


@pytest.mark.parametrize(
    "wanted",
    [{"repository.c": True}, {"repository.a": False}, {"repository.a": 1}, {"repositories": ["c"]}, {"repositories": []},
     {"repositories": ["a"], "repository.b": True}, {"arch": "arm64"}, {"path": "/etc"}, {"repository.": True},
     {"repositories": ["../a"]}],
)  # fmt: skip
def test_what_no_copy_can_have_is_never_offered(here: Yard, wanted: dict[str, Any]) -> None:
    assert offered(here.kind(), **wanted) == []


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ({"repositories": "a"}, '"repositories" must be a list of names, not "a"'),
        ({"repositories": [7]}, '"repositories" must be a list of names'),
        ({"repositories": ["b", "a"]}, 'must be in order and each named once: "a", "b"'),
        ({"repositories": ["a", "a"]}, 'must be in order and each named once: "a"'),
        ({"ref": {"../x": "main"}}, "is not allowed"),
        ({"ref": {"a": "-x"}}, "not a name that git allows"),
        ({"ref": ["main"]}, "must be the name of a branch"),
        ({"ref": ""}, "must be the name of a branch"),
        ({"ref": 7}, "must be the name of a branch"),
    ],
)
def test_what_cannot_be_meant_is_refused_when_it_is_asked_for(
    here: Yard, wanted: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        list(here.kind().plans(wanted))


@pytest.mark.parametrize(
    "ref",
    ["--help", "-f", "--upload-pack=touch x", "a..b", "a b", "@{u}", "refs/heads/x.lock", "x.lock/y", "HEAD:etc", "+a:b",
     "a\nb", "a~1", "a^", "a^{tree}", "a?", "a*", "a[b", "a\\b", "/a", "a/", "a//b", ".a", "a/.b", "a.", "@", "HEAD",
     "a\x00b", "a\x7f", "a\u202eb", "x" * 256, ".."],
)  # fmt: skip
def test_a_ref_that_git_would_not_have_is_refused(ref: str) -> None:
    with pytest.raises(ConfigError, match='"ref"'):
        check_ref(ref)


@pytest.mark.parametrize("ref", ["main", "a/b", "v1.0", "feature/ü", "a+b", "a@b", "0" * 40, "a-", "a$(b)", "a'b;c"])
def test_what_git_allows_may_be_asked_for(here: Yard, ref: str) -> None:
    """And is no more than a name to the shell there."""
    assert check_ref(ref) == ref
    git(here.a.path, "check-ref-format", f"refs/heads/{ref}")
    if len(ref) < 40:
        git(here.a.path, "branch", "-f", ref) if ref != "main" else None
        kind = here.kind()
        resource = here.resource(kind)
        kind.activate(resource)
        kind.activate_lease(resource, lease(ref=ref))
        assert git(here.tree, "rev-parse", "HEAD") == here.a.head()


@pytest.mark.parametrize(
    "url",
    ["ext::sh -c id", "ext::sh%20-c", "ssh://-oProxyCommand=x/y", "https://user:pw@h/x", "https://token@h/x", "-x", "--upload-pack=x",
     "../x", "x", "", "https://", "https:///x", "ftp://h/x", "fd::17", "h:-x", "-h:x", "git@-h:x", "h x:y", "http://-x/y",
     "https://h/a\nb", "ssh://u@-h/x", 7, None, "https://h"],
)  # fmt: skip
def test_a_url_that_may_do_more_than_be_cloned_is_refused(here: Yard, url: object) -> None:
    with pytest.raises(ConfigError, match='repository "a"'):
        here.kind(repositories={"a": url})


@pytest.mark.parametrize(
    "url",
    ["https://h/x.git", "https://h:8443/x", "http://h/x", "git://h/x", "ssh://git@h/x", "ssh://git@h:22/~/x", "ssh://h/x", "file:///x",
     "/srv/with space/x", "git@h:x/y.git", "h:x", "h:~/x", "https://h/x@v1"],
)  # fmt: skip
def test_a_url_that_may_be_cloned(url: str) -> None:
    assert check_url(url, "x") == url


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"repositories": {}}, "must name at least one"),
        ({"repositories": {"a": "/x", "A": "/y"}}, "differs only by case"),
        ({"repositories": {".git": "/x"}}, "is not allowed"),
        ({"repositories": {"git~1": "/x"}}, "is not allowed"),
        ({"repositories": {"../a": "/x"}}, "is not allowed"),
        ({"root": "srv"}, "must be an absolute path"),
        ({"root": "/srv/../etc"}, 'without ".."'),
        ({"root": "/srv\n"}, "control character"),
        ({"clone_seconds": 0}, "must be at least 1"),
        ({"host": {"typ": "host"}}, 'unknown key "typ"; known keys: "type", "attributes", "blueprints"'),
        ({"host": {"type": "-x"}}, "may not start with"),
        ({"host": {"blueprints": "lab"}}, '"blueprints" must be a list'),
        ({"host": {"attributes": 7}}, '"attributes" a table'),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(here: Yard, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        here.kind(**settings)
