"""What the benchmark compares: jobs, contenders, which of them meet, and what the project wants of them. Starts
nothing, so that tests can look at it."""

import os

import contenders as c

# name: fio options. The first two are the jobs of the dm-loop posting of January 2018.
JOBS = {
    "randrw 4K 99x12": dict(rw="randrw", bs="4k", ioengine="libaio", numjobs=99, iodepth=12),
    "randrw 32K 99x12": dict(rw="randrw", bs="32k", ioengine="libaio", numjobs=99, iodepth=12),
    "randrw 4K 8x12": dict(rw="randrw", bs="4k", ioengine="libaio", numjobs=8, iodepth=12),
    "randrw 4K 2x16": dict(rw="randrw", bs="4k", ioengine="libaio", numjobs=2, iodepth=16),
    "randrw 4K 1x16": dict(rw="randrw", bs="4k", ioengine="libaio", numjobs=1, iodepth=16),
    "randrw 4K sync": dict(rw="randrw", bs="4k", ioengine="psync", numjobs=1, iodepth=1),
    "rw 128K 1x8": dict(rw="rw", bs="128k", ioengine="libaio", numjobs=1, iodepth=8),
    "rw 1M 1x4": dict(rw="rw", bs="1m", ioengine="libaio", numjobs=1, iodepth=4),
}
EVERY_JOB = tuple(JOBS)
DISK_JOBS = ("randrw 4K 8x12", "randrw 4K 1x16", "rw 128K 1x8")
STACK_JOBS = ("randrw 4K 8x12", "randrw 4K 2x16", "randrw 4K 1x16", "randrw 4K sync", "rw 1M 1x4")
# One linear is there for eight to be compared with.
ONE_JOBS = ("randrw 4K 8x12", "randrw 4K 2x16", "randrw 4K sync")
QSD_JOBS = ("randrw 4K 8x12", "randrw 4K 2x16", "randrw 4K 1x16", "randrw 4K sync")
SLOW_JOBS = ("randrw 4K 2x16",)
USER_JOBS = ("randrw 4K 2x16", "randrw 4K sync")
QUICK_JOBS = ("randrw 4K 99x12", "randrw 4K 2x16", "randrw 4K sync")
# What --quick leaves out, each the second of its kind.
NOT_QUICK = ("--direct-io", "striped", "offset", "delay")
# What a run costs beside its measured time: start, fio's threads, the end; and for each GiB that is filled first.
OVERHEAD_SECONDS, FILL_SECONDS = 1.2, 0.8
# A round of the engine alone.
ENGINE_SECONDS = 3

