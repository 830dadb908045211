#!/usr/bin/env python3
"""No allocation per I/O, from the request's coming to its answer: the daemon's calls of the heap are counted while
thousands of reads and writes go through it."""
import mmap
import os
import random
import struct
import tempfile
import threading

from lib import Mount, skip

SECTORS = 32768
THREADS, EACH = 8, 500
# What has nothing to do with the I/Os may allocate (a pool that grows to a depth it did not have yet): one in a
# hundred of what one allocation an I/O would be.
MOST = THREADS * EACH // 100


def use(fd, seed):
    """One thread's reads and writes: aligned, of whole blocks, as the path that is to be fast has them."""
    chance = random.Random(seed)
    with mmap.mmap(-1, 1 << 16) as data:
        for nr in range(EACH):
            size = 4096 if nr % 50 else 1 << 16
            at = chance.randrange((SECTORS << 9) // size) * size
            with memoryview(data)[:size] as part:
                moved = os.preadv(fd, [part], at) if chance.random() < 0.5 else os.pwritev(fd, [part], at)
            assert moved == size, moved


def use_all(fd):
    failed = []

    def one(seed):
        try:
            use(fd, seed)
        except Exception as why:  # or the test would pass over it
            failed.append(why)

    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed


def counted(counter):
    return struct.unpack("Q", counter[:8])[0]


def calls_while_used(counter, path):
    """Of the heap. An open is not an I/O and costs a few: it is before and after."""
    fd = os.open(path, os.O_RDWR | os.O_DIRECT)
    try:
        use_all(fd)  # pools and buffers grow to what this load takes
        before = counted(counter)
        use_all(fd)
        return counted(counter) - before
    finally:
        os.close(fd)


def main():
    counting = os.environ.get("COUNT_ALLOCATIONS_LIBRARY")
    if not counting:
        skip("what counts is not built with a sanitizer, which has a heap of its own")
    with tempfile.TemporaryDirectory() as work, tempfile.TemporaryDirectory(dir="/dev/shm") as shm:
        file = os.path.join(work, "counter")
        with open(file, "wb") as counter:
            counter.truncate(4096)
        os.environ.update(LD_PRELOAD=counting, COUNT_ALLOCATIONS=file)
        with Mount() as mount, open(file, "r+b") as opened, mmap.mmap(opened.fileno(), 4096) as counter:
            del os.environ["LD_PRELOAD"]
            lines = [f"low: 0 {SECTORS} ram", f"linear: 0 {SECTORS} linear low 0",
                     f"striped: 0 {SECTORS} striped 2 128 low 0 linear 0"]
            for name, folder in (("tmpfs", shm), ("disk", work)):
                backing = os.path.join(folder, "backing")
                with open(backing, "wb") as out:
                    out.write(bytes((SECTORS + 8) << 9))
                lines += [f"{name}: 0 {SECTORS} loop {backing} 8", f"on-{name}: 0 {SECTORS} linear {name} 0"]
            begun = counted(counter)
            mount.control("\n".join(lines))
            assert counted(counter) > begun > 0, "the daemon is not counted"
            for name in ("low", "linear", "striped", "tmpfs", "on-tmpfs", "disk", "on-disk"):
                calls = calls_while_used(counter, mount.file(name))
                print(f"{name}: {calls} calls of the heap in {THREADS * EACH} I/Os")
                assert calls <= MOST, f"{name}: {calls} calls of the heap in {THREADS * EACH} I/Os"


if __name__ == "__main__":
    main()
