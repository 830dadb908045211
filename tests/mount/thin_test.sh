#!/usr/bin/env bash
# Thin pools and the mount: metadata that would lie inside it, and the daemon's options for pools.
. "$(dirname "$0")/lib.sh"
need_fuse
need python3 dd fallocate
truncate -s 16M "$WORK/data"
start -o thin_no_space_timeout=1,thin_cache=4M
mkdir "$WORK/real"
ln -s "$MNT" "$WORK/link"

# Inside the own mount, by whatever way: an answer instead of a deadlock.
for meta in "$MNT/meta" "$MNT" "$MNT/sys/deep" "$WORK/link/meta" "$WORK/real/../mnt/meta"; do
  refused EINVAL "lies inside this mount" "pool: 0 4096 thin-pool $meta $WORK/data 128 0"
done

# Two blocks for three: the third waits a second, then fails.
control "pool: 0 256 thin-pool $WORK/meta $WORK/data 128 0"
control "message pool 0 create_thin 0" "thin: 0 4096 thin pool 0"
write() { timeout 30 dd if=/dev/zero of="$MNT/thin" bs=64K count=1 seek="$1" conv=notrunc status=none 2>&1; }
write 0 && write 1 || fail "writing what there is room for"
said=$(write 2) && fail "there was room for a third block"
[[ $said == *"No space left"* ]] || fail "the third block gave '$said'"
grep -q "out_of_data_space .* error_if_no_space" "$MNT/sys/pool/status" || fail "$(cat "$MNT/sys/pool/status")"
control "remove thin" "remove pool"

# What is mapped is data, the rest a hole: of a thin device, and of one before an image that has holes of its own.
truncate -s 320K "$WORK/image"
dd if=/dev/urandom of="$WORK/image" bs=64K seek=1 count=1 conv=notrunc status=none
control "pool: 0 8192 thin-pool $WORK/meta2 $WORK/data 128 0"
control "message pool 0 create_thin 0" "message pool 0 create_thin 1"
control "thin: 0 2048 thin pool 0" "over: 0 2048 thin pool 1 $WORK/image"
put() { timeout 30 dd if=/dev/urandom of="$MNT/$1" bs=64K count=1 seek="$2" conv=notrunc status=none; }
put thin 2
put thin 3
put thin 9
put over 9
# extents FILE: its data as lseek() tells it, in blocks of 64 KiB, and what st_blocks says, in the same: that
# is counted once a second.
extents() {
  timeout 30 python3 - "$1" <<'EOF'
import os, sys, time
file = os.open(sys.argv[1], os.O_RDONLY)
size, at, found, data = os.fstat(file).st_size, 0, [], 0
while True:
    try:
        begin = os.lseek(file, at, os.SEEK_DATA)
    except OSError:
        break
    at = os.lseek(file, begin, os.SEEK_HOLE)
    found.append(f"{begin / 65536:g}-{at / 65536:g}")
    data += at - begin
deadline = time.monotonic() + 5
while os.fstat(file).st_blocks * 512 != data and time.monotonic() < deadline:
    time.sleep(0.02)
print(*found, "of", size >> 16, "st_blocks", os.fstat(file).st_blocks / 128)
EOF
}
same "a thin device's data" "2-4 9-10 of 16 st_blocks 3.0" "$(extents "$MNT/thin")"
same "data over an image" "1-2 9-10 of 16 st_blocks 2.0" "$(extents "$MNT/over")"
control "message pool 0 create_snap 2 0" "snap: 0 4096 thin pool 2"
same "a longer snapshot's data" "2-4 9-10 of 32 st_blocks 3.0" "$(extents "$MNT/snap")"
fallocate -p -o 131072 -l 65536 "$MNT/thin"
same "after a discard" "3-4 9-10 of 16 st_blocks 2.0" "$(extents "$MNT/thin")"
same "du after a discard" 128 "$(du -k "$MNT/thin" | cut -f1)"
cp --sparse=auto "$MNT/snap" "$WORK/copy"
cmp "$MNT/snap" "$WORK/copy" || fail "a sparse copy differs"
same "the sparse copy's data" "2-4 9-10 of 32 st_blocks 3.0" "$(extents "$WORK/copy")"
control "remove snap" "remove over"

# The metadata are looked at while somebody writes: through the metadata snapshot, which stays as it is, and at
# the last commit.
touch "$WORK/writing"
while [ -e "$WORK/writing" ]; do
  for block in 0 1 5 6 7; do
    put thin "$block"
    timeout 30 fallocate -p -o $((block * 65536)) -l 65536 "$MNT/thin"
  done
done &
writer=$!
control "message pool 0 reserve_metadata_snap"
held=$(timeout 60 "$MAPPERCTL" thin-dump -m "$WORK/meta2")
for option in -m --live -m --live -m --live; do
  timeout 60 "$MAPPERCTL" thin-check "$option" "$WORK/meta2" >"$WORK/check" 2>&1 || fail "thin-check $option: $(cat "$WORK/check")"
done
same "what the metadata snapshot holds" "$held" "$(timeout 60 "$MAPPERCTL" thin-dump -m "$WORK/meta2")"
kill -0 $writer || fail "nobody writes any more"
rm "$WORK/writing"
wait $writer || fail "writing beside thin-check failed"
control "message pool 0 release_metadata_snap" "remove thin" "remove pool"
"$MAPPERCTL" thin-check "$WORK/meta2" >"$WORK/check" 2>&1 || fail "thin-check: $(cat "$WORK/check")"
stop

for option in thin_cache=1M thin_cache=4 thin_no_space_timeout=x thin_no_space_timeout=; do
  said=$("$MAPPERFS" -f -o "$option" "$MNT" 2>&1) && fail "-o $option was taken"
  [[ $said == *"$option"* || $said == *"\"${option#*=}\""* ]] || fail "-o $option: '$said'"
done
