#!/usr/bin/env bash
# Removing what is open, and removing right after it was closed.
. "$(dirname "$0")/lib.sh"
need_fuse
need python3
start
control "disk: 0 2048 ram"
exec 5<>"$MNT/disk"
same "open count" "1" "$(control 'list disk' | cut -f6)"
refused EBUSY disk "remove disk"
timeout 5 rm "$MNT/disk" 2>/dev/null && fail "rm of an open device"
control "remove --deferred disk"
same "deferred" "D" "$(control 'list disk' | cut -f11)"
control "cancel_deferred_remove disk"
same "cancelled" "" "$(control 'list disk' | cut -f11)"
control "remove --deferred disk"
exec 5>&-
for ((i = 0; i < 200; ++i)); do
  [ -e "$MNT/disk" ] || break
done
[ ! -e "$MNT/disk" ] || fail "still there after its last close"

# remove right after close(2): the kernel tells us of the close some time later.
for ((i = 0; i < 100; ++i)); do
  printf 'disk: 0 2048 ram\n' > "$MNT/control"
  timeout 5 dd if=/dev/zero of="$MNT/disk" bs=64K count=4 status=none
  printf 'remove disk\n' > "$MNT/control" || fail "remove right after close, round $i"
done

# A forced remove of an open device: its I/O fails, it stays until it is closed.
control "disk: 0 2048 ram"
exec 5<>"$MNT/disk"
refused EBUSY disk "remove --force disk"
timeout 5 dd if="$MNT/disk" of=/dev/null count=1 status=none 2>/dev/null && fail "reads after --force"
exec 5>&-
control "remove disk"
same "devices" "" "$(control list)"
stop
