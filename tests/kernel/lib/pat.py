"""Deterministic content for devices: writes it, finds it again, and hashes what is there.

Sector N of seed S is sha256("S:N") repeated to 512 bytes, so any sector says by itself where it
came from. All I/O is direct where the file system has it: a mapped device and the disk below it
have page caches of their own, which must not answer for each other.

  pat stream SEED START COUNT              sectors on stdout
  pat write DEV SEED START COUNT [AT]      written at sector AT (default START), then fsync
  pat check DEV SEED START COUNT [AT]      `same`, or the first sector that differs (exit 1)
  pat chunks DEV SEED N I[-J]...           chunk I (N sectors at I*N), one write each, in this order
  pat zero DEV START COUNT                 zeroes
  pat fill DEV START COUNT BYTE            one byte value
  pat map DEV SEED COUNT                   runs of `sector+count <- seed sector` (z zero, - unknown)
  pat discard DEV START COUNT              discarded, or punched out of a file
  pat bytes DEV START COUNT                the raw bytes of a byte range, in hex
  pat sha DEV [START COUNT]                sha256 of sectors, default all of the device
"""

import contextlib
import ctypes
import fcntl
import functools
import hashlib
import mmap
import os
import stat
import struct
import sys

SECTOR = 512
BLKDISCARD = 0x1277
PUNCH_HOLE_KEEP_SIZE = 3
PIECE = 512  # sectors of one I/O: 256 KiB


def sector_of(seed, number):
    return hashlib.sha256(f"{seed}:{number}".encode()).digest() * 16


def content(seed, start, count):
    return b"".join(sector_of(seed, n) for n in range(start, start + count))


class Device:
    """An open device or file, direct where possible. Use with `with`."""

    def __init__(self, path, writable):
        mode = os.O_RDWR if writable else os.O_RDONLY
        try:
            self.fd = os.open(path, mode | os.O_DIRECT)
        except OSError as error:
            if error.errno != 22:  # EINVAL: tmpfs of older kernels
                raise
            self.fd = os.open(path, mode)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.fd)

    def sectors(self):
        return os.lseek(self.fd, 0, os.SEEK_END) // SECTOR

    def pieces(self, start, count):
        """Yields sectors START..START+COUNT-1 in views of one buffer; ends early with the device."""
        with _buffer() as buffer, memoryview(buffer) as whole:
            while count > 0:
                want = min(count, PIECE) * SECTOR
                with whole[:want] as view:
                    got = os.preadv(self.fd, [view], start * SECTOR)
                    with view[:got] as piece:
                        yield piece
                if got < want:
                    break
                start, count = start + PIECE, count - PIECE

    def read(self, start, count):
        return b"".join(bytes(piece) for piece in self.pieces(start, count))

    def sha(self, start, count):
        total = hashlib.sha256()
        for piece in self.pieces(start, count):
            total.update(piece)
        return total.hexdigest()

    def write(self, start, data):
        with _buffer() as buffer, memoryview(buffer) as whole:
            for offset in range(0, len(data), PIECE * SECTOR):
                piece = data[offset : offset + PIECE * SECTOR]
                with whole[: len(piece)] as view:
                    view[:] = piece
                    got = os.pwritev(self.fd, [view], start * SECTOR + offset)
                if got != len(piece):
                    raise OSError(28, os.strerror(28))  # ENOSPC: past the end of the device


_FREE_BUFFERS = []


@contextlib.contextmanager
def _buffer():
    """An aligned buffer of one piece; kept for the next, as fresh pages are dear in the machine."""
    buffer = _FREE_BUFFERS.pop() if _FREE_BUFFERS else mmap.mmap(-1, PIECE * SECTOR)
    try:
        yield buffer
    finally:
        _FREE_BUFFERS.append(buffer)


def _store(path, start, data):
    with Device(path, writable=True) as device:
        device.write(start, data)
        os.fsync(device.fd)
    return 0


def _check(path, seed, start, count, at, out):
    with Device(path, writable=False) as device:
        data = device.read(at, count)
    for index in range(count):
        if data[index * SECTOR : (index + 1) * SECTOR] != sector_of(seed, start + index):
            print("differs at sector", at + index, file=out)
            return 1
    print("same", file=out)
    return 0


