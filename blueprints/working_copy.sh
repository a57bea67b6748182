# What working_copy.py has done on a host: sh -s -- VERB ROOT FOLDER [NAME URL REF SEAL]...
#
# Whoever held a copy could write wherever we can, and may have left anything there. So git is never started in what
# was there before: each lease gets a new folder and a new .git. What is kept between leases are packs, which are data.
# A pack with the bytes that were sealed is used as it is; any other is indexed anew, for which git works out the name
# of each object from its content, so that it may turn out to lack objects, and never to hold a wrong one.
set -eu
LC_ALL=C
export LC_ALL
umask 022

fail() {
    printf '%s\n' "$*" >&2
    exit 3
}

# Settles the root by its one real name.
open_root() {
    [ -d "$root" ] || fail "there is no folder \"$root\""
    [ ! -L "$root" ] || fail "the root \"$root\" must not be a symbolic link"
    [ -f "$root/.drydock-root" ] ||
        fail "the root \"$root\" is not ours: it has no file .drydock-root; if we may delete there, make one"
    root=$(cd -P -- "$root" && pwd -P)
    above=$root
    while [ "$above" != / ]; do
        above=$(dirname -- "$above")
        [ ! -e "$above/.drydock-root" ] || fail "the root \"$root\" lies inside another, \"$above\""
    done
}

# Removes $1, whatever it is. A symbolic link is never followed.
remove() {
    if [ -d "$1" ] && [ ! -L "$1" ]; then
        # One at a time: a folder must be open before find enters it.
        find "$1" -type d ! -perm -0700 -exec chmod u+rwx {} \;
    fi
    rm -rf -- "$1"
}

open_git() {
    command -v git >/dev/null || fail "git is not installed there, or not on the PATH of a command that is run there"
    # Drydock may have been started by one of git's own hooks.
    # shellcheck disable=SC2046
    unset $(git rev-parse --local-env-vars) GIT_TEMPLATE_DIR GIT_NAMESPACE GIT_ATTR_SOURCE GIT_EXTERNAL_DIFF
    export GIT_TERMINAL_PROMPT=0 SSH_ASKPASS_REQUIRE=never GIT_NO_REPLACE_OBJECTS=1 GIT_ATTR_NOSYSTEM=1
    export GIT_ALLOW_PROTOCOL=file:git:http:https:ssh
    if [ -z "${GIT_SSH_COMMAND-}" ] && ! git config core.sshCommand >/dev/null; then
        export GIT_SSH_COMMAND='ssh -o BatchMode=yes'
    fi
}

# git, in the repository that is being made, with the configuration of this account: its credentials, its proxies.
git_as_configured() {
    git -c core.hooksPath=/dev/null -c core.fsmonitor=false -c core.attributesFile=/dev/null -c core.logAllRefUpdates=false \
        -c gc.auto=0 -c maintenance.auto=false -c fetch.unpackLimit=1 \
        -c submodule.recurse=false -c pack.writeReverseIndex=false -c repack.writeBitmaps=false \
        --git-dir="$tree/.git" --work-tree="$tree" "$@"
}

# git, with no configuration but ours.
git_alone() {
    GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 git_as_configured "$@"
}

# git with the origin at the other end. What it prints is in $kept/out.
git_to_origin() {
    git_as_configured "$@" >"$kept/out" 2>"$kept/err"
}

# Ends with what git said of the origin.
origin_failed() {
    fail "repository \"$name\": git $1 failed: $(head -n 3 "$kept/err" | tr '\n' ' ')"
}

seal_of() {
    git_alone hash-object --no-filters -- "$@" | tr '\n' '.'
}

is_plain() {
    [ -f "$1" ] && [ ! -L "$1" ] && [ -r "$1" ]
}

# Fills the new repository from what is kept. `trusted` says whether it is what was sealed, `filled` whether it was used.
take_kept() {
    trusted=no filled=no
    [ -d "$kept/$name" ] && [ ! -L "$kept/$name" ] || return 0
    for part in pack idx tips; do
        is_plain "$kept/$name/$part" || return 0
    done
    # Copies are looked at, since nobody knows a name for them yet.
    pack=$packs/pack-$(printf '%040d' 0)
    cp -- "$kept/$name/pack" "$pack.pack"
    cp -- "$kept/$name/idx" "$pack.idx"
    cp -- "$kept/$name/tips" "$tree/.git/tips"
    if [ "$seal" = "$(seal_of "$pack.pack" "$pack.idx" "$tree/.git/tips")" ]; then
        trusted=yes filled=yes
    else
        rm -f -- "$pack.idx"
        if git_alone index-pack --check-self-contained-and-connected "$pack.pack" >/dev/null 2>&1 && has_tips; then
            filled=yes
        else
            rm -f -- "$pack.pack" "$pack.idx"
        fi
    fi
    # The origin is told of these, so that it sends only what is new.
    [ $filled = no ] || sed 's|.*|& refs/kept/&|' "$tree/.git/tips" >"$tree/.git/packed-refs"
    rm -f -- "$tree/.git/tips"
}

# Reads the tips as somebody else's words: names of objects, all of them there.
has_tips() {
    sed -n '/^[0-9a-f]\{40\}$/p' "$tree/.git/tips" | sort -u >"$tree/.git/tips.checked"
    mv -f -- "$tree/.git/tips.checked" "$tree/.git/tips"
    ! git_alone cat-file --batch-check <"$tree/.git/tips" | grep -q missing
}

kilobytes() {
    du -sk -- "$packs" | cut -f 1
}

