#!/usr/bin/env python3
"""Kills the daemon at random moments while a thin pool is written, snapshotted and discarded, and looks
at what is left: thin-check finds nothing, every acknowledged and flushed sector is there, every
snapshot holds what it held.

    MAPPERFS_CRASH_ROUNDS=1000 MAPPERFS_SEED=7 MAPPERFS=... MAPPERCTL=... tests/mount/thin_crash_test.py

A failure prints the seed of its round; MAPPERFS_KEEP=1 leaves the folder with the pool behind."""
import errno
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from crash_model import BLOCK, NEVER, SECTOR, SECTORS, History, Writer
from lib import LONG, Mount, fails
from thin_crash_fio import Fio

# CTest runs this over each transport, at length as well: no seed twice. Where there are no rings the
# rounds over /dev/fuse are enough by themselves.
OVER_RINGS = os.environ.get("MAPPERFS_TRANSPORT") == "uring"
FIRST_SEED, SOME_ROUNDS = {(False, False): (1, 30), (False, True): (31, 10),
                           (True, False): (1001, 1000), (True, True): (2001, 1000)}[LONG, OVER_RINGS]
ROUNDS = int(os.environ.get("MAPPERFS_CRASH_ROUNDS", SOME_ROUNDS))
SEED = int(os.environ.get("MAPPERFS_SEED", FIRST_SEED))
CHECK = [os.environ["MAPPERCTL"], "thin-check"]
VOLUMES = (0, 1, 2)  # with two writers each
FIO = 3              # the volume that fio writes
FIRST_SNAPSHOT = 10
MOST_SNAPSHOTS = 10
BORDER = SECTORS // 2 + 40  # between the two writers of a volume: inside a block


class Churn:
    """Messages to the pool while it is written: snapshots, deletions, the transaction id.

    `log` has (began, ended, what, id, origin)."""

    def __init__(self, path, snapshots, next_id, transaction, seed):
        self.path, self.known, self.next_id = path, list(snapshots), next_id
        self.transaction = transaction
        self.random = random.Random(seed)
        self.log = []
        self.error = None
        self.holds = False

    def run(self):
        while self.error is None:
            time.sleep(self.random.random() * 0.01)
            what, one, other = self.choose()
            began = time.monotonic_ns()
            try:
                self.message(what, one, other)
            except OSError as error:
                self.log.append((began, NEVER, what, one, other))
                self.error = (time.monotonic_ns(), error.errno)
            else:
                self.log.append((began, time.monotonic_ns(), what, one, other))
        return self

    def choose(self):
        dice = self.random.random()
        if dice < 0.06:
            self.holds = not self.holds
            return ("reserve_metadata_snap" if self.holds else "release_metadata_snap"), None, None
        if dice < 0.12:
            self.transaction += 1
            return "set_transaction_id", self.transaction - 1, self.transaction
        if len(self.known) < MOST_SNAPSHOTS and dice < 0.7 or not self.known:
            self.next_id += 1
            self.known.append(self.next_id)
            # Only of volumes: what a snapshot made in this round holds is known when it is read.
            return "create_snap", self.next_id, self.random.choice(VOLUMES)
        return "delete", self.known.pop(self.random.randrange(len(self.known))), None

    def message(self, what, one, other):
        text = " ".join(str(word) for word in (what, one, other) if word is not None)
        file = os.open(self.path, os.O_RDWR)
        try:
            os.write(file, text.encode())
        finally:
            os.close(file)


def in_process(job):
    """Runs job.run() in a process of its own; the object comes back through the pipe."""
    back, out = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        os.close(back)
        code = 1
        try:
            with os.fdopen(out, "wb") as pipe:
                pickle.dump(job.run(), pipe)
            code = 0
        finally:
            os._exit(code)
    os.close(out)
    return pid, os.fdopen(back, "rb")


def result_of(process):
    pid, pipe = process
    with pipe:
        job = pickle.load(pipe)
    os.waitpid(pid, 0)
    return job