def _chunks(path, seed, count, words, out):
    with Device(path, writable=True) as device:
        for word in words:
            first, _, last = word.partition("-")
            for index in range(int(first), int(last or first) + 1):
                try:
                    device.write(index * count, content(seed, index * count, count))
                except OSError as error:
                    print(f"chunk {index}: {error.strerror}", file=out)
                    return 1
    return 0


@functools.lru_cache(maxsize=64)
def _known(seed):
    """Every sector of `seed` that a map can find, by the start of its content."""
    return {sector_of(seed, n)[:32]: n for n in range(1 << 13)}


def _map(path, seed, count, out):
    known = _known(seed)
    with Device(path, writable=False) as device:
        data = device.read(0, count)
    runs = []
    for at in range(len(data) // SECTOR):
        piece = data[at * SECTOR : (at + 1) * SECTOR]
        kind = "z" if piece == bytes(SECTOR) else (
            known.get(piece[:32], "-") if piece == piece[:32] * 16 else "-")
        if runs:
            start, length, first = runs[-1]
            goes_on = kind == first if isinstance(kind, str) else (
                isinstance(first, int) and kind == first + length)
            if goes_on:
                runs[-1] = (start, length + 1, first)
                continue
        runs.append((at, 1, kind))
    for start, length, first in runs:
        print(f"{start}+{length} <- {first}", file=out)
    return 0


def _bytes(path, start, count, out):
    with Device(path, writable=False) as device:
        first = start // SECTOR
        data = device.read(first, (start + count - 1) // SECTOR - first + 1)
    print(data[start - first * SECTOR :][:count].hex(" "), file=out)
    return 0


def _discard(path, start, count):
    fd = os.open(path, os.O_RDWR)
    try:
        if stat.S_ISBLK(os.fstat(fd).st_mode):
            fcntl.ioctl(fd, BLKDISCARD, struct.pack("=QQ", start * SECTOR, count * SECTOR))
            return 0
        libc = ctypes.CDLL(None, use_errno=True)
        offset, length = ctypes.c_int64(start * SECTOR), ctypes.c_int64(count * SECTOR)
        if libc.fallocate(fd, PUNCH_HOLE_KEEP_SIZE, offset, length) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return 0
    finally:
        os.close(fd)


def sha(path, start=0, count=None):
    """sha256 of COUNT sectors of PATH, as hex."""
    with Device(path, writable=False) as device:
        return device.sha(start, device.sectors() - start if count is None else count)


def _run(verb, args, out):
    if verb == "stream":
        out.buffer.write(content(args[0], int(args[1]), int(args[2])))
        return 0
    path, numbers = args[0], args[1:]
    if verb == "write":
        start = int(numbers[1])
        at = int(numbers[3]) if len(numbers) > 3 else start
        return _store(path, at, content(numbers[0], start, int(numbers[2])))
    if verb == "check":
        start = int(numbers[1])
        at = int(numbers[3]) if len(numbers) > 3 else start
        return _check(path, numbers[0], start, int(numbers[2]), at, out)
    if verb == "chunks":
        return _chunks(path, numbers[0], int(numbers[1]), numbers[2:], out)
    if verb == "map":
        return _map(path, numbers[0], int(numbers[1]), out)
    if verb == "sha":
        print(sha(path, *map(int, numbers)), file=out)
        return 0
    if verb == "bytes":
        return _bytes(path, int(numbers[0]), int(numbers[1]), out)
    if verb == "discard":
        return _discard(path, int(numbers[0]), int(numbers[1]))
    if verb == "zero":
        return _store(path, int(numbers[0]), bytes(SECTOR * int(numbers[1])))
    if verb == "fill":
        return _store(path, int(numbers[0]), bytes([int(numbers[2])]) * (SECTOR * int(numbers[1])))
    raise KeyError(verb)


def main(argv, out=sys.stdout, err=sys.stderr):
    """Runs one verb; returns the exit code. Errors of the device are one line on `err`."""
    try:
        return _run(argv[0], argv[1:], out)
    except OSError as error:
        print(f"pat: {argv[0]}: {error.strerror}", file=err)
        return 1
    except (IndexError, KeyError, ValueError):
        print(__doc__, file=err)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
