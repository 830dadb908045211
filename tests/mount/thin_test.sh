#!/usr/bin/env bash
# Thin pools and the mount: metadata that would lie inside it, and the daemon's options for pools.
. "$(dirname "$0")/lib.sh"
need_fuse
need python3 dd
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
stop

for option in thin_cache=1M thin_cache=4 thin_no_space_timeout=x thin_no_space_timeout=; do
  said=$("$MAPPERFS" -f -o "$option" "$MNT" 2>&1) && fail "-o $option was taken"
  [[ $said == *"$option"* || $said == *"\"${option#*=}\""* ]] || fail "-o $option: '$said'"
done
