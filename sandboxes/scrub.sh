# A repository → the same repository without its future: nothing is left in it but what HEAD, the branch it stands on and
# the tags of HEAD's past lead to. `bash scrub.sh WORKDIR`, as root, once for an image. The working tree stays as it is;
# what was staged is unstaged. Ends with 0 and changes nothing where there is no repository.
set -euo pipefail
shopt -s nullglob
HOME=$(mktemp -d)
export HOME GIT_NO_REPLACE_OBJECTS=1 GIT_CONFIG_NOSYSTEM=1
trap 'rm -rf "$HOME"' EXIT
# Whoever owns the repository. Not by `-c`: git before 2.38 does not read it there.
printf '[safe]\n\tdirectory = *\n' > "$HOME/.gitconfig"

fail() { echo "$*" >&2; exit 1; }

git() {
  command git -c core.hooksPath=/dev/null -c core.fsmonitor=false -c gc.auto=0 -c repack.writeBitmaps=false "$@"
}

# Refs that are past: the branch that HEAD is on, and tags of commits that HEAD descends from (versions are computed from those).
past_refs() {
  git symbolic-ref --quiet HEAD || :
  [[ -z $head ]] || git for-each-ref --merged="$head" --format='%(refname)' refs/tags
}

drop_refs() {
  comm -23 <(git for-each-ref --format='%(refname)' | LC_ALL=C sort) <(past_refs | LC_ALL=C sort) |
    sed 's/^/delete /' | git update-ref --no-deref --stdin
}

# Places where the names of other commits are written down.
drop_traces() {
  rm -rf logs ./*_HEAD BISECT_* MERGE_MSG MERGE_MODE MERGE_RR SQUASH_MSG AUTO_MERGE COMMIT_EDITMSG \
    rebase-merge rebase-apply sequencer rr-cache lost-found worktrees info/refs info/grafts gc.log gc.pid
  local section
  { git config --local --name-only --get-regexp '^(remote|branch)\.' || :; } | sed 's/\.[^.]*$//' | sort -u |
    while IFS= read -r section; do git config --local --remove-section "$section"; done
}

# Packs that are to be kept whatever is in them, and lists of commits, would keep the future alive.
drop_objects() {
  rm -rf objects/pack/*.keep objects/pack/*.promisor objects/pack/multi-pack-index* objects/pack/tmp_* \
    objects/info/commit-graph* objects/info/packs objects/tmp_* objects/incoming-*
  git repack -a -d -q
  rm -f objects/info/alternates
  git prune --expire=now
}

scrub() {
  cd -- "$1"
  export GIT_DIR=$PWD
  head=$(git rev-parse --verify --quiet 'HEAD^{commit}' || :)
  rm -f index index.lock
  # An index of HEAD's files, with what is new in the working tree left out of it.
  [[ -z $head ]] || git read-tree "$head"
  drop_refs
  drop_traces
  drop_objects
  chown -R --reference="$GIT_DIR" "$GIT_DIR"
}

cd -- "$1" 2>/dev/null || exit 0
[[ -e .git ]] || exit 0
type -P git >/dev/null || fail "there is a repository in $1, but no git in the image"
top=$(git rev-parse --absolute-git-dir 2>&1) || fail "$1/.git is no repository: $top"
[[ $(cd "$top" && cd "$(git rev-parse --git-common-dir)" && pwd) == "$top" ]] ||
  fail "$1 is a worktree of another repository: give it one of its own (git clone)"
{ echo "$top/HEAD"; find "$top/modules" -name HEAD -not -path '*/logs/*' 2>/dev/null || :; } |
  while IFS= read -r head_file; do
    if [[ -d ${head_file%/HEAD}/objects ]]; then (scrub "${head_file%/HEAD}"); fi
  done
# File times in the new index, so that the first `git status` does not read every file.
git update-index -q --refresh || :
