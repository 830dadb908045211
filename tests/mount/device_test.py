#!/usr/bin/env python3
"""A device file behaves as docs/design.md's table of calls says."""
import ctypes
import errno
import fcntl
import mmap
import os
import random

from lib import Mount, fails, same

KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE = 1, 2, 8, 16
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def fallocate(fd, mode, offset, length):
    if libc.fallocate(fd, mode, offset, length) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def ends_of_the_device(mount):
    fd = os.open(mount.file("disk"), os.O_RDWR)
    size = os.fstat(fd).st_size
    same("size", 8 << 20, size)
    same("read at the end", b"", os.pread(fd, 100, size))
    same("read past the end", b"", os.pread(fd, 100, size + 5000))
    same("read across the end", 7, len(os.pread(fd, 100, size - 7)))
    same("short write", 512, os.pwrite(fd, b"x" * 1000, size - 512))
    fails(errno.ENOSPC, os.pwrite, fd, b"x", size)
    fails(errno.ENOSPC, os.pwrite, fd, b"x" * 4096, size + 4096)
    fails(errno.EINVAL, os.ftruncate, fd, size - 512)
    fails(errno.EINVAL, os.truncate, mount.file("disk"), 0)
    os.ftruncate(fd, size)
    os.pwrite(fd, b"kept", 0)
    os.close(os.open(mount.file("disk"), os.O_WRONLY | os.O_TRUNC))
    same("size after O_TRUNC", size, os.stat(mount.file("disk")).st_size)
    same("data after O_TRUNC", b"kept", os.pread(fd, 4, 0))
    os.fsync(fd)
    os.fdatasync(fd)
    os.close(fd)


def any_offset_and_length(mount, name, rounds):
    """Unaligned I/O of all kinds against a model in memory."""
    chance = random.Random(4711)
    size = 8 << 20
    model = bytearray(size)
    fds = [os.open(mount.file(name), os.O_RDWR), os.open(mount.file(name), os.O_RDWR | os.O_DIRECT),
           os.open(mount.file(name), os.O_RDWR | os.O_DSYNC)]
    os.pwrite(fds[0], bytes(1 << 20), 0)
    for offset in range(0, size, 1 << 20):
        os.pwrite(fds[0], bytes(1 << 20), offset)
    for step in range(rounds):
        fd = chance.choice(fds)
        length = chance.choice([1, 511, 512, 513, 4096, 5000, 70001, chance.randrange(1, 200000)])
        offset = chance.randrange(0, size - length)
        if chance.random() < 0.3:
            offset &= ~511
        if chance.random() < 0.5:
            data = chance.randbytes(length)
            same("bytes written", length, os.pwrite(fd, data, offset))
            model[offset:offset + length] = data
        else:
            got = os.pread(fd, length, offset)
            assert got == model[offset:offset + length], f"step {step}: {length} bytes at {offset}"
    for offset in range(0, size, 1 << 20):
        assert os.pread(fds[0], 1 << 20, offset) == model[offset:offset + (1 << 20)]
    for fd in fds:
        os.close(fd)


def holes(mount):
    fd = os.open(mount.file("disk"), os.O_RDWR)
    size = os.fstat(fd).st_size
    for offset in range(0, size, 1 << 20):
        os.pwrite(fd, b"\xaa" * (1 << 20), offset)
    fallocate(fd, PUNCH_HOLE | KEEP_SIZE, (1 << 20) + 100, (1 << 20) - 50)
    data = os.pread(fd, 3 << 20, 0)
    start, end = (1 << 20) + 100, (2 << 20) + 50
    assert data[:start].count(0) == 0, "bytes before the hole changed"
    assert data[start:end].count(0) == end - start, "the hole does not read as zeroes"
    assert data[end:].count(0) == 0, "bytes behind the hole changed"
    same("data before the hole", 0, os.lseek(fd, 0, os.SEEK_DATA))
    hole = os.lseek(fd, 0, os.SEEK_HOLE)
    assert start <= hole < start + 8192, f"hole found at {hole}"
    after = os.lseek(fd, hole, os.SEEK_DATA)
    assert end - 8192 < after <= end, f"data found at {after}"
    same("the hole at the end", size, os.lseek(fd, end, os.SEEK_HOLE))
    fails(errno.ENXIO, os.lseek, fd, size, os.SEEK_DATA)
    fallocate(fd, ZERO_RANGE, 4096, 8192)
    same("zeroed", bytes(8192), os.pread(fd, 8192, 4096))
    fallocate(fd, ZERO_RANGE | KEEP_SIZE, size - 512, 4096)
    fallocate(fd, 0, 0, size)
    fallocate(fd, KEEP_SIZE, size - 4096, 1 << 20)
    fails(errno.ENOSPC, fallocate, fd, 0, 0, size + 1)
    fails(errno.EOPNOTSUPP, fallocate, fd, COLLAPSE_RANGE, 0, 4096)
    os.close(fd)
    # All of it punched: nothing takes space.
    fd = os.open(mount.file("disk"), os.O_RDWR)
    fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 0, size)
    same("st_blocks of nothing", 0, os.fstat(fd).st_blocks)
    os.close(fd)


