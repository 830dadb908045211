#!/usr/bin/env python3
"""Deep I/O with large requests takes memory while it lasts: afterwards the daemon is as small as before."""
import os
import threading
import time

from lib import Mount

READS, BYTES = 64, 1 << 20


def anonymous_mib(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) >> 10


def read_deep(path):
    """All of them at once, since the device answers after a while."""
    def read(at):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
        got = os.pread(fd, BYTES, at * BYTES)
        os.close(fd)
        assert len(got) == BYTES and got.count(0) == BYTES

    threads = [threading.Thread(target=read, args=(at,)) for at in range(READS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main():
    with Mount() as mount:
        mount.control(f"none: 0 {READS * BYTES >> 9} zero\nslow: 0 {READS * BYTES >> 9} delay none 0 500")
        before = anonymous_mib(mount.daemon.pid)
        most, over = 0, threading.Event()

        def watch():
            nonlocal most
            while not over.wait(0.02):
                most = max(most, anonymous_mib(mount.daemon.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        read_deep(mount.file("slow"))
        over.set()
        watcher.join()
        assert most - before >= READS // 2, f"{before} MiB before, {most} at most: they were not under way together"
        deadline = time.monotonic() + 15
        while (after := anonymous_mib(mount.daemon.pid)) > before + READS // 2:
            assert time.monotonic() < deadline, f"{before} MiB before, {most} during and {after} MiB long after"
            threading.Event().wait(0.05)


if __name__ == "__main__":
    main()
