#!/usr/bin/env bash
# More I/O waits for a suspended device than the transport has places: the resume gets through all the same, and
# what waited is done.
. "$(dirname "$0")/lib.sh"
need_fuse
need fio python3
start -o io_uring_q_depth=8
control "disk: 0 131072 ram" "suspend disk"
timeout 60 fio --name=deep --filename="$MNT/disk" --rw=randwrite --bs=4k --direct=1 --ioengine=libaio --iodepth=64 \
  --numjobs=4 --thread --size=8M --number_ios=500 --output="$WORK/fio.txt" &
writer=$!
for ((i = 0; i < 20; ++i)); do
  timeout 10 cat "$MNT/sys/disk/status" >/dev/null || fail "the status of the suspended device"
  read -r -t 0.05 <> <(:) || true
done
kill -0 "$writer" || fail "fio ended although the device is suspended: $(cat "$WORK/fio.txt")"
control "resume disk"
wait "$writer" || fail "fio: $(tail -n 30 "$WORK/fio.txt")"

# What is no depth is refused.
stop
for depth in 3 1025 x ""; do
  if timeout 10 "$MAPPERFS" -o "io_uring_q_depth=$depth" "$MNT" 2>"$WORK/said"; then fail "a depth of '$depth'"; fi
  grep -q "between 4 and 1024" "$WORK/said" || fail "a depth of '$depth': $(cat "$WORK/said")"
done
