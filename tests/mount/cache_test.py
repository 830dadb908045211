#!/usr/bin/env python3
"""A mount with `-o cache`: the kernel keeps pages of devices, and drops them when a table is swapped."""
import mmap
import os
import queue
import random
import threading
import time

from lib import Mount, same

MIB = 1 << 20


def reads(mount, name):
    return int(mount.read("sys", name, "stats").split()[0])


def hits_do_not_reach_the_engine(mount):
    mount.control("disk: 0 2048 ram")
    fd = os.open(mount.file("disk"), os.O_RDWR)
    os.pwrite(fd, b"x" * MIB, 0)
    os.pread(fd, MIB, 0)
    before = reads(mount, "disk")
    for _ in range(10):
        same("a page that is kept", b"x" * 4096, os.pread(fd, 4096, 8192))
    same("reads that came to the engine", before, reads(mount, "disk"))
    os.close(fd)
    mount.control("remove disk")


def all_ways_of_one_file(mount):
    """Cached, direct and mapped I/O of one device against a model, at any offset."""
    chance = random.Random(815)
    mount.control("disk: 0 2048 ram")
    model = bytearray(MIB)
    fds = [os.open(mount.file("disk"), os.O_RDWR | flags) for flags in (0, os.O_DIRECT, os.O_SYNC)]
    for step in range(600):
        fd = chance.choice(fds)
        length = chance.choice([1, 511, 512, 4096, 5000, 70001])
        offset = chance.randrange(0, MIB - length)
        if chance.random() < 0.5:
            data = chance.randbytes(length)
            same("bytes written", length, os.pwrite(fd, data, offset))
            model[offset:offset + length] = data
        else:
            same(f"step {step}: {length} bytes at {offset}", bytes(model[offset:offset + length]),
                 os.pread(fd, length, offset))
    view = mmap.mmap(fds[0], MIB, mmap.MAP_SHARED)
    view[70000:70006] = b"mapped"
    view.flush()
    same("mapped, then read directly", b"mapped", os.pread(fds[1], 6, 70000))
    view.close()
    same("short read at the end", 100, len(os.pread(fds[0], 4096, MIB - 100)))
    for fd in fds:
        os.close(fd)
    mount.control("remove disk")


def a_swap_drops_the_pages(mount):
    mount.control("a: 0 2048 ram\nb: 0 2048 ram\ndisk: 0 2048 linear a 0")
    for name in "ab":
        with open(mount.file(name), "wb", buffering=0) as file:
            file.write(name.encode() * MIB)
    fd = os.open(mount.file("disk"), os.O_RDONLY)
    control = os.open(mount.file("control"), os.O_WRONLY)
    for step in range(500):
        os.pread(fd, MIB, 0)
        name = "ba"[step % 2]
        os.write(control, b"disk: 0 2048 linear %s 0\n" % name.encode())
        # At once: the pages are gone when the write returns.
        same(f"read after swap {step}", name.encode() * 4096, os.pread(fd, 4096, step * 4096 % MIB))
    for sectors in (1024, 2048, 512):
        mount.control(f"disk: 0 {sectors} linear a 0")
        same("bytes up to the new end", sectors * 512 - 4096, len(os.pread(fd, MIB, 4096)))
    os.write(control, b"wipe_table disk\n")
    os.close(control)
    try:
        os.pread(fd, 4096, 0)
        raise AssertionError("the pages of a wiped table are still read")
    except OSError:
        pass
    os.close(fd)
    mount.control("remove disk\nremove a\nremove b")


def in_flight(mount, name):
    return int(mount.read("sys", name, "stats").split()[8])


def await_read(thread, fd, length):
    """Until that thread sleeps in a pread() of the file: it has locked its page and asked us for it."""
    deadline = time.monotonic() + 20
    while True:
        with open(f"/proc/self/task/{thread}/syscall") as call:
            words = call.read().split()  # number, arguments; "running" where it does not sleep
        if len(words) > 3 and (int(words[1], 16), int(words[3], 16)) == (fd, length):
            return
        assert time.monotonic() < deadline, f"the reader does not wait: {words}"
        time.sleep(0.01)


def a_read_that_waits_does_not_keep_the_swap(mount):
    """A page is being read while its device is suspended; the new table, which the read goes to, stands on a device
    that is suspended as well."""
    mount.control("a: 0 2048 ram\nb: 0 2048 ram\ndisk: 0 2048 linear a 0\nsuspend b\nsuspend disk")
    fd = os.open(mount.file("disk"), os.O_RDONLY)
    threads, got = queue.SimpleQueue(), []

    def read():
        threads.put(threading.get_native_id())
        got.append(os.pread(fd, 12288, 0))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        await_read(threads.get(timeout=20), fd, 12288)
        begin = time.monotonic()
        mount.control("load disk: 0 2048 linear b 0\nresume disk")
        took = time.monotonic() - begin
        under_way = in_flight(mount, "disk")
    finally:
        mount.control("resume b\nresume disk")
        reader.join()
    os.close(fd)
    assert under_way >= 1, "the read was not under way"
    same("what the read that waited got", [bytes(12288)], got)
    assert 1 <= took < 10, f"the swap took {took:.1f} s"
    said = mount.read("sys", "log")
    assert "still has pages of the table before" in said, said
    mount.control("remove disk\nremove a\nremove b")


def main():
    with Mount("-o", "cache") as mount:
        hits_do_not_reach_the_engine(mount)
        all_ways_of_one_file(mount)
        a_swap_drops_the_pages(mount)
        a_read_that_waits_does_not_keep_the_swap(mount)


if __name__ == "__main__":
    main()
