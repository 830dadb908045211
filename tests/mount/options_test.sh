#!/usr/bin/env bash
# What mapperfs says of a command line or a mount point that it cannot take: one sentence, and no
# mount.
. "$(dirname "$0")/lib.sh"
need_fuse
need fusermount3

# refuses WORDS [ARGUMENT...]: ends with 1 and says one line, `mapperfs: ` and WORDS in it.
refuses() {
  local words=$1 said code=0
  shift
  said=$(timeout 20 "$MAPPERFS" "$@" 2>&1 </dev/null) || code=$?
  same "the exit code of 'mapperfs $*', which said '$said'" 1 "$code"
  same "the number of lines of '$said'" 1 "$(wc -l <<<"$said")"
  [[ $said == mapperfs:\ *"$words"* ]] || fail "'mapperfs $*' said '$said', not '$words'"
}

mounts() { grep -c " $MNT fuse.mapperfs " /proc/mounts || :; }

# --- words ---
refuses "no mount point was given"
refuses "no mount point was given" -f
refuses "unknown mount option: bogus=1" -o bogus=1 "$MNT"
refuses "unknown mount option: bogus,dull=2" -o bogus,dull=2 -f "$MNT"
refuses 'log level "foo" is none of debug, info, warn, error, off' --log-level foo "$MNT"
refuses 'log level "foo" is none of debug, info, warn, error, off' -o log_level=foo "$MNT"
refuses 'max_write "128K" is not between 132K and 1024K' --max-write 128K "$MNT"
refuses 'max_write "2M" is not between 132K and 1024K' -o max_write=2M "$MNT"

# --- tables: the sentence once, from the foreground and the background ---
echo 'a: 0 2048 linear 0' >"$WORK/tables"
refuses "tables $WORK/tables: " --tables "$WORK/tables" "$MNT"
refuses "tables $WORK/tables: " --tables "$WORK/tables" -f "$MNT"
same "mounts after refusals" 0 "$(mounts)"

# --- the smallest max_write is good for a transaction of 128 KiB ---
start --max-write 132K
same "max_write" "max_write: 131072" "$(timeout 5 grep max_write "$MNT/sys/version")"

# --- a mapperfs over a mapperfs would hide the devices of the first ---
refuses "mount point $MNT: a mapperfs is mounted there already" "$MNT"
(cd "$WORK" && refuses 'end it with "fusermount3 -u mnt"' mnt)
same "mounts after refusals" 1 "$(mounts)"
timeout 20 "$MAPPERFS" -o nonempty --transport "$MAPPERFS_TRANSPORT" "$MNT" || fail "-o nonempty"
same "mounts with -o nonempty" 2 "$(mounts)"
timeout 10 fusermount3 -u "$MNT"
timeout 5 test -e "$MNT/control" || fail "the first mount does not show again"

# --- a daemon that is gone leaves its mount ---
kill -9 "$DAEMON_PID"
wait_daemon 137
refuses "\"fusermount3 -u $MNT\" takes its mount away" "$MNT"
timeout 5 fusermount3 -u "$MNT"
start
stop
