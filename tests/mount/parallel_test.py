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


def block(round_nr, place):
    """What no other round and no other writer writes."""
    return bytes([round_nr * WRITERS + place + 1]) * BYTES


def write_at(path, round_nr, place, flags, failed):
    try:
        with mmap.mmap(-1, BYTES) as data:
            data.write(block(round_nr, place))
            fd = os.open(path, os.O_WRONLY | flags)
            try:
                same("bytes written", BYTES, os.pwrite(fd, data, place * BYTES))
            finally:
                os.close(fd)
    except Exception as why:  # or the test would pass over it
        failed.append(why)


def all_come(mount, round_nr, flags):
    """Writers that nobody answers until each of them has come to the engine: what waits for a device that is suspended
    itself is not counted by it, but by the one above."""
    mount.control("suspend low")
    failed = []
    writers = [threading.Thread(target=write_at, args=(mount.file("disk"), round_nr, place, flags, failed))
               for place in range(WRITERS)]
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
    assert not failed, failed


def main():
    with Mount() as mount:
        mount.control("low: 0 2048 ram\ndisk: 0 2048 linear low 0")
        for round_nr, flags in enumerate((os.O_DIRECT, 0)):
            all_come(mount, round_nr, flags)
            with open(mount.file("disk"), "rb", buffering=0) as disk:
                for place in range(WRITERS):
                    same(f"block {place}", block(round_nr, place), disk.read(BYTES))


if __name__ == "__main__":
    main()
