#!/usr/bin/env bash
# The recipe docs/recipes/vm-images.md, run as it stands: its blocks in order, in one shell. Only its
# /tmp/ is a folder of the test's own, and those that need root are left out where there is none.
. "$(dirname "$0")/lib.sh"
TOP=$(cd "$(dirname "$0")/../.." && pwd)
BUILD=$(cd "$(dirname "$MAPPERFS")/.." && pwd)
[ "$MAPPERFS_TRANSPORT" != uring ] || skip "the recipe leaves the transport to the daemon"
need_fuse
need qemu-img mkfs.ext4 e2fsck debugfs fallocate

own_mounts() { awk -v top="$WORK/" 'index($2, top) == 1 { print $2 }' /proc/self/mounts | tac; }

# What a recipe that failed half way left.
undo() {
  local code=$? thing
  set +e
  timeout 20 umount "$WORK/tmp/vm/fs" 2>/dev/null
  for thing in $(own_loops); do timeout 10 losetup -d "$thing"; done
  for thing in $(own_mounts); do timeout 10 fusermount3 -uzq "$thing"; done
  (exit "$code")
  cleanup
}
trap undo EXIT

ROOT=1
if [ "$(id -u)" != 0 ] || ! losetup -f >/dev/null 2>&1 || ! need_fs ext4; then
  echo "SKIPPED: the blocks 'root-session': they need root, a loop device and ext4" >&2
  ROOT=
fi
mkdir -p "$WORK/source" "$WORK/tmp"
ln -sfn "$BUILD" "$WORK/source/build"
awk -v root="$ROOT" '
  /^```sh session$/ || (root && /^```sh root-session$/) { inside = 1; next }
  /^```/ { inside = 0 } inside' "$TOP/docs/recipes/vm-images.md" |
  sed "s#/tmp/#$WORK/tmp/#g" >"$WORK/recipe"
[ "$(wc -l <"$WORK/recipe")" -gt 50 ] || fail "the recipe has become short"
(cd "$WORK/source" && timeout 170 bash -e -o pipefail "$WORK/recipe") >"$WORK/said" 2>&1 </dev/null ||
  fail "the recipe: $(tail -n 20 "$WORK/said")"

# said REGEX: the number in it.
said() {
  local line
  line=$(grep -oE "$1" "$WORK/said" | head -1) || fail "'$1' was not said: $(tail -n 40 "$WORK/said")"
  grep -oE '[0-9]+' <<<"$line" | head -1
}
# shrank WHAT: the pool's file lost most of the 32 MiB.
shrank() {
  local with without
  with=$(said "$1 big: [0-9]+")
  without=$(said "$2: [0-9]+")
  [ $((with - without)) -ge 28 ] || fail "$1 big $with MiB, without $without MiB"
}
shrank "^with" "^without"
[ -z "$ROOT" ] || shrank "mounted, with" "mounted, without"
grep -q "the backup is tuesday's" "$WORK/said" || fail "the backup differs"
grep -q "Images are identical" "$WORK/said" || fail "the import differs"
same "what the recipe left mounted" "" "$(own_mounts)"
no_daemons "the recipe"
same "the files that the recipe left" "" "$(ls "$WORK/tmp")"
