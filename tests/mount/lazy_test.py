#!/usr/bin/env python3
"""A lazy unmount (umount -l, fusermount3 -uz) with I/O in flight and more to come: open files go on until they are
closed, then the daemon ends by itself."""
import os
import subprocess
import threading

from lib import Mount, same

BLOCK, BLOCKS = 8192, 64


def in_flight(mount, name):
    return int(mount.read("sys", name, "stats").split()[8])


class Writers:
    """Threads that write and read back, each its own blocks of one open file."""

    def __init__(self, path, count):
        self.fd = os.open(path, os.O_RDWR)
        self.over, self.failures, self.rounds = threading.Event(), [], [0] * count
        self.threads = [threading.Thread(target=self.run, args=(nr,)) for nr in range(count)]
        for thread in self.threads:
            thread.start()

    def run(self, nr):
        try:
            while not self.over.is_set():
                at = (nr * BLOCKS + self.rounds[nr] % BLOCKS) * BLOCK
                data = bytes([self.rounds[nr] % 251 + 1]) * BLOCK
                same("bytes written", BLOCK, os.pwrite(self.fd, data, at))
                assert os.pread(self.fd, BLOCK, at) == data, f"block at {at}"
                self.rounds[nr] += 1
            os.fsync(self.fd)
        except (OSError, AssertionError) as why:
            self.failures.append(why)

    def await_rounds(self, more):
        wanted = [done + more for done in self.rounds]
        while any(done < want for done, want in zip(self.rounds, wanted)):
            assert not self.failures, self.failures
            threading.Event().wait(0.005)

    def finish(self):
        self.over.set()
        for thread in self.threads:
            thread.join()
        assert not self.failures, self.failures
        os.close(self.fd)


def check(unmount):
    with Mount() as mount:
        # Slow enough that there is always something in flight.
        mount.control("mem: 0 131072 ram\nslow: 0 131072 delay mem 0 20")
        writers = Writers(mount.file("slow"), 8)
        writers.await_rounds(2)
        while in_flight(mount, "slow") == 0:
            threading.Event().wait(0.001)
        subprocess.run([*unmount, mount.path], check=True, timeout=20)
        with open("/proc/mounts") as table:
            assert mount.path not in table.read(), "still mounted"
        writers.await_rounds(10)
        assert mount.daemon.poll() is None, "ended with a file open"
        writers.finish()
        same("the daemon's exit code", 0, mount.daemon.wait(timeout=20))


def copied():
    """A mount namespace that was made meanwhile has a copy: it keeps the daemon until it ends, or SIGTERM does."""
    for end in ("the namespace", "SIGTERM"):
        with Mount() as mount:
            mount.control("mem: 0 2048 ram")
            copy = subprocess.Popen(["unshare", "-m", "--propagation", "private", "sh", "-c", 'echo; read -r _; ls "$0"',
                                     mount.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            copy.stdout.readline()
            subprocess.run(["fusermount3", "-u", mount.path], check=True, timeout=20)
            same("the mount point", [], os.listdir(mount.path))
            assert mount.daemon.poll() is None, "ended although a copy is there"
            if end == "SIGTERM":
                mount.daemon.terminate()
                same("the daemon's exit code", 0, mount.daemon.wait(timeout=20))
            seen = copy.communicate("\n", timeout=20)[0].split()
            same("seen in the copy", [] if end == "SIGTERM" else ["control", "mem", "sys"], seen)
            same("the daemon's exit code", 0, mount.daemon.wait(timeout=20))


def main():
    check(["fusermount3", "-uz"])
    if os.getuid() != 0:
        print("skipped: lazy_test.py: without root no umount -l and no mount namespace")
        return
    check(["umount", "-l"])
    copied()


if __name__ == "__main__":
    main()
