#!/usr/bin/env bash
# From mount to end: background and foreground, every way to be mounted, every way to end.
. "$(dirname "$0")/lib.sh"
need_fuse
need fusermount3 python3

in_background() {
  timeout 20 "$MAPPERFS" --transport "$MAPPERFS_TRANSPORT" "$@" "$MNT" || fail "background: code $?"
  timeout 5 test -e "$MNT/control" || fail "back before the mount serves"
}

# The line of the mount table that is ours: name, then type.
mount_line() { awk -v at="$MNT" '$2 == at { print $1, $3 }' /proc/mounts; }

# Only processes that we started: they name our own mount point on their command line.
daemon_of_mount() { ps -eo pid,args | awk -v at="$MNT" '$2 ~ /mapperfs/ && $NF == at { print $1; exit }'; }

wait_unmounted() {
  local i
  for ((i = 0; i < 500; ++i)); do
    [ -n "$(mount_line)" ] || return 0
    read -r -t 0.02 <> <(:) || true
  done
  fail "still mounted"
}

# --- background, names in the mount table, refusals that the caller sees ---
in_background
same "mount table" "mapperfs fuse.mapperfs" "$(mount_line)"
DAEMON_PID=$(daemon_of_mount)
timeout 10 fusermount3 -u "$MNT"
timeout 10 tail --pid="$DAEMON_PID" -f /dev/null
DAEMON_PID=
timeout 20 "$MAPPERFS" lab "$MNT" -o rw,nosuid,noatime,_netdev,x-systemd.automount,max_write=256K
same "two-argument form" "lab fuse.mapperfs" "$(mount_line)"
same "max_write" "max_write: 258048" "$(timeout 5 grep max_write "$MNT/sys/version")"
timeout 10 fusermount3 -u "$MNT"
for bad in "$WORK/missing" "$0"; do
  said=$(timeout 10 "$MAPPERFS" "$bad" 2>&1) && fail "mounted on $bad"
  [[ $said == *"$bad"* ]] || fail "'$said' does not name $bad"
done
said=$(timeout 10 "$MAPPERFS" -o no_such_option "$MNT" 2>&1) && fail "took no_such_option"
[[ $said == *no_such_option* ]] || fail "'$said' does not name the option"
said=$(timeout 10 "$MAPPERFS" -o transport=pigeon "$MNT" 2>&1) && fail "took a pigeon"
[[ $said == *pigeon* ]] || fail "'$said' does not name the transport"

# --- tables brought up at mount; a bad one is no mount ---
printf 'begin\na: 0 2048 ram\nb: 0 1024 linear a 8\ncommit\n' > "$WORK/tables"
start --tables "$WORK/tables"
same "tables" "a b" "$(cd "$MNT/sys" && timeout 5 ls -d a b | xargs)"
stop
printf 'a: 0 2048 ram\nb: 0 1024 linear %s/nowhere 0\n' "$WORK" > "$WORK/tables"
said=$(timeout 10 "$MAPPERFS" --tables "$WORK/tables" "$MNT" 2>&1) && fail "mounted with bad tables"
[[ $said == *"$WORK/nowhere"* ]] || fail "'$said' does not name the missing file"
same "mount after bad tables" "" "$(mount_line)"
said=$(timeout 10 "$MAPPERFS" --tables "$WORK/none" "$MNT" 2>&1) && fail "mounted without its tables"
[[ $said == *"$WORK/none"* ]] || fail "'$said' does not name the tables"

said=$(timeout 10 "$MAPPERFS" --tables "$WORK" "$MNT" 2>&1) && fail "mounted with a folder for tables"
[[ $said == *"tables $WORK: Is a directory"* ]] || fail "'$said' does not say what is wrong"
printf 'begin\na: 0 2048 ram\n' > "$WORK/tables"
said=$(timeout 10 "$MAPPERFS" --tables "$WORK/tables" "$MNT" 2>&1) && fail "mounted with half a backup"
[[ $said == *"$WORK/tables"*begin*commit* ]] || fail "'$said' does not say what is missing"
same "mount after half a backup" "" "$(mount_line)"

# --- signals: a clean end with 0, what was written is on the file ---
truncate -s 1M "$WORK/file"
for signal in TERM INT HUP; do
  start
  control "disk: 0 2048 loop $WORK/file"
  printf '%s' "$signal" | timeout 5 dd of="$MNT/disk" conv=notrunc status=none
  kill -"$signal" "$DAEMON_PID"
  wait_daemon 0
  wait_unmounted
  same "data after SIG$signal" "$signal" "$(head -c ${#signal} "$WORK/file")"
done

# --- a busy mount: unmounting is refused, SIGTERM ends it all the same ---
start
control "disk: 0 2048 ram" "suspend disk"
exec 5<>"$MNT/disk"
timeout 10 fusermount3 -u "$MNT" 2>/dev/null && fail "unmounted while busy"
(timeout 30 dd if=/dev/zero of="$MNT/disk" bs=4096 count=1 status=none 2>/dev/null || :) &
writer=$!
kill -TERM "$DAEMON_PID"
wait_daemon 0
wait "$writer"
exec 5>&-
wait_unmounted

# --- limits of the shell that it came from ---
truncate -s 64K "$WORK/limited"
(
  ulimit -Sn 64
  ulimit -f 16  # KiB
  exec "$MAPPERFS" -f --transport "$MAPPERFS_TRANSPORT" "$MNT" 2>>"$WORK/daemon.log"
) &
DAEMON_PID=$!
wait_mounted || fail "did not mount under a shell's limits"
files=$(awk '/^Max open files/ { print $4, $5 }' "/proc/$DAEMON_PID/limits")
same "descriptors, soft limit" "${files#* }" "${files% *}"
control "disk: 0 128 loop $WORK/limited"
timeout 10 dd if=/dev/zero of="$MNT/disk" bs=4096 count=1 conv=notrunc status=none
timeout 10 dd if=/dev/zero of="$MNT/disk" bs=4096 count=1 seek=8 conv=notrunc status=none 2>/dev/null &&
  fail "wrote past the limit of file sizes"
timeout 5 test -e "$MNT/control" || fail "the limit of file sizes ended the daemon"
stop

# --- killed: the mount is dead, cleaned up by unmounting, and comes back ---
start
control "disk: 0 2048 loop $WORK/file"
kill -9 "$DAEMON_PID"
wait_daemon 137
timeout 5 ls "$MNT" 2>/dev/null && fail "a dead mount answers"
timeout 5 fusermount3 -u "$MNT"
start
control "disk: 0 2048 loop $WORK/file"
stop

# --- as mount(8) does it, which would look for mapperfs in its own path only ---
helper=$(command -v mount.fuse3 || echo /sbin/mount.fuse3)
if [ "$(id -u)" = 0 ] && [ -x "$helper" ]; then
  ln -s "$(realpath "$MAPPERFS")" "$WORK/mapperfs"
  PATH=$WORK:$PATH timeout 20 "$helper" shelf "$MNT" -t fuse.mapperfs \
    -o "rw,transport=$MAPPERFS_TRANSPORT,allow_other" || fail "mount.fuse3"
  same "by mount(8)" "shelf fuse.mapperfs" "$(mount_line)"
  timeout 10 umount "$MNT"
  wait_unmounted
fi
