#!/usr/bin/env python3
"""A mount that nobody uses takes no processor: after I/O of every kind there comes a time in which not one thread of
the daemon runs. What wakes every REST_S seconds or oftener would be seen; what sleeps longer would not."""
import mmap
import os
import subprocess
import time

from lib import LONG, Mount

# The rest that is wanted: docs/performance.md, "What wakes by the clock".
REST_S = 20 if LONG else 5
PATIENCE_S = 60
# io_uring's threads for calls that wait, flushes above all, are the kernel's own: the last of them looks every 5 s
# whether it is still wanted.
KERNELS = "iou-wrk"


def runs(pid):
    """{thread: (CPU time in ticks, times it was put on a processor and taken off)}"""
    found = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/stat") as stat, open(f"/proc/{pid}/task/{task}/status") as status:
                text = stat.read()
                switches = [int(line.split()[1]) for line in status if "ctxt_switches" in line]
        except OSError:
            continue  # ended meanwhile, which the next look tells
        name = text[text.index("(") + 1:text.rindex(")")]
        if name.startswith(KERNELS):
            continue
        fields = text[text.rindex(")") + 2:].split()
        found[task + " " + name] = (int(fields[11]) + int(fields[12]), *switches)
    return found


def use(path, writes):
    """Small and large requests, one at a time and several."""
    for flags in (os.O_DIRECT, 0):
        fd = os.open(path, (os.O_RDWR if writes else os.O_RDONLY) | flags)
        with mmap.mmap(-1, 1 << 20) as data:
            for size in (4096, 1 << 16, 1 << 20):
                for nr in range(8):
                    if writes:
                        os.pwrite(fd, memoryview(data)[:size], nr * size)
                    os.preadv(fd, [memoryview(data)[:size]], nr * size)
        if writes:
            os.fsync(fd)
        os.close(fd)
    copies = [subprocess.Popen(["dd", f"if={path}", "of=/dev/null", "bs=4k", "iflag=direct", "status=none"])
              for _ in range(8)]
    for copy in copies:
        assert copy.wait() == 0


def await_rest(pid):
    deadline = time.monotonic() + PATIENCE_S
    before = runs(pid)
    while True:
        time.sleep(REST_S)
        now = runs(pid)
        if now == before:
            return len(now)
        ran = {thread: (before.get(thread), now.get(thread)) for thread in {*before, *now}
               if before.get(thread) != now.get(thread)}
        assert time.monotonic() < deadline, f"never at rest for {REST_S} s; ran: {ran}"
        before = now


def main():
    with Mount() as mount:
        backing = os.path.join(mount.work, "backing")
        with open(backing, "wb") as file:
            file.truncate(16 << 20)
        mount.control("low: 0 32768 ram\n"
                      "stack: 0 32768 linear low 0\n"
                      f"disk: 0 32768 loop {backing}\n"
                      "late: 0 32768 delay low 0 1\n"
                      "two: 0 32768 striped 2 128 low 0 disk 0\n"
                      "nothing: 0 32768 zero\n"
                      "odd: 0 32768 flakey disk 0 3600 0")
        mount.control("suspend stack\nresume stack")
        for name in ("stack", "disk", "late", "two", "nothing", "odd"):
            use(mount.file(name), writes=name != "nothing")
        threads = await_rest(mount.daemon.pid)
        assert threads > 2, threads


if __name__ == "__main__":
    main()