has_no_more() {
    [ "$(git_alone count-objects -v | sed -n 's/^in-pack: //p')" -eq "$(git_alone rev-list --objects --all | wc -l)" ]
}

# Keeps the repository as it is now for the next lease, and seals it.
keep() {
    remove "$kept/$name"
    seal=-
    set -- "$packs"/pack-*.pack
    [ -f "$1" ] || return 0 # an empty repository
    # One pack, with what the refs of the origin lead to and nothing that somebody added. What is so already stays as it
    # is: then another machine that has sealed it knows it again.
    if [ $# -gt 1 ] || { [ $filled = yes ] && ! has_no_more; }; then
        git_alone repack -a -d -n -q
        set -- "$packs"/pack-*.pack
    fi
    pack=${1%.pack}
    mkdir -m 700 -- "$kept/$name"
    git_alone for-each-ref --format='%(objectname)' | sort -u >"$kept/$name/tips"
    seal=$(seal_of "$pack.pack" "$pack.idx" "$kept/$name/tips")
    cp -- "$pack.pack" "$kept/$name/pack"
    cp -- "$pack.idx" "$kept/$name/idx"
}

# The commit that $1 means, by its full name or any of git's short ones.
found() {
    git_alone rev-parse --quiet --verify "$1^{commit}"
}

is_hexadecimal() {
    case $1 in
    *[!0-9a-f]*) return 1 ;;
    esac
    [ ${#1} -ge 7 ]
}

resolve() {
    case $1 in
    refs/heads/*) found "refs/remotes/origin/${1#refs/heads/}" && return ;;
    refs/tags/*) found "$1" && return ;;
    refs/*) ;;
    *)
        [ ${#1} -ne 40 ] || ! is_hexadecimal "$1" || ! found "$1" || return 0
        found "refs/remotes/origin/$1" && return
        found "refs/tags/$1" && return
        ! is_hexadecimal "$1" || ! found "$1" || return 0
        ;;
    esac
    # Not a branch or tag, and reached by none: the origin may know it all the same, such as the head of a pull request.
    case $1 in
    refs/*) ;;
    *) [ ${#1} -eq 40 ] && is_hexadecimal "$1" || return 1 ;;
    esac
    git_to_origin fetch -q --no-tags --no-write-fetch-head origin "+$1:refs/kept/asked" || return 1
    found refs/kept/asked
    git_alone update-ref -d refs/kept/asked
}

# The origin's default branch, or the commit that its HEAD is at; nothing when it has none.
default_ref() {
    git_to_origin ls-remote --symref origin HEAD || origin_failed ls-remote
    tab=$(printf '\t')
    sed -n -e "s|^ref: \(refs/heads/[^$tab]*\)${tab}HEAD\$|\1|p" -e "s|^\([0-9a-f]*\)${tab}HEAD\$|\1|p" "$kept/out" | head -n 1
}

# Makes repository $name new, with what the origin has now.
make_repository() {
    tree=$copy/$name
    packs=$tree/.git/objects/pack
    mkdir -- "$tree"
    GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 git init -q --template= "$tree"
    git_alone config remote.origin.url "$url"
    git_alone config remote.origin.fetch '+refs/heads/*:refs/remotes/origin/*'
    take_kept
    before=$(kilobytes)
    git_to_origin fetch -q --no-tags --no-write-fetch-head --no-recurse-submodules origin \
        '+refs/heads/*:refs/remotes/origin/*' '+refs/tags/*:refs/tags/*' || origin_failed fetch
    git_alone for-each-ref --format='delete %(refname)' refs/kept | git_alone update-ref --stdin
    rm -rf -- "$tree/.git/refs/kept"
    # What is new is fetched again for each lease, until that is a quarter of the whole.
    if [ $trusted = no ] || [ $((($(kilobytes) - before) * 4)) -gt "$before" ]; then
        keep
    fi
    git_alone pack-refs --all
}

# Checks out what was asked for, detached: no branch moves, since there is none.
check_out() {
    if [ "$ref" != - ]; then
        commit=$(resolve "$ref") || fail "repository \"$name\" has no ref \"$ref\""
    elif [ -z "$(git_alone for-each-ref --count=1)" ]; then
        return # nobody has committed anything yet
    else
        ref=$(default_ref)
        [ -n "$ref" ] || fail "repository \"$name\" has no default branch: say which ref is wanted"
        commit=$(resolve "$ref") || fail "repository \"$name\" has no ref \"$ref\", its default"
        case $ref in
        refs/heads/*) git_alone symbolic-ref refs/remotes/origin/HEAD "refs/remotes/origin/${ref#refs/heads/}" ;;
        esac
    fi
    git_alone checkout -q --detach "$commit"
}

main() {
    verb=$1 root=$2 folder=$3
    shift 3
    cd /
    open_root
    copy=$root/$folder kept=$root/.$folder
    remove "$copy"
    case $verb in
    clean) return ;;
    remove)
        remove "$kept"
        return
        ;;
    esac
    open_git
    if [ ! -d "$kept" ] || [ -L "$kept" ]; then
        remove "$kept"
        mkdir -m 700 -- "$kept"
    fi
    chmod 700 -- "$kept"
    remove "$kept/out"
    remove "$kept/err"
    mkdir -m 700 -- "$copy"
    while [ $# -gt 0 ]; do
        name=$1 url=$2 ref=$3 seal=$4
        shift 4
        make_repository
        [ "$verb" = build ] || check_out
        printf '%s %s\n' "$name" "$seal"
    done
    [ "$verb" != build ] || remove "$copy"
}

main "$@" </dev/null
