"""fio as one more writer of a volume that crashes, and what the volume may hold after it.

Each of fio's threads does one thing at a time in an area of its own, and its log has what it did in order:
what is followed by another line was acknowledged. fio marks each sector with the place and the number of
the write; the pattern after that has the round and the area. So every sector tells which write it is of,
and none may be of one older than the last before an acknowledged fsync."""
import os
import re
import struct
import subprocess
import time

from crash_model import SECTOR, SECTORS, ZERO

AREAS = 8
# Inside blocks of the pool: threads meet there.
BORDERS = [0, *(area * SECTORS // AREAS + 40 for area in range(1, AREAS)), SECTORS]
MAGIC = 0xacca
HEADER = struct.Struct("<HHIQQIIHH")  # magic, kind, length, seed, offset, seconds, ns, thread, number
PATTERN = 48                          # where the pattern follows it and its sums
FSYNC = 20                            # writes
COMMON = """[global]
filename={device}
rw=randwrite
bssplit=512/20:4k/60:64k/20
blockalign=512
ioengine=psync
direct=1
allow_file_create=0
time_based
runtime=30
fsync={fsync}
thread
verify=crc32
verify_interval=512
do_verify=0
randseed={seed}
"""
AREA = """[area{area}]
offset={offset}
size={size}
verify_pattern=0x{tag:016x}
write_iolog={log}
"""


class Fio:
    """`folder` takes its files; `seed` tells this round from all others."""

    def __init__(self, device, folder, seed):
        self.seed = seed
        self.logs = [os.path.join(folder, f"fio.{area}.log") for area in range(AREAS)]
        for log in self.logs:
            if os.path.exists(log):
                os.remove(log)
        jobs = os.path.join(folder, "fio.jobs")
        with open(jobs, "w") as file:
            file.write(COMMON.format(device=device, fsync=FSYNC, seed=seed))
            for area, log in enumerate(self.logs):
                begin, end = BORDERS[area:area + 2]
                file.write(AREA.format(area=area, offset=begin * SECTOR, size=(end - begin) * SECTOR,
                                       tag=self.tag(area), log=log))
        self.process = subprocess.Popen(["fio", jobs], cwd=folder, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)

    def tag(self, area):
        return (self.seed & 0xffffffff) << 32 | 1 << 16 | area

    def wait_for_start(self):
        """Until its threads are about to write; fio takes a while to get there."""
        deadline = time.monotonic() + 10
        while not os.path.exists(self.logs[-1]) and time.monotonic() < deadline:
            time.sleep(0.01)

    def wait(self):
        self.process.wait(20)

    def check(self, name, data, base, stale):
        """The volume after the crash, `base` before the round; `stale` as for a History. The number of
        sectors that had to be of this round."""
        return sum(self.check_area(name, area, data, base, stale) for area in range(AREAS))

    def check_area(self, name, area, data, base, stale):
        writes, stable = self.done_in(area)
        begin, end = BORDERS[area:area + 2]
        allowed = {at: [None] for at in range(begin, end)}  # numbers of writes; None: as it was
        for number, (first, count) in enumerate(writes):
            for at in range(first, first + count):
                if number < stable:
                    allowed[at].clear()
                allowed[at].append(number)
        for at, numbers in allowed.items():
            got, was = data[at * SECTOR:(at + 1) * SECTOR], base[at * SECTOR:(at + 1) * SECTOR]
            number = self.number_of(area, at, got)
            good = number in numbers if number is not None else None in numbers and got == was
            # The write that was under way may not be in the log yet.
            good = good or number == len(writes) or (stale and None in numbers and was == ZERO)
            assert good, (
                f"{name}: sector {at} holds {got[:PATTERN + 16].hex()}, write {number} of area {area}, not one of "
                f"{numbers[:8]}; {len(writes)} writes, {stable} before the last fsync")
        return sum(None not in numbers for numbers in allowed.values())

    def done_in(self, area):
        """Sectors of all writes that began, in order, and how many of them a fsync made stable."""
        writes, before_fsync, stable = [], None, 0
        try:
            with open(self.logs[area]) as log:
                lines = [match for match in (re.search(r" (write|sync) (\d+) (\d+)$", line) for line in log) if match]
        except FileNotFoundError:  # the crash was quicker
            lines = []
        for what, offset, length in (match.groups() for match in lines):
            if before_fsync is not None:
                stable, before_fsync = before_fsync, None
            if what == "sync":
                before_fsync = len(writes)
            else:
                writes.append((int(offset) // SECTOR, int(length) // SECTOR))
        return writes, stable

    def number_of(self, area, at, got):
        """Which write of this round and area the sector is of, whole; None: of none."""
        magic, _, length, _, offset, _, _, _, number = HEADER.unpack_from(got)
        whole = got[PATTERN:] == struct.pack(">Q", self.tag(area)) * ((SECTOR - PATTERN) // 8)
        return number if whole and (magic, length, offset) == (MAGIC, SECTOR, at * SECTOR) else None
