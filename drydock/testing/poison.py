"""What a holder can do to the one after him in a working copy, as he could do it: for tests, and for who wants to see.

    python -m drydock.testing.poison TREE OUTSIDE OTHER

prints what was in the repository at TREE as one line of JSON, and then spoils all of it. OUTSIDE is a folder for what is
planted; what of it is ever run makes the file `ran` there. OTHER is some other repository.
"""

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path


def git(folder: Path, *arguments: str) -> str:
    """What git says in that folder, as somebody with a name and no configuration."""
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    alone = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(["git", *who, *arguments], cwd=folder, env=alone, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"git {arguments[0]}: {done.stderr}")
    return done.stdout.strip()


def picture(folder: Path) -> dict[str, object]:
    """All that is in the folder: kinds, permissions and contents. git's index holds moments, so it is told as git reads
    it."""
    seen: dict[str, object] = {}
    for parent, folders, files in os.walk(folder):
        for path in (Path(parent, name) for name in (*folders, *files)):
            status = path.lstat()
            what = (
                str(path.readlink())
                if path.is_symlink()
                else path.read_bytes()
                if stat.S_ISREG(status.st_mode)
                else None
            )
            seen[str(path.relative_to(folder))] = (stat.S_IFMT(status.st_mode), status.st_mode & 0o7777, what)
            if path.name == "index":
                seen[str(path.relative_to(folder))] = git(path.parent.parent, "ls-files", "-s", "-v")
    return seen


def same_tree(seen: dict[str, object]) -> dict[str, object]:
    """All of a picture but how git packs its objects and refs."""
    return {path: what for path, what in seen.items() if ".git/objects" not in path and ".git/packed-refs" not in path}


def plant(tree: Path, outside: Path, other: Path) -> Path:
    """Do all that a holder can do to those after him. Whatever of it is run makes the file that is returned."""
    ran = outside / "ran"
    command = f"touch {ran}; cat"
    copy, dot = tree.parent, tree / ".git"
    program = outside / "planted"
    program.write_text(f"#!/bin/sh\ntouch {ran}\n")
    program.chmod(0o755)
    commit, origin = git(tree, "rev-parse", "HEAD"), git(tree, "config", "remote.origin.url")
    # what git keeps of its own
    git(tree, "switch", "-q", "-c", "main", commit)
    (tree / "readme").write_text("other\n")
    git(tree, "commit", "-q", "-a", "-m", "other")
    spoilt = git(tree, "rev-parse", "HEAD")
    git(tree, "tag", "-f", "planted")
    git(tree, "update-ref", "refs/remotes/origin/main", spoilt)
    git(tree, "replace", commit, spoilt)
    git(tree, "worktree", "add", "-q", "--detach", str(copy / "beside"))
    git(tree, "stash", "list")
    (tree / "readme").write_text("dirty\n")
    git(tree, "update-index", "--assume-unchanged", "readme")
    git(tree, "update-index", "--skip-worktree", "src/run")
    (tree / "staged").write_text("staged\n")
    git(tree, "add", "staged")
    (dot / "info").mkdir(exist_ok=True)
    (dot / "info" / "grafts").write_text(f"{commit}\n")
    (dot / "info" / "attributes").write_text("* filter=planted diff=planted merge=planted\n")
    (dot / "info" / "sparse-checkout").write_text("/nothing\n")
    (dot / "info" / "exclude").write_text("*\n")
    (dot / "objects" / "info").mkdir(exist_ok=True)
    (dot / "objects" / "info" / "alternates").write_text(f"{other}/.git/objects\n")
    (dot / "shallow").write_text(f"{commit}\n")
    for name in ("post-checkout", "pre-commit", "post-index-change", "reference-transaction", "fsmonitor-watchman",
                 "pre-auto-gc", "post-merge", "sendemail-validate"):  # fmt: skip
        (dot / "hooks").mkdir(exist_ok=True)
        shutil.copy(program, dot / "hooks" / name)
    # what git reads: last, or it would be run by what is planted above
    (outside / "included").write_text(f"[core]\n\tfsmonitor = {program}\n")
    with (dot / "config").open("a") as config:
        config.write(
            f"""
[core]
    fsmonitor = {program}
    hooksPath = {dot}/hooks
    sshCommand = {program}
    pager = {program}
    editor = {program}
    gitProxy = {program}
    attributesFile = {dot}/info/attributes
    sparseCheckout = true
    worktree = {outside}
    alternateRefsCommand = {program}
[include]
    path = {outside}/included
[filter "planted"]
    smudge = {command}
    clean = {command}
    process = {program}
    required = true
[diff "planted"]
    command = {program}
    textconv = {program}
[diff]
    external = {program}
[alias]
    fetch = "!touch {ran}"
    st = "!touch {ran}"
[uploadpack]
    packObjectsHook = {program}
[remote "origin"]
    uploadpack = {program}
    vcs = planted
[credential]
    helper = "!touch {ran}"
[url "{other}"]
    insteadOf = {origin}
[submodule "planted"]
    active = true
    url = {other}
    update = "!touch {ran}"
[extensions]
    worktreeConfig = true
"""
        )
    # what lies in the tree
    (tree / ".gitattributes").write_text("* filter=planted\n")
    (tree / ".gitmodules").write_text(f'[submodule "planted"]\n\tpath = planted\n\turl = {other}\n')
    (tree / "ignored.o").write_text("ignored\n")
    (tree / ".gitignore").write_text("*\n")
    git(outside, "clone", "-q", str(other), str(tree / "nested"))
    shutil.copy(program, tree / "nested" / ".git" / "hooks" / "post-checkout")
    (tree / "-rf").write_text("an option\n")
    (tree / "new\nline").write_text("two\n")
    (tree / "out").symlink_to(outside / "victim")
    (tree / "loop").symlink_to(tree)
    (copy / "b").symlink_to(outside / "victim")
    os.mkfifo(tree / "fifo")
    closed = tree / "closed" / "inner"
    closed.mkdir(parents=True)
    (closed / "file").write_text("closed\n")
    for name in ("index.lock", "HEAD.lock", "config.lock", "packed-refs.lock", "shallow.lock"):
        (dot / name).touch()
    for pack in dot.glob("objects/pack/*"):
        pack.chmod(0o600)
        pack.write_bytes(b"not what it was")
    (tree / "src" / "run").chmod(0o4000)
    closed.chmod(0)
    closed.parent.chmod(0o500)
    dot.chmod(0)
    return ran


def main() -> None:
    tree, outside, other = (Path(word).absolute() for word in sys.argv[1:])
    seen = {
        "seen": hashlib.sha256(repr(sorted(same_tree(picture(tree)).items())).encode()).hexdigest(),
        "head": git(tree, "rev-parse", "HEAD"),
        "status": git(tree, "status", "--porcelain", "--ignored"),
        "fsck": git(tree, "fsck", "--full"),
    }
    plant(tree, outside, other)
    print(json.dumps(seen))  # noqa: T201 - that is what it is for


if __name__ == "__main__":
    main()
