#!/usr/bin/env python3
"""Ten thousand devices in one mount, and a table of a hundred thousand lines."""
import os
import subprocess
import time

from lib import Mount, same

DEVICES = 10000
LINES = 100000
# The limits are for a machine of one's own: other work and sanitizers stretch them.
PATIENCE = max(float(os.environ.get("MAPPERFS_PATIENCE", "1")), os.getloadavg()[0] / os.cpu_count())


def rss_mib(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


class Within:
    def __init__(self, what, seconds):
        self.what, self.seconds = what, seconds * PATIENCE

    def __enter__(self):
        self.start = time.monotonic()

    def __exit__(self, kind, value, trace):
        took = time.monotonic() - self.start
        print(f"{self.what}: {took:.2f} s (at most {self.seconds:g})")
        assert value is not None or took <= self.seconds, f"{self.what} took {took:.2f} s"


def put(path, text):
    fd = os.open(path, os.O_WRONLY)
    at = 0
    while at < len(text):
        at += os.write(fd, text[at:at + (1 << 17)])
    os.close(fd)


def many_devices(mount):
    control = mount.file("control")
    with Within(f"{DEVICES} devices", 5):
        put(control, b"begin\n" + b"".join(b"dev%05d: 0 2048 ram\n" % i for i in range(DEVICES)) +
            b"commit\n")
    same("ls", DEVICES + 2, len(os.listdir(mount.path)))
    with Within("ls -l", 5):
        same("ls -l", DEVICES + 3, len(subprocess.check_output(["ls", "-l", mount.path]).splitlines()))
    with Within("table of all", 2):
        same("table", DEVICES, len(mount.control("table").splitlines()))
    with Within("table of one", 0.1):
        mount.control("table dev05000")
    with Within("100 swaps", 2):
        for i in range(100):
            mount.control(f"dev{i:05}: 0 4096 ram")
    memory = rss_mib(mount.daemon.pid)
    print(f"RSS: {memory:.0f} MiB")
    assert memory < 200, f"{memory:.0f} MiB for {DEVICES} devices"
    with Within("remove all", 5):
        put(control, b"begin\n" + b"".join(b"remove dev%05d\n" % i for i in range(DEVICES)) +
            b"commit\n")
    same("devices left", "", mount.control("list"))


def long_table(mount):
    mount.control(f"base: 0 {LINES * 8} zero")
    text = b"begin\n" + b"".join(b"long: %d 8 linear base %d\n" % (i * 8, (LINES - 1 - i) * 8)
                                 for i in range(LINES)) + b"commit\n"
    with Within(f"a table of {LINES} lines", 1):
        put(mount.file("control"), text)
    same("lines", LINES, mount.read("sys", "long", "table").count("\n"))
    with Within("1000 reads", 1):
        fd = os.open(mount.file("long"), os.O_RDONLY)
        for i in range(1000):
            os.pread(fd, 4096, (i * 7919 * 4096) % (LINES * 4096))
        os.close(fd)
    mount.control("remove long\nremove base")


def main():
    with Mount("--log-level", "warn") as mount:
        many_devices(mount)
        long_table(mount)


if __name__ == "__main__":
    main()
