#!/usr/bin/env bash
# Devices that the kernel serves itself: data, flushes, what is refused meanwhile, and when the engine
# serves after all.
. "$(dirname "$0")/lib.sh"
need_fuse
need python3 fio setpriv
CTL=${MAPPERCTL:?set it to mapperctl}
export MAPPERFS_MOUNT=$MNT
served() { timeout 5 cat "$MNT/sys/$1/served"; }
# What the log said last, without the device's name.
said() { timeout 5 tail -1 "$MNT/sys/log"; }
# hold NAME: a reader that keeps the device open until `let_go`.
hold() {
  exec {HELD}<"$MNT/$1"
}
let_go() { exec {HELD}<&-; }
SECTORS=65536

start
truncate -s $((SECTORS * 512)) "$WORK/file"
control "create --passthrough ram" "ram: 0 $SECTORS ram"
hold ram
case $(served ram) in
  passthrough) ;;
  *CAP_SYS_ADMIN* | *"has no"*passthrough*) skip "no passthrough here: $(served ram)" ;;
  *) fail "ram is served by $(served ram)" ;;
esac

# --- while it is open: the table stays ---
case $("$CTL" served ram) in "ram: passthrough") ;; *) fail "mapperctl served: $("$CTL" served ram)" ;; esac
refused EBUSY "open with passthrough" "suspend ram"
refused EBUSY "open with passthrough" "ram: 0 $SECTORS zero"
refused EBUSY "open with passthrough" "wipe_table ram"
refused EBUSY "open with passthrough" "remove --force ram"
same "inactive after refusals" "" "$(timeout 5 cat "$MNT/sys/ram/inactive")"
control "resume ram"
"$CTL" suspend ram >"$WORK/out" 2>&1 && fail "mapperctl suspended it"
grep -q "open with passthrough" "$WORK/out" || fail "mapperctl says: $(cat "$WORK/out")"
let_go
# Closed a moment ago: the suspend waits for that.
control "suspend ram" "resume ram"
same "closed" "engine; passthrough from the next open on" "$(served ram)"

# --- data, both ways in ---
"$CTL" create --passthrough loop --table "0 $SECTORS loop $WORK/file 0" || fail "mapperctl create"
"$CTL" create --passthrough line --table "0 $SECTORS linear $WORK/file 0" || fail "mapperctl create"
for name in ram loop line; do
  for direct in 0 1; do
    timeout 60 fio --name=v --filename="$MNT/$name" --size=32M --rw=randwrite --bsrange=4k-64k --ioengine=libaio \
      --iodepth=8 --direct=$direct --verify=crc32c --do_verify=1 --verify_fatal=1 --verify_state_save=0 --end_fsync=1 \
      >"$WORK/fio" 2>&1 || fail "fio on $name, direct=$direct: $(tail -5 "$WORK/fio")"
  done
  hold $name
  same "$name" "passthrough" "$(served $name)"
  let_go
done
# Written past the engine, read through it, and back.
control "passthrough ram off" "passthrough loop off"
for name in ram loop; do
  control "passthrough $name on"
  printf 'by the kernel' | dd of="$MNT/$name" bs=1 seek=4090 conv=notrunc,fsync status=none
  control "passthrough $name off"
  same "$name through the engine" "by the kernel" "$(dd if="$MNT/$name" bs=1 skip=4090 count=13 status=none)"
  printf 'by the engine' | dd of="$MNT/$name" bs=1 seek=8190 conv=notrunc,fsync status=none
  control "passthrough $name on"
  same "$name by the kernel" "by the engine" "$(dd if="$MNT/$name" bs=1 skip=8190 count=13 status=none)"
done
same "in the file" "by the engine" "$(dd if="$WORK/file" bs=1 skip=8190 count=13 status=none)"
# Through shared memory: what is stored there, what another writes, and the engine sees both afterwards.
for name in ram loop; do
  python3 - "$MNT/$name" <<'END' || fail "mmap of $name"
import mmap
import os
import sys

fd = os.open(sys.argv[1], os.O_RDWR)
view = mmap.mmap(fd, 1 << 20, mmap.MAP_SHARED)
view[12300:12309] = b"by memory"
view.flush()
assert os.pread(fd, 9, 12300) == b"by memory", os.pread(fd, 9, 12300)
os.pwrite(fd, b"by a write", 16400)
assert view[16400:16410] == b"by a write", view[16400:16410]
view[(1 << 20) - 4:] = b"last"
view.close()
os.fsync(fd)
os.close(fd)
END
  hold $name
  same "$name" "passthrough" "$(served $name)"
  let_go
  control "passthrough $name off"
  same "$name, mapped, through the engine" "by memory" "$(dd if="$MNT/$name" bs=1 skip=12300 count=9 status=none)"
  same "$name, the page behind" "by a write" "$(dd if="$MNT/$name" bs=1 skip=16400 count=10 status=none)"
  same "$name, the last" "last" "$(dd if="$MNT/$name" bs=1 skip=$(((1 << 20) - 4)) count=4 status=none)"
  control "passthrough $name on"
