#!/usr/bin/env bash
# tools/quickstart as a newcomer meets it: the whole tour, as root and as an ordinary user, and
# nothing left afterwards. Builds into build/ as quickstart does.
. "$(dirname "$0")/lib.sh"
chmod 755 "$SCRATCH"
quickstart=$TREE/tools/quickstart
folder=$SCRATCH/m

# Ends what a failed tour may have left, so that this test never leaves a mount.
tidy() {
  fusermount3 -uz "$folder" 2>/dev/null
  fusermount3 -uz "$SCRATCH/user/m" 2>/dev/null
  rm -rf --one-file-system "$SCRATCH"
}
trap tidy EXIT

left_behind() {
  grep " $SCRATCH" /proc/self/mounts
  losetup -l -n -O NAME,BACK-FILE 2>/dev/null | grep "$SCRATCH"
  find "$SCRATCH" -mindepth 1 ! -path "$FAKES*" ! -path "$SCRATCH/user"
}

expect 'refuses an unknown option' 2 "unknown option '--twice'" "$quickstart" --twice
if [ ! -w /dev/fuse ]; then
  skip 'no /dev/fuse that this user may open'
  done_testing
  exit
fi
expect 'makes the whole tour' 0 'taking it all down' timeout 550 "$quickstart" --once "$folder"
expect_empty 'leaves nothing behind' "$(left_behind)"
# Without a tour there is nothing to learn from its variations.
done_testing || exit

expect 'stays mounted without --once and says how to install' 0 'cmake --install .*/build --prefix' \
  timeout 200 "$quickstart" --no-build "$folder"
expect 'serves the demo devices after it' 0 '^demo-ram' ls "$folder"
expect 'can be run again over its mount' 0 'is mounted already' \
  timeout 200 "$quickstart" --no-build "$folder"
# README goes on beside this mount: what it does to its own must not reach this one.
readme_beside() {
  awk '$0 == "```sh session" { inside = 1; next } /^```/ { inside = 0 } inside' "$TREE/README.md" |
    sed "s#/tmp/#$SCRATCH/tmp/#g" >"$SCRATCH/block"
  mkdir "$SCRATCH/tmp"
  (cd "$TREE" && timeout 120 bash -e "$SCRATCH/block") && ls "$folder/demo-ram"
}
expect "README's session works beside it" 0 'demo-ram$' readme_beside
rm -rf --one-file-system "$SCRATCH/tmp" "$SCRATCH/block"
expect 'is ended by fusermount3' 0 '' fusermount3 -u "$folder"
rm -rf --one-file-system "$folder" "$folder-files"

# An ordinary user needs a /dev/fuse that is open to all, as udev makes it, and a fusermount3 that
# is setuid. Where the node is root's alone, a private one stands over it for the length of this.
# The namespace's copies of others' mounts would keep their daemons alive beyond their own umount.
as_user() {
  unshare --mount sh -c '
    umount --lazy --all --types fuse.mapperfs
    mknod -m 666 "$0/fuse" c 10 229 && mount --bind "$0/fuse" /dev/fuse &&
      exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"' "$SCRATCH/user" "$@"
}
if [ "$(id -u)" -eq 0 ] && mkdir "$SCRATCH/user" && chown 65534:65534 "$SCRATCH/user" &&
  as_user test -w /dev/fuse -a -x "$TREE/build/tools/mapperfs" 2>/dev/null; then
  rm -f "$SCRATCH/user/fuse"
  expect 'makes the tour as an ordinary user' 0 'losetup and mount need root' \
    as_user env HOME=/nonexistent TMPDIR="$SCRATCH/user" timeout 200 "$quickstart" --once --no-build "$SCRATCH/user/m"
  rm -f "$SCRATCH/user/fuse"
  expect_empty 'leaves nothing of the ordinary user behind' "$(left_behind)"
else
  skip 'cannot become an ordinary user with /dev/fuse here'
fi
done_testing
