#!/usr/bin/env bash
# Tables that name devices of their own mount: by name, by path, through a link; loops of them.
. "$(dirname "$0")/lib.sh"
need_fuse
need python3
start
ln -s "$MNT" "$WORK/link"
control "low: 0 2048 ram"
control "byname: 0 1024 linear low 0" "bypath: 0 1024 linear $MNT/low 1024" \
  "bylink: 0 1024 linear $WORK/link/low 0"
for device in byname bypath bylink; do
  same "dependency of $device" "0=low" "$(timeout 5 cut -d: -f2 "$MNT/sys/$device/deps")"
done
same "printed by name" "0 1024 linear low 1024" "$(timeout 5 cat "$MNT/sys/bypath/table")"
printf 'through' | timeout 5 dd of="$MNT/bypath" conv=notrunc status=none
same "seen below" "through" "$(timeout 5 dd if="$MNT/low" bs=512 skip=1024 count=1 status=none | tr -d '\0')"
refused EINVAL low "low: 0 2048 linear low 0"
refused EINVAL low "low: 0 2048 linear $MNT/low 0"
refused EINVAL byname "low: 0 1024 linear byname 0"
refused EBUSY low "remove low"
refused "ENOTBLK|ENOENT" control "x: 0 8 linear $MNT/control 0"
refused "ENXIO|ENOENT" nowhere "x: 0 8 linear $MNT/nowhere 0"
same "nothing left behind" "bylink byname bypath low" "$(control list | cut -f1 | sort | xargs)"

# A loop device of the own mount, and a file of a file system on it: refused before anything is read.
if [ "$(id -u)" = 0 ] && losetup -f >/dev/null 2>&1; then
  control "disk: 0 65536 ram"
  attach disk
  refused ELOOP "inside this mount" "top: 0 8 linear $LOOP 0"
  ln -s "$LOOP" "$WORK/alias"
  refused ELOOP "inside this mount" "top: 0 8 linear $WORK/alias 0"
  if need_fs ext4; then
    timeout 60 mkfs.ext4 -q -F "$LOOP" || fail "mkfs.ext4"
    mkdir "$WORK/at"
    timeout 20 mount "$LOOP" "$WORK/at" || fail "mount"
    timeout 20 truncate -s 1M "$WORK/at/file"
    refused ELOOP "inside this mount" "top: 0 8 loop $WORK/at/file"
    timeout 20 umount "$WORK/at"
  fi
  detach "$LOOP"
  for ((i = 0; i < 250; ++i)); do
    control "remove disk" 2>/dev/null && break
    read -r -t 0.02 <> <(:) || true
  done
  same "removed" "" "$(control list | cut -f1 | grep -x disk || true)"
else
  part_skipped "loop devices of the own mount: need root and a loop device"
fi

control "remove byname" "remove bypath" "remove bylink" "remove low"

# A stack as deep as is allowed, and one more.
control "d0: 0 2048 ram"
depth=0
while [ $depth -lt 40 ] && control "d$((depth + 1)): 0 2048 linear d$depth 0" 2>"$WORK/said"; do
  depth=$((depth + 1))
done
[ $depth -ge 16 ] && [ $depth -lt 40 ] || fail "a stack of $depth: $(cat "$WORK/said")"
printf 'deep' | timeout 5 dd of="$MNT/d$depth" conv=notrunc status=none
same "through all layers" "deep" "$(timeout 5 head -c 4 "$MNT/d0")"
stop