done
same "in the file, by memory" "by memory" "$(dd if="$WORK/file" bs=1 skip=12300 count=9 status=none)"
# Discards come to the engine; whoever reads by the kernel sees them.
hold loop
timeout 10 fallocate -p -o 4096 -l 4096 "$MNT/loop"
same "after a discard" "$(head -c 13 /dev/zero | sha256sum)" "$(dd if="$MNT/loop" bs=1 skip=4096 count=13 status=none | sha256sum)"
let_go
# A ram never grows, whoever writes.
dd if=/dev/zero of="$MNT/ram" bs=4096 seek=$((SECTORS / 8)) count=1 conv=notrunc status=none 2>/dev/null &&
  fail "written past the end of ram"
same "size" $((SECTORS * 512)) "$(stat -c %s "$MNT/ram")"

# --- fsync comes to the engine, which flushes the file; reads and writes do not come ---
hold loop
read -r reads _ _ _ writes _ _ _ _ _ _ _ _ _ _ flushes _ <"$MNT/sys/loop/stats"
printf x | dd of="$MNT/loop" bs=1 conv=notrunc,fsync status=none
dd if="$MNT/loop" of=/dev/null bs=4096 count=1 status=none
same "counts: reads, writes, flushes" "$reads $writes $((flushes + 1))" \
  "$(awk '{print $1, $5, $16}' "$MNT/sys/loop/stats")"
let_go

# --- a file system on it ---
if [ "$(id -u)" = 0 ] && losetup -f >/dev/null 2>&1 && need_fs ext4; then
  attach loop
  timeout 60 mkfs.ext4 -q -F "$LOOP" || fail "mkfs"
  mkdir "$WORK/at"
  timeout 20 mount "$LOOP" "$WORK/at"
  seq 200000 >"$WORK/at/numbers"
  sum=$(sha256sum <"$WORK/at/numbers")
  timeout 20 umount "$WORK/at"
  detach "$LOOP"
  timeout 60 fsck.ext4 -fn "$MNT/loop" >/dev/null 2>&1 || fail "fsck by the kernel"
  control "passthrough loop off"
  attach loop
  timeout 20 mount "$LOOP" "$WORK/at"
  same "a file written past the engine" "$sum" "$(sha256sum <"$WORK/at/numbers")"
  timeout 20 umount "$WORK/at"
  detach "$LOOP"
fi

# --- tables that are not one whole file: the engine serves, and says why once ---
truncate -s 1M "$WORK/a" "$WORK/b"
# engine_serves NAME WHY
engine_serves() {
  hold "$1"
  case $(served "$1") in "engine; no passthrough: "*"$2"*) ;; *) fail "$1 is served by $(served "$1")" ;; esac
  case $(said) in "$1: no passthrough, the engine serves it: "*"$2"*) ;; *) fail "the log says: $(said)" ;; esac
  let_go
}
control "create --passthrough two" "two: 0 2048 loop $WORK/a 0" "two: 2048 2048 loop $WORK/b 0"
engine_serves two "the table has 2 targets"
printf 'across' | dd of="$MNT/two" bs=1 seek=$((2048 * 512 - 3)) conv=notrunc status=none
same "across two files" "acr" "$(tail -c 3 "$WORK/a")"
control "create --passthrough part" "part: 0 2040 loop $WORK/a 8"
engine_serves part "not the whole of"
control "create --readonly --passthrough ro" "ro: 0 2048 loop $WORK/a 0"
engine_serves ro "read-only"
control "create --passthrough over" "over: 0 $SECTORS linear ram 0"
engine_serves over "is no file"
# Suspended when it was opened: the engine holds its I/O back.
control "suspend loop" "passthrough loop on"
hold loop
same "suspended" "engine; no passthrough: the device was suspended" "$(served loop)"
control "resume loop"
let_go
control "remove_all"
stop

# --- for every device of the mount, but those that say no ---
start -o passthrough
control "disk: 0 2048 ram" "engine: 0 2048 ram" "passthrough engine off"
hold disk
same "by the mount's option" "passthrough" "$(served disk)"
let_go
hold engine
same "against the mount's option" "engine" "$(served engine)"
let_go
# What is open does not keep the daemon from ending.
hold disk
kill "$DAEMON_PID"
let_go
wait_daemon 0

# --- without root ---
if [ ! -u "$(command -v fusermount3)" ]; then
  part_skipped "without root: fusermount3 is not setuid root"
  exit 0
fi
let_users_mount
chmod 755 "$WORK"
cp "$MAPPERFS" "$WORK/mapperfs"
chown -R 65534:65534 "$WORK"
user() { timeout 30 setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
user "$WORK/mapperfs" --transport "$MAPPERFS_TRANSPORT" -o passthrough "$MNT" || fail "mount as a user"
user sh -c 'echo "disk: 0 2048 ram" >"$0/control"' "$MNT" || fail "control as a user"
printf 'hello' | user dd of="$MNT/disk" conv=notrunc status=none || fail "write as a user"
case $(user cat "$MNT/sys/disk/served") in *CAP_SYS_ADMIN*) ;; *) fail "a user's: $(user cat "$MNT/sys/disk/served")" ;; esac
user fusermount3 -u "$MNT" || fail "unmount as a user"