# Requests that a core's ring has places for, and asynchronous ones that the kernel may have under way: what mapperfs
# takes by itself on a machine like this one, given to the yardstick as well.
RING_DEPTH = 256
BACKGROUND = {"dev": 512, "uring": RING_DEPTH // 2}
# Who is nobody's owner, for what is measured without any privilege.
USER = 65534

TMPFS, LOOP = "tmpfs file", "kernel loop on tmpfs"
DISK = "disk file"
RAM_PASS, LOOP_PASS = "mapperfs ram, passthrough", "mapperfs loop on tmpfs, passthrough"
DISK_PASS = "mapperfs loop on disk, passthrough"
# Every case that the engine serves and that lies in memory, as qemu-storage-daemon's file does.
ENGINE_CASES = ("ram", "loop on tmpfs", "linear at an offset", "striped 2", "8 linears", "delay 0")
QSD = "qemu-storage-daemon"
USER_RAM = "mapperfs ram, dev, without privileges"


class Entry:
    """A contender and the jobs it runs."""

    def __init__(self, contender, jobs=EVERY_JOB):
        self.contender, self.jobs = contender, jobs

    @property
    def name(self):
        return self.contender.name


def line_up(build, shm, disk, size, transports):
    """Every contender. `transports`: those that can be had, the fastest last."""
    mem, on_disk = os.path.join(shm, "backing"), os.path.join(disk, "backing")
    sectors = size >> 9
    yardstick = os.path.join(build, "tests", "bench", "yardstick")
    ram = f"disk: 0 {sectors} ram\n"

    def mapperfs(what, transport, table, jobs=EVERY_JOB, fill=True):
        depth = RING_DEPTH if transport == "uring" else None
        return Entry(c.Mapperfs(f"mapperfs {what}, {transport}", build, transport, table, fill=fill, depth=depth), jobs)

    def passthrough(name, table, fill, jobs=EVERY_JOB):
        return Entry(c.Mapperfs(name, build, "auto", "create --passthrough disk\n" + table, fill=fill,
                                passthrough=True), jobs)

    def stacks(transport):
        """What is made of rams and linears."""
        half = size // 2 >> 9
        low = f"l0: 0 {sectors} ram\n"
        under = low + "".join(f"l{i}: 0 {sectors} linear l{i - 1} 0\n" for i in range(1, 8))
        return [
            mapperfs("1 linear", transport, low + f"disk: 0 {sectors} linear l0 0\n", ONE_JOBS),
            mapperfs("8 linears", transport, under + f"disk: 0 {sectors} linear l7 0\n", STACK_JOBS),
            mapperfs("linear at an offset", transport, low + f"disk: 0 {sectors - 8} linear l0 8\n", STACK_JOBS),
            mapperfs("striped 2", transport, f"a: 0 {half} ram\nb: 0 {half} ram\n"
                     f"disk: 0 {2 * half} striped 2 128 a 0 b 0\n", STACK_JOBS),
            mapperfs("delay 0", transport, low + f"disk: 0 {sectors} delay l0 0 0\n", STACK_JOBS),
        ]

    entries = [
        Entry(c.File(TMPFS, mem)),
        Entry(c.KernelLoop(LOOP, mem)),
        Entry(c.KernelLoop(LOOP + ", --direct-io", mem, True)),
        passthrough(RAM_PASS, ram, True),
        passthrough(LOOP_PASS, f"disk: 0 {sectors} loop {mem} 0\n", False),
    ]
    for transport in transports:
        options = ["-o", f"io_uring,io_uring_q_depth={RING_DEPTH}"] if transport == "uring" else []
        entries += [
            Entry(c.Yardstick(f"yardstick, {transport}", yardstick, size, BACKGROUND[transport], options)),
            mapperfs("ram", transport, ram),
            mapperfs("loop on tmpfs", transport, f"disk: 0 {sectors - 8} loop {mem} 8\n", fill=False),
            *stacks(transport),
        ]
    entries += [
        Entry(c.UserMapperfs(USER_RAM, build, "dev", ram, USER), USER_JOBS),
        Entry(c.File(DISK, on_disk), DISK_JOBS),
        Entry(c.KernelLoop("kernel loop on disk", on_disk), DISK_JOBS),
        Entry(c.KernelLoop("kernel loop on disk, --direct-io", on_disk, True), DISK_JOBS),
        passthrough(DISK_PASS, f"disk: 0 {sectors} loop {on_disk} 0\n", False, DISK_JOBS),
    ]
    for transport in transports:
        entries.append(mapperfs("loop on disk", transport, f"disk: 0 {sectors - 8} loop {on_disk} 8\n", DISK_JOBS,
                                fill=False))
    return entries + [Entry(c.QemuStorageDaemon(QSD, mem), QSD_JOBS), Entry(c.Nbdfuse("nbdfuse+nbdkit", mem), SLOW_JOBS)]


def choose(entries, jobs=(), only=(), quick=False):
    """{job: [contender]}: those whose names have one of the words; no words, all."""
    plan = {}
    for job in QUICK_JOBS if quick else EVERY_JOB:
        if jobs and not any(word in job for word in jobs):
            continue
        racers = [e.contender for e in entries
                  if job in e.jobs and (not only or any(word in e.name for word in only)) and
                  not (quick and any(word in e.name for word in NOT_QUICK))]
        if racers:
            plan[job] = racers
    return plan


def expected_seconds(plan, rounds, seconds, size, with_engine):
    """About what a plan takes; `size`: of each device, `with_engine`: the engine alone as well."""
    racers = [racer for at in plan.values() for racer in at]
    filled = sum(1 for racer in racers if racer.fill)
    return rounds * (len(racers) * (seconds + OVERHEAD_SECONDS) + filled * FILL_SECONDS * size / (1 << 30) +
                     (ENGINE_SECONDS if with_engine else 0))


def goals(transports):
    """(label, job, contender or several, against, at least): see report.Results.goals and docs/performance.md."""
    found = []

    def want(job, a, b, least):
        found.append((f"{job}: {a} / {b}", job, a, b, least))

    for size, least in (("4K", 2.5), ("32K", 2.2)):
        for name in (RAM_PASS, LOOP_PASS):
            want(f"randrw {size} 99x12", name, LOOP, least)
            want(f"randrw {size} 99x12", name, TMPFS, 0.9)
    fast = transports[-1]
    for job in ("randrw 4K 8x12", "randrw 4K 2x16"):
        want(job, f"mapperfs ram, {fast}", f"yardstick, {fast}", 0.92)
        want(job, f"mapperfs ram, {fast}", LOOP, 1.0)
        want(job, f"mapperfs 8 linears, {fast}", f"mapperfs 1 linear, {fast}", 0.93)
    want("randrw 4K sync", f"mapperfs ram, {fast}", f"yardstick, {fast}", 0.95)
    for job in ("randrw 4K 1x16", "randrw 4K 8x12"):
        for transport in transports:
            want(job, f"mapperfs loop on disk, {transport}", DISK, 0.9)
    for job in QSD_JOBS:
        for transport in transports:
            cases = tuple(f"mapperfs {case}, {transport}" for case in ENGINE_CASES)
            found.append((f"{job}: least of {{count}}, {{least}} / {QSD}", job, cases, QSD, 4.0))
    want("randrw 4K 2x16", USER_RAM, LOOP, 0.8)
    return found
