"""What a thin pool may hold after a crash, from what its writers saw.

A writer is the only one of its sectors, does one thing at a time, and notes for each when it began and
when it was acknowledged. So each sector has a history in order: what it held before the round, then
each write and discard. What a flush had acknowledged puts an end to everything before it; any of the
later ones may be there. A snapshot holds one of those under way when it was made."""
import errno
import os
import random
import struct
import time

SECTOR = 512
BLOCK = 128  # sectors of a block of the pool
SECTORS = 4 << 20 >> 9  # of a volume
ZERO = bytes(SECTOR)
NEVER = 1 << 62  # the time of what was not acknowledged


def sector_bytes(tag, sector, number):
    """Each write of each sector has contents of its own, the same in every 16 bytes."""
    return struct.pack("<IIQ", tag, sector, number) * (SECTOR // 16)


class Writer:
    """Writes, discards and flushes sectors [begin, end) of a device file until the mount is gone.

    `log` has (began, ended, what, sector, count, number); what is "write", "fua", "discard" or
    "flush"."""

    def __init__(self, path, tag, begin, end, seed):
        self.path, self.tag, self.begin, self.end = path, tag, begin, end
        self.random = random.Random(seed)
        self.log = []
        self.error = None

    def run(self):
        number = 0
        try:
            file = os.open(self.path, os.O_RDWR)
        except OSError as error:  # the crash was quicker
            self.error = (time.monotonic_ns(), error.errno)
        while self.error is None:
            number += 1
            entry = self.choose(number)
            began = time.monotonic_ns()
            try:
                self.do(file, *entry)
            except OSError as error:
                self.log.append((began, NEVER, *entry))
                # A pool without space may say so; that is no end.
                if error.errno != errno.ENOSPC:
                    self.error = (time.monotonic_ns(), error.errno)
            else:
                self.log.append((began, time.monotonic_ns(), *entry))
        return self

    def choose(self, number):
        dice = self.random.random()
        sector = self.random.randrange(self.begin, self.end)
        longest = min(self.end - sector, 3 * BLOCK)
        if dice < 0.06:
            return "flush", 0, 0, number
        if dice < 0.14:
            return "discard", sector, self.random.randint(1, longest), number
        if dice < 0.40:  # a whole block, which takes another way through the pool
            sector = (sector + BLOCK - 1) // BLOCK * BLOCK
            if sector + BLOCK <= self.end:
                return "write", sector, BLOCK, number
            sector = self.begin
        count = self.random.choice((1, 1, 8, 8, 8, 40))
        return "fua" if dice > 0.96 else "write", sector, min(count, longest, self.end - sector), number

    def do(self, file, what, sector, count, number):
        if what == "flush":
            os.fsync(file)
        elif what == "discard":
            punch(file, sector * SECTOR, count * SECTOR)
        else:
            data = b"".join(sector_bytes(self.tag, sector + i, number) for i in range(count))
            flags = os.RWF_DSYNC if what == "fua" else 0
            done = os.pwritev(file, [data], sector * SECTOR, flags)
            assert done == len(data), f"{done} of {len(data)} bytes written"


def punch(file, offset, length):
    """fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)."""
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)
    if libc.fallocate(file, 3, offset, length) != 0:
        raise OSError(ctypes.get_errno(), "fallocate")


class History:
    """All that may have happened to one volume's sectors in one round.

    `stale`: new blocks are not zeroed, so where nothing was written there may be anything."""

    def __init__(self, base, writers, stale):
        self.base = base
        self.stale = stale
        self.sectors = {}  # sector: [(began, ended, contents)], in order
        self.flushed = 0   # what had ended by then is on stable storage
        for writer in writers:
            for began, ended, what, sector, count, number in writer.log:
                if what in ("flush", "fua") and ended != NEVER:
                    self.flushed = max(self.flushed, began)
                self.add(writer.tag, began, ended, what, sector, count, number)

    def add(self, tag, began, ended, what, sector, count, number):
        if what == "discard":  # blocks of which only a part goes are written there
            for at in range(sector, sector + count):
                self.sectors.setdefault(at, []).append((began, ended, what, ZERO))
        elif what != "flush":
            for at in range(sector, sector + count):
                self.sectors.setdefault(at, []).append(
                    (began, ended, what, sector_bytes(tag, at, number)))

    def check(self, name, data, flushed):
        """After the crash. `flushed`: when the last message began that was acknowledged."""
        why = f"acknowledged: message {flushed}, flush {self.flushed}"
        flushed = max(flushed, self.flushed)
        self.compare(f"{name} ({why})", data, lambda entry: entry[1] <= flushed
                     or (entry[2] == "fua" and entry[1] != NEVER), NEVER)

    def check_snapshot(self, name, data, began, ended):
        self.compare(name, data, lambda entry: entry[1] <= began, ended)

    def compare(self, name, data, is_certain, before):
        for at in range(SECTORS):
            got = data[at * SECTOR:(at + 1) * SECTOR]
            allowed = [self.base[at * SECTOR:(at + 1) * SECTOR]]
            for entry in self.sectors.get(at, ()):
                if entry[0] > before:
                    break
                if is_certain(entry):
                    allowed.clear()
                allowed.append(entry[3])
            assert got in allowed or (self.stale and ZERO in allowed), (
                f"{name}: sector {at} holds {got[:16].hex()}{'' if got == got[:16] * 32 else ' and more'}, "
                f"not one of {[one[:16].hex() for one in allowed[:8]]} (before the round: "
                f"{self.base[at * SECTOR:at * SECTOR + 16].hex()}); its history: "
                f"{[(e[0], e[1], e[2], e[3][:16].hex()) for e in self.sectors.get(at, ())]}")
