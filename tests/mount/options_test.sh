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
refuses "3 names were given, a NAME and a MOUNT_POINT at most" a b "$MNT"
refuses "the NAME before the MOUNT_POINT is empty" "" "$MNT"
refuses "fsname is empty" -o fsname= "$MNT"
refuses "--max-write" "$MNT" --max-write
same "the usage" "Usage: mapperfs [OPTIONS] [NAME] MOUNT_POINT" "$("$MAPPERFS" --help | grep Usage)"
refuses "--frobnicate" --frobnicate "$MNT"
refuses "unknown mount option: bogus=1" -o bogus=1 "$MNT"
refuses "unknown mount option: bogus,dull=2" -o bogus,dull=2 -f "$MNT"
refuses 'log level "foo" is none of debug, info, warn, error, off' --log-level foo "$MNT"
refuses 'log level "foo" is none of debug, info, warn, error, off' -o log_level=foo "$MNT"
refuses 'max_write "128K" is not between 132K and 1024K' --max-write 128K "$MNT"
refuses 'seed "0x7" is not a number between 0 and 18446744073709551615' -o seed=0x7 "$MNT"
refuses 'seed "" is not a number' -o seed= "$MNT"
refuses 'max_write "2M" is not between 132K and 1024K' -o max_write=2M "$MNT"

# --- tables: the sentence once, from the foreground and the background ---
echo 'a: 0 2048 linear 0' >"$WORK/tables"
refuses "tables $WORK/tables: " --tables "$WORK/tables" "$MNT"
refuses "tables $WORK/tables: " --tables "$WORK/tables" -f "$MNT"
same "mounts after refusals" 0 "$(mounts)"

# --- the smallest max_write is good for a transaction of 128 KiB ---
start --max-write 132K
same "max_write" "max_write: 131072" "$(timeout 5 grep max_write "$MNT/sys/version")"

stop

# --- a NAME is a name, whatever is in it ---
timeout 20 "$MAPPERFS" 'lab,ro,a\b' "$MNT" -o "transport=$MAPPERFS_TRANSPORT" || fail "a NAME with commas"
same "a NAME with commas" 'lab,ro,a\134b' "$(awk -v at="$MNT" '$2 == at { print $1 }' /proc/mounts)"
printf 'disk: 0 8 zero\n' >"$MNT/control" || fail "a NAME became an option"
timeout 10 fusermount3 -u "$MNT"

# --- one seed, the same mistakes; another, others ---
truncate -s 64K "$WORK/good"
mistakes() {
  start -o "$1"
  control "ram: 0 128 ram" "bad: 0 128 flakey ram 0 0 60 2 random_write_corrupt 300000000" \
    "worse: 0 128 flakey ram 0 0 60 2 random_write_corrupt 300000000"
  for device in bad worse; do
    timeout 10 dd if="$WORK/good" of="$MNT/$device" bs=512 oflag=direct status=none
    timeout 10 sha256sum <"$MNT/ram"
  done
  stop
}
first=$(mistakes seed=7)
same "two tables of one run" 2 "$(sort -u <<<"$first" | wc -l)"
same "the same seed" "$first" "$(mistakes seed=7)"
[ "$first" != "$(mistakes seed=8)" ] || fail "another seed makes the same mistakes"
start

# --- a mapperfs over a mapperfs would hide the devices of the first ---
refuses "mount point $MNT: a mapperfs is mounted there already" "$MNT"
(cd "$WORK" && refuses 'end it with "fusermount3 -u mnt"' mnt)
same "mounts after refusals" 1 "$(mounts)"
timeout 20 "$MAPPERFS" -o nonempty --transport "$MAPPERFS_TRANSPORT" "$MNT" || fail "-o nonempty"
same "mounts with -o nonempty" 2 "$(mounts)"
timeout 10 fusermount3 -u "$MNT"
timeout 5 test -e "$MNT/control" || fail "the first mount does not show again"

# --- a daemon that is gone leaves its mount; the first asked may come while the kernel still takes it down ---
for _ in {1..10}; do
  kill -9 "$DAEMON_PID"
  wait_daemon 137
  refuses "\"fusermount3 -u $MNT\" takes its mount away" "$MNT"
  timeout 5 fusermount3 -u "$MNT"
  start
done
stop
