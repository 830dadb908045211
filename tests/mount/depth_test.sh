#!/usr/bin/env bash
# More I/O waits for suspended devices than the transport has places, or the daemon threads: the resume gets through
# all the same, and what waited is done.
. "$(dirname "$0")/lib.sh"
need_fuse
need fio python3 taskset
FIO_PID=

end_fio() {
  local code=$?
  [ -z "$FIO_PID" ] || kill -INT "$FIO_PID" 2>/dev/null || :
  cleanup $code
}
trap end_fio EXIT

# written NAME: writes that the device has done.
written() { timeout 10 awk '{ print $5 }' "$MNT/sys/$1/stats"; }

# await_more NAME COUNT: until it has done more than that.
await_more() {
  local i
  for ((i = 0; i < 400; ++i)); do
    [ "$(written "$1")" -le "$2" ] || return 0
    kill -0 "$FIO_PID" || fail "fio ended: $(tail -n 30 "$WORK/fio.txt")"
    read -r -t 0.05 <> <(:) || true
  done
  fail "no more than $2 writes were done"
}

# --- more asynchronous I/O than places, all of one core ---
core=$(taskset -cp $$ | sed 's/.*[: ]\([0-9]*\).*/\1/')
start -o io_uring_q_depth=8
control "disk: 0 131072 ram"
taskset -c "$core" fio --name=deep --filename="$MNT/disk" --rw=randwrite --bs=4k --direct=1 --ioengine=libaio \
  --iodepth=64 --numjobs=4 --thread --size=8M --time_based --runtime=100 --output="$WORK/fio.txt" &
FIO_PID=$!
await_more disk 0
control "suspend disk"
count=$(written disk)
for ((i = 0; i < 20; ++i)); do
  timeout 10 cat "$MNT/sys/disk/status" >/dev/null || fail "the status of the suspended device"
  read -r -t 0.05 <> <(:) || true
done
kill -0 "$FIO_PID" || fail "fio ended although the device is suspended: $(cat "$WORK/fio.txt")"
same "writes while suspended" "$count" "$(written disk)"

# --- and as many threads with synchronous I/O as the other half of the places has room for beside one command ---
timeout 60 taskset -c "$core" python3 - "$MNT/disk" 3 >"$WORK/waiting" <<'END' &
import os
import sys
import threading

path, count = sys.argv[1], int(sys.argv[2])
fd = os.open(path, os.O_RDWR)
threads = [threading.Thread(target=os.pwrite, args=(fd, b"x" * 4096, at * 4096)) for at in range(count)]
for thread in threads:
    thread.start()
looks = 0
while looks < 10:  # asleep each time: in their writes
    states = [open(f"/proc/self/task/{thread.native_id}/stat").read().rsplit(")", 1)[1].split()[0] for thread in threads]
    looks = looks + 1 if set(states) <= {"S", "D"} and all(thread.is_alive() for thread in threads) else 0
    threading.Event().wait(0.02)
print("waiting", flush=True)
for thread in threads:
    thread.join()
END
writers=$!
for ((i = 0; i < 400; ++i)); do
  [ ! -s "$WORK/waiting" ] || break
  read -r -t 0.05 <> <(:) || true
done
same "synchronous writers" "waiting" "$(cat "$WORK/waiting")"
same "writes while suspended" "$count" "$(written disk)"
timeout 30 taskset -c "$core" python3 "$(dirname "$0")/ctl.py" "$MNT" <<<"resume disk" || fail "resume"
wait "$writers" || fail "the synchronous writers"
await_more disk "$count"
kill -INT "$FIO_PID"
wait "$FIO_PID" || :
FIO_PID=
grep -q "err= 0" "$WORK/fio.txt" || fail "fio: $(tail -n 30 "$WORK/fio.txt")"
stop

# --- unaligned writes, which threads of their own do, to many suspended devices ---
start
timeout 100 python3 - "$MNT" <<'END' || fail "unaligned writes"
import os
import sys
import threading

mount, many = sys.argv[1], 80


def control(text):
    fd = os.open(f"{mount}/control", os.O_RDWR)
    os.write(fd, text.encode())
    os.close(fd)


def write(name):
    fd = os.open(f"{mount}/{name}", os.O_RDWR)
    assert os.pwrite(fd, name.encode(), 100) == len(name)
    os.close(fd)


names = [f"d{nr}" for nr in range(many)]
control("free: 0 2048 ram\n" + "".join(f"{name}: 0 2048 ram\n" for name in names))
control("".join(f"suspend {name}\n" for name in names))
threads = [threading.Thread(target=write, args=(name,)) for name in names]
for thread in threads:
    thread.start()
threading.Event().wait(0.5)  # not long enough only makes the test easier
assert all(thread.is_alive() for thread in threads)
write("free")
control("".join(f"resume {name}\n" for name in names))
for thread, name in zip(threads, names):
    thread.join()
    with open(f"{mount}/{name}", "rb") as file:
        assert file.read(100 + len(name))[100:] == name.encode()
END
stop

# What is no depth is refused.
for depth in 3 1025 x ""; do
  if timeout 10 "$MAPPERFS" -o "io_uring_q_depth=$depth" "$MNT" 2>"$WORK/said"; then fail "a depth of '$depth'"; fi
  grep -q "between 4 and 1024" "$WORK/said" || fail "a depth of '$depth': $(cat "$WORK/said")"
done
