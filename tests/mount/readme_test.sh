#!/usr/bin/env bash
# The blocks of README.md that say that they work when pasted: each is run as it stands, line by
# line, and must succeed and leave nothing behind. Only its /tmp/ is a folder of the test's own. Another
# mapperfs is mounted all the while, as tools/quickstart leaves one: nothing may happen to it.
. "$(dirname "$0")/lib.sh"
README=$(cd "$(dirname "$0")/../.." && pwd)/README.md
BUILD=$(cd "$(dirname "$MAPPERFS")/.." && pwd)
[ "$MAPPERFS_TRANSPORT" != uring ] || skip "the README leaves the transport to the daemon"
need_fuse
need losetup fusermount3 awk

own_mounts() { awk -v top="$WORK/tmp/" 'index($2, top) == 1 { print $2 }' /proc/self/mounts | tac; }

# A block that failed half way has mounted and attached what its own last lines would have undone.
undo_block() {
  local code=$? thing
  set +e
  timeout 20 umount "$WORK/tmp/fs" 2>/dev/null
  for thing in $(own_loops); do timeout 10 losetup -d "$thing"; done
  for thing in $(own_mounts); do timeout 10 fusermount3 -uzq "$thing"; done
  (exit "$code")
  cleanup
}
trap undo_block EXIT

# block WORDS: the lines between ```sh WORDS and the next ```.
block() {
  awk -v head="\`\`\`sh $1" '$0 == head { inside = 1; next } /^```/ { inside = 0 } inside' "$README" |
    sed "s#/tmp/#$WORK/tmp/#g"
}

# run_block WORDS: what the block printed is in $WORK/said.
run_block() {
  local lines
  block "$1" >"$WORK/block"
  lines=$(grep -cv '^ *\(#.*\)\?$' "$WORK/block") || fail "README.md has no block \`\`\`sh $1"
  mkdir -p "$WORK/source" "$WORK/tmp"
  ln -sfn "$BUILD" "$WORK/source/build"
  (cd "$WORK/source" && timeout 120 env -u MAPPERFS_MOUNT bash -e "$WORK/block") \
    >"$WORK/said" 2>&1 </dev/null || fail "the block '$1': $(tail -n 20 "$WORK/said")"
  same "what the block '$1' left mounted" "" "$(own_mounts)"
  same "the loop devices that the block '$1' left" "" "$(own_loops)"
  no_daemons "the block '$1'"
  same "the files that the block '$1' left" "" "$(ls "$WORK/tmp")"
  same "the other mount after the block '$1'" "other: 0 2048 ram " \
    "$(timeout 5 grep other "$MNT/control")"
  echo "$1: $lines lines"
}

# said WORDS: the block printed a line that is these words or has them in it.
said() { grep -qF -e "$1" "$WORK/said" || fail "the block did not say '$1': $(cat "$WORK/said")"; }

start
control "other: 0 2048 ram"
run_block session
said "0 262144 ram"
said "131072 131072 loop $WORK/tmp/b.img 0"
said "part (5"
said "$WORK/tmp/a.img too small for target"

if [ "$(id -u)" != 0 ] || ! losetup -f >/dev/null 2>&1 || ! need_fs ext4; then
  part_skipped "the block 'root-session': needs root, a loop device and ext4"
  exit 0
fi
run_block root-session
said "hello"