class CrashPool:
    """A pool in the mount's work folder, and what its devices hold, as last seen."""

    def __init__(self, mount):
        self.mount = mount
        self.meta = os.path.join(mount.work, "meta")
        self.data = os.path.join(mount.work, "data")
        self.blocks = 400
        self.feature = "0"
        self.held = {}  # id: contents
        self.next_id = FIRST_SNAPSHOT
        self.transaction = 0
        self.messages = 0  # when the last one began that was acknowledged
        os.truncate(os.open(self.data, os.O_CREAT | os.O_RDWR), 128 << 20)

    def bring_up(self):
        self.mount.control(f"pool: 0 {self.blocks * BLOCK} thin-pool {self.meta} {self.data} {BLOCK} 4 {self.feature}")

    def map(self, number):
        self.mount.control(f"v{number}: 0 {SECTORS} thin pool {number}")

    def read(self, number):
        self.map(number)
        data = b""
        with open(self.mount.file(f"v{number}"), "rb", buffering=0) as file:
            while len(data) < SECTORS * SECTOR:
                data += file.read(1 << 20)
        if number >= FIRST_SNAPSHOT:
            self.mount.control(f"remove v{number}")
        return data

    def make(self):
        self.bring_up()
        for number in (*VOLUMES, FIO):
            self.mount.control(f"message pool 0 create_thin {number}")
            self.held[number] = bytes(SECTORS * SECTOR)

    def snapshots(self):
        return [number for number in self.held if number >= FIRST_SNAPSHOT]


