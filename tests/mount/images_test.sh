#!/usr/bin/env bash
# Images in and out: cat, cp, dd, qemu-img, nbdkit and nbdcopy.
. "$(dirname "$0")/lib.sh"
need_fuse
need python3 cp dd
start
truncate -s 24M "$WORK/img"
dd if=/dev/urandom of="$WORK/img" bs=1M seek=3 count=5 conv=notrunc status=none
dd if=/dev/urandom of="$WORK/img" bs=1000 seek=16001 count=77 conv=notrunc status=none
control "disk: 0 49152 ram"
same_data() { timeout 30 cmp "$WORK/img" "$MNT/disk" || fail "$1 changed the data"; }
wipe() { timeout 30 dd if=/dev/zero of="$MNT/disk" bs=1M count=24 conv=notrunc status=none; }

timeout 30 cat "$WORK/img" > "$MNT/disk"
same_data "cat"
wipe
timeout 30 cp "$WORK/img" "$MNT/disk"
same_data "cp"
wipe
timeout 30 dd if="$WORK/img" of="$MNT/disk" bs=64K conv=fsync status=none
same_data "dd conv=fsync"
wipe
timeout 30 dd if="$WORK/img" of="$MNT/disk" bs=1M oflag=direct,dsync status=none
same_data "dd oflag=direct,dsync"
timeout 30 cp --sparse=always "$MNT/disk" "$WORK/out"
cmp "$WORK/img" "$WORK/out" || fail "cp --sparse out"
same "size" "$((24 << 20))" "$(stat -c %s "$MNT/disk")"

if command -v qemu-img >/dev/null; then
  timeout 30 fallocate -p -l 24M "$MNT/disk"
  timeout 60 qemu-img convert -n -f raw -O raw "$WORK/img" "$MNT/disk" || fail "qemu-img convert -n"
  same_data "qemu-img convert"
  timeout 60 qemu-img compare -f raw -F raw "$WORK/img" "$MNT/disk" >/dev/null || fail "qemu-img compare"
  timeout 60 qemu-img map -f raw --output json "$MNT/disk" > "$WORK/map" || fail "qemu-img map"
  python3 - "$WORK/map" <<'PY' || fail "qemu-img map: $(cat "$WORK/map")"
import json, sys
runs = json.load(open(sys.argv[1]))
data = sum(run["length"] for run in runs if run["data"])
# What qemu-img wrote: 5 MiB and a bit, in its own granularity.
sys.exit(not (5 << 20) <= data <= (8 << 20))
PY
  timeout 60 qemu-img bench -f raw -w -t none -c 2000 -d 16 -s 4096 "$MNT/disk" >/dev/null || fail "qemu-img bench"
  timeout 60 qemu-img convert -f raw -O qcow2 "$MNT/disk" "$WORK/out.qcow2" || fail "qemu-img convert out"
else
  part_skipped "qemu-img is missing"
fi

if command -v nbdkit >/dev/null && command -v nbdcopy >/dev/null; then
  wipe
  # Not straight into the file: nbdcopy truncates files, and a device keeps its size.
  timeout 60 nbdkit -U - file "$MNT/disk" --run "nbdcopy $WORK/img \$uri" || fail "nbdcopy in"
  same_data "nbdcopy in"
  truncate -s 24M "$WORK/nbd"
  timeout 60 nbdkit -U - file "$MNT/disk" --run "nbdcopy \$uri $WORK/nbd" || fail "nbdcopy out"
  cmp "$WORK/img" "$WORK/nbd" || fail "nbdcopy out changed the data"
else
  part_skipped "nbdkit or nbdcopy is missing"
fi
control "remove disk"
stop
