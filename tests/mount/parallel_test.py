#!/usr/bin/env python3
"""Direct writes of one file are under way together: the kernel does not hold the second back until the first is done
(FOPEN_PARALLEL_DIRECT_WRITES, which libfuse 3.14 has no field for)."""
import mmap
import os
import threading
import time

from lib import Mount, same

BYTES, WRITERS = 4096, 4


def in_flight(mount, name):
    return int(mount.read("sys", name, "stats").split()[8])


def write_at(path, place, flags):
    with mmap.mmap(-1, BYTES) as data:
        data.write(bytes([place + 1]) * BYTES)
        fd = os.open(path, os.O_WRONLY | flags)
        try:
            same("bytes written", BYTES, os.pwrite(fd, data, place * BYTES))
        finally:
            os.close(fd)


def all_come(mount, flags):
    """Writers that nobody answers until each of them has come to the engine: what waits for a device that is suspended
    itself is not counted by it, but by the one above."""
    mount.control("suspend low")
    writers = [threading.Thread(target=write_at, args=(mount.file("disk"), place, flags)) for place in range(WRITERS)]
    try:
        for writer in writers:
            writer.start()
        deadline = time.monotonic() + 20
        while (come := in_flight(mount, "disk")) < WRITERS:
            assert time.monotonic() < deadline, f"{come} of {WRITERS} writes came: the others wait for these"
            time.sleep(0.01)
    finally:
        mount.control("resume low")
        for writer in writers:
            writer.join()


def main():
    with Mount() as mount:
        mount.control("low: 0 2048 ram\ndisk: 0 2048 linear low 0")
        for flags in (os.O_DIRECT, 0):
            all_come(mount, flags)
            with open(mount.file("disk"), "rb", buffering=0) as disk:
                for place in range(WRITERS):
                    same(f"block {place}", bytes([place + 1]) * BYTES, disk.read(BYTES))


if __name__ == "__main__":
    main()