class Round:
    def __init__(self, pool, seed):
        self.pool, self.mount, self.seed = pool, pool.mount, seed
        self.random = random.Random(seed)
        self.synced = 0  # sectors of fio's volume that an fsync of this round made stable

    def run(self):
        self.start_load()
        killed = self.crash()
        self.collect(killed)
        self.check_metadata()
        self.pool.blocks = min(self.pool.blocks + self.random.choice((0, 0, 0, 60)), 1000)
        self.pool.feature = self.random.choice(
            ("0", "1 skip_block_zeroing", "1 error_if_no_space", "1 no_discard_passdown"))
        self.mount.start()
        self.pool.bring_up()
        self.check_data()
        self.rearrange()

    def start_load(self):
        path = self.mount.file
        for number in (*VOLUMES, FIO):
            self.pool.map(number)
        self.fio = Fio(path(f"v{FIO}"), self.mount.work, self.seed) if shutil.which("fio") else None
        self.churn = Churn(path("sys", "pool", "message"), self.pool.snapshots(), self.pool.next_id,
                           self.pool.transaction, self.random.getrandbits(32))
        self.processes = []
        # Every message and everybody's fsync commits all of the pool: what an fsync alone does shows
        # only where there is nobody else.
        self.alone = self.fio is not None and self.random.random() < 0.3
        if self.alone:
            return
        for number in VOLUMES:
            for half, (begin, end) in enumerate(((0, BORDER), (BORDER, SECTORS))):
                tag = self.seed << 8 | number << 4 | half | 8
                seed = self.random.getrandbits(32)
                self.processes.append(in_process(Writer(path(f"v{number}"), tag & 0xffffffff, begin, end, seed)))
        self.processes.append(in_process(self.churn))

    def crash(self):
        if self.alone:
            self.fio.wait_for_start()
        time.sleep(self.random.choice((0.02, 0.1, 0.3, 0.6)) * (0.5 + self.random.random()))
        if self.random.random() < 0.3:
            self.check_metadata("--live")  # all that writes goes on writing
        killed = time.monotonic_ns()
        self.mount.crash()
        return killed

    def collect(self, killed):
        pool = self.pool
        jobs = [result_of(process) for process in self.processes]
        *writers, self.churn = jobs or [self.churn]
        if self.fio:
            self.fio.wait()
        for job in jobs:
            at, error = job.error
            assert at >= killed, f"{job.path}: {errno.errorcode[error]} while the daemon lived, {job.log[-1]}"
        self.stale = "skip_block_zeroing" in pool.feature
        self.histories = {number: History(pool.held[number], writers[2 * i:2 * i + 2], self.stale)
                          for i, number in enumerate(VOLUMES)}
        pool.messages = max((entry[0] for entry in self.churn.log if entry[1] != NEVER), default=0)
        pool.next_id = self.churn.next_id
        self.steps = sum(len(writer.log) for writer in writers)

    def check_metadata(self, *options):
        command = [*CHECK, *options, self.pool.meta]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"

    def check_data(self):
        pool = self.pool
        log = self.churn.log
        made = {entry[3]: entry for entry in log if entry[2] == "create_snap"}
        deleted = {entry[3]: entry for entry in log if entry[2] == "delete"}
        before, pool.held = pool.held, {}
        for number in {**before, **made}:
            if number in deleted and deleted[number][1] != NEVER:
                fails(errno.ENODATA, pool.map, number)
                continue
            unsure = made.get(number, (0, 0))[1] == NEVER or number in deleted
            try:
                data = pool.read(number)
            except OSError as error:
                assert unsure and error.errno == errno.ENODATA, f"device {number}: {error}"
                continue
            self.check_device(number, data, before, made)
            pool.held[number] = data
        # The last message may have been taken without its answer.
        numbers = [entry[4] for entry in log if entry[2] == "set_transaction_id"]
        found = int(pool.mount.read("sys", "pool", "status").split()[3])
        certain = max((e[4] for e in log if e[2] == "set_transaction_id" and e[1] != NEVER),
                      default=pool.transaction)
        assert found == certain or found in numbers[-1:], f"transaction id {found}, not {certain}"
        pool.transaction = found
        if pool.mount.read("sys", "pool", "status").split()[6] != "-":
            pool.mount.control("message pool 0 release_metadata_snap")

    def check_device(self, number, data, before, made):
        if number == FIO:
            if self.fio:
                self.synced = self.fio.check(f"v{number}", data, before[FIO], self.stale)
            else:
                assert data == before[FIO], f"v{number} has changed, and nobody wrote it"
        elif number in VOLUMES:
            self.histories[number].check(f"v{number}", data, self.pool.messages)
        elif number in made:
            began, ended, _, _, origin = made[number]
            self.histories[origin].check_snapshot(f"snapshot {number} of v{origin}", data, began, ended)
        else:
            assert data == before[number], f"snapshot {number} has changed"

    def rearrange(self):
        """Now and then a volume is given up for a writable snapshot, fio's also for an empty one: where all
        is mapped already, an fsync has nothing to make stable."""
        pool = self.pool
        if self.random.random() < 0.7:
            origin = self.random.choice((None, *pool.snapshots()))
            make = f"create_thin {FIO}" if origin is None else f"create_snap {FIO} {origin}"
            pool.mount.control(f"remove v{FIO}\nmessage pool 0 delete {FIO}\nmessage pool 0 {make}")
            pool.held[FIO] = bytes(SECTORS * SECTOR) if origin is None else pool.held[origin]
        if not pool.snapshots() or self.random.random() > 0.3:
            return
        volume, snapshot = self.random.choice(VOLUMES), self.random.choice(pool.snapshots())
        pool.mount.control(f"remove v{volume}\nmessage pool 0 delete {volume}\n"
                           f"message pool 0 create_snap {volume} {snapshot}")
        pool.held[volume] = pool.held[snapshot]


def main():
    # A killed daemon does not take the page cache along: on a disk it would only wait for it more.
    if "TMPDIR" not in os.environ and os.access("/dev/shm", os.W_OK):
        tempfile.tempdir = "/dev/shm"
    with Mount() as mount:
        pool = CrashPool(mount)
        pool.make()
        steps, synced, began = 0, 0, time.monotonic()
        for seed in range(SEED, SEED + ROUNDS):
            signal.alarm(120)
            one = Round(pool, seed)
            try:
                one.run()
            except BaseException:
                print(f"round with MAPPERFS_SEED={seed}, after {seed - SEED} good ones", file=sys.stderr)
                if os.environ.get("MAPPERFS_KEEP"):
                    shutil.copytree(mount.work, mount.work + ".kept", ignore=shutil.ignore_patterns("mnt"))
                raise
            steps += one.steps
            synced += one.synced
            if LONG or (seed - SEED) % 10 == 9:
                print(f"{seed - SEED + 1} rounds, {steps} steps, {synced} sectors of fio's, "
                      f"{time.monotonic() - began:.0f} s", flush=True)
        assert synced or ROUNDS < 10 or not shutil.which("fio"), "no fsync of fio's ever ended"


main()