def no_discard(mount):
    """A table without discard says so; zeroes are written instead of ordered."""
    mount.control("nodisc: 0 2048 delay " + backing(mount, 1 << 20) + " 0 0")
    mount.control("undisc: 0 2048 unstriped 1 128 0 nodisc 0")
    fd = os.open(mount.file("undisc"), os.O_RDWR)
    os.pwrite(fd, b"\xbb" * 65536, 0)
    fails(errno.EOPNOTSUPP, fallocate, fd, PUNCH_HOLE | KEEP_SIZE, 0, 65536)
    fallocate(fd, ZERO_RANGE, 1000, 30000)
    data = os.pread(fd, 65536, 0)
    same("zeroed as data", bytes(30000), data[1000:31000])
    assert data[:1000].count(0) == 0 and data[31000:].count(0) == 0, "edges changed"
    os.close(fd)
    mount.control("remove undisc\nremove nodisc")


def backing(mount, size):
    path = os.path.join(mount.work, f"backing-{size}")
    with open(path, "wb") as file:
        file.truncate(size)
    return path


def read_only(mount):
    mount.control("create --readonly ro\nro: 0 2048 zero")
    same("mode of a read-only device", 0o400, os.stat(mount.file("ro")).st_mode & 0o777)
    if os.getuid() == 0:
        fd = os.open(mount.file("ro"), os.O_RDWR)
        fails(errno.EPERM, os.pwrite, fd, b"x" * 512, 0)
        os.close(fd)
    mount.control("remove ro")


def busy_time(mount):
    """Field 10 of stats: ms with I/O under way, of the device that is slow and not of the one below it."""
    def busy_ms(name):
        return int(mount.read("sys", name, "stats").split()[9])

    mount.control("slow: 0 2048 delay disk 0 200")
    before = busy_ms("disk")
    same("busy before any I/O", 0, busy_ms("slow"))
    fd = os.open(mount.file("slow"), os.O_RDONLY)
    os.pread(fd, 512, 0)
    os.close(fd)
    # The clock has ticks of up to 10 ms.
    assert busy_ms("slow") >= 180, f"{busy_ms('slow')} ms busy of 200"
    assert busy_ms("disk") - before < 180, "the device below was busy while the one above waited"
    mount.control("remove slow")


def ownership(mount):
    os.chmod(mount.file("disk"), 0o640)
    same("mode", 0o640, os.stat(mount.file("disk")).st_mode & 0o777)
    if os.getuid() == 0:
        os.chown(mount.file("disk"), 12, 34)
        status = os.stat(mount.file("disk"))
        same("owner", (12, 34), (status.st_uid, status.st_gid))
        os.chown(mount.file("disk"), 0, 0)
    fails(errno.EPERM, os.chmod, mount.file("control"), 0o666)
    fails(errno.EPERM, os.open, mount.file("new"), os.O_CREAT | os.O_WRONLY)
    fails(errno.EPERM, os.mkdir, mount.file("new"))
    fails(errno.EPERM, os.unlink, mount.file("control"))
    fd = os.open(mount.file("disk"), os.O_RDONLY)
    fails(errno.ENOTTY, fcntl.ioctl, fd, 0x1260)
    os.close(fd)


def shared_memory(mount):
    fd = os.open(mount.file("disk"), os.O_RDWR)
    try:
        view = mmap.mmap(fd, 1 << 20, mmap.MAP_SHARED)
    except OSError as error:
        same("mmap of a direct file on a kernel without it", errno.ENODEV, error.errno)
        os.close(fd)
        return
    view[5000:5005] = b"hello"
    view.flush()
    same("written through mmap", b"hello", os.pread(fd, 5, 5000))
    view.close()
    os.close(fd)


def main():
    with Mount() as mount:
        mount.control("disk: 0 16384 ram\nfile: 0 16384 loop " + backing(mount, 8 << 20))
        ends_of_the_device(mount)
        any_offset_and_length(mount, "disk", 1500)
        any_offset_and_length(mount, "file", 1000)
        holes(mount)
        no_discard(mount)
        read_only(mount)
        busy_time(mount)
        ownership(mount)
        shared_memory(mount)


if __name__ == "__main__":
    main()
