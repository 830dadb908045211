#!/usr/bin/env bash
# A slow disk below: a loop device on a delayed device of another mount. What is written there is read back,
# also where a read met the write in flight, and a full queue of it is felt by its own device alone.
. "$(dirname "$0")/lib.sh"
need_fuse
need python3 fio
need_loop

# --- the other mount ---
mkdir "$WORK/below"
finish() {
  local code=$1 loop
  timeout 10 fusermount3 -uzq "$MNT"
  for loop in $(own_loops); do timeout 20 losetup -d "$loop" 2>/dev/null; done
  timeout 10 fusermount3 -uzq "$WORK/below"
  kill "$BELOW_PID" 2>/dev/null
  cleanup "$code"
}
trap 'code=$?; set +e; finish $code' EXIT
"$MAPPERFS" -f --transport "$MAPPERFS_TRANSPORT" "$WORK/below" >>"$WORK/below.log" 2>&1 &
BELOW_PID=$!
for ((i = 0; i < 500; ++i)); do
  timeout 5 test -e "$WORK/below/control" && break
  read -r -t 0.02 <> <(:) || true
done
printf '%s\n' "base: 0 131072 ram" "slow: 0 65536 delay base 0 0 base 0 1000" \
  "full: 0 65536 delay base 65536 1000" |
  timeout 30 python3 "$(dirname "$0")/ctl.py" "$WORK/below" || fail "the tables below"

start
attach_file "$WORK/below/slow" --direct-io=on
control "slow: 0 65536 linear $LOOP 0"
attach_file "$WORK/below/full" --direct-io=on
control "full: 0 65536 linear $LOOP 0"
full_disk=${LOOP#/dev/}
truncate -s 32M "$WORK/plain"
attach_file "$WORK/plain"
control "plain: 0 65536 linear $LOOP 0" "ram: 0 65536 ram"

# --- a read that meets a write in flight ---
timeout 120 python3 - "$MNT/slow" <<'PYTHON' || fail "stale data"
import mmap, os, sys, threading, time

fd = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT)
page = mmap.mmap(-1, 4096)
for at in range(4):
    new = mmap.mmap(-1, 4096)
    new.write(bytes([65 + at]) * 4096)
    writer = threading.Thread(target=os.pwritev, args=(fd, [new], at * 65536))
    writer.start()
    before = time.monotonic()
    while writer.is_alive() and time.monotonic() - before < 0.5:
        os.preadv(fd, [page], at * 65536)
    assert writer.is_alive(), "the write took no second: the disk is not slow"
    writer.join()
    for i in range(3):
        os.preadv(fd, [page], at * 65536)
        assert page[:] == new[:], f"offset {at * 65536}, read {i}: {page[0]}, not {new[0]}"
PYTHON

# --- a full queue ---
timeout 60 fio --name=full --filename="$MNT/full" --rw=randread --bs=4k --direct=1 --ioengine=libaio --iodepth=300 \
  --runtime=6 --time_based --size=32M --output="$WORK/fio.txt" &
reader=$!
timeout 60 python3 - "/sys/block/$full_disk/inflight" "$MNT/ram" "$MNT/plain" <<'PYTHON' || fail "others wait for the slow disk"
import mmap, os, sys, time

begin = time.monotonic()
while int(open(sys.argv[1]).read().split()[0]) < 100:  # of its 128 requests
    assert time.monotonic() - begin < 20, "the disk's queue does not fill"
page = mmap.mmap(-1, 4096)
for path in sys.argv[2:]:
    count, worst, begin = 0, 0.0, time.monotonic()
    while time.monotonic() - begin < 1.5:
        before = time.monotonic()
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
        os.preadv(fd, [page], count % 1000 * 4096)
        os.close(fd)
        worst, count = max(worst, time.monotonic() - before), count + 1
    name = os.path.basename(path)
    print(f"{name}: {count} reads, the longest {worst * 1000:.1f} ms", flush=True)
    assert count >= 100 and worst < 0.5, name
PYTHON
kill -0 "$reader" || fail "fio ended early: $(tail -n 30 "$WORK/fio.txt")"
control "suspend full" "resume full"
wait "$reader" || fail "fio: $(tail -n 30 "$WORK/fio.txt")"
grep -o "IOPS=[0-9.k]*" "$WORK/fio.txt" | sed 's/^/full: /'
control "remove slow" "remove full" "remove plain" "remove ram"
stop
