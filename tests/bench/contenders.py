"""Contenders of the benchmark: each brings up one thing that fio can read and write, proves that it is what it
claims to be, and takes it down again."""

import os
import shutil
import signal
import subprocess
import time


class Unavailable(Exception):
    """Why a contender cannot take part on this machine."""


def run(*argv, check=True, **kwargs):
    result = subprocess.run(argv, capture_output=True, text=True, timeout=60, **kwargs)
    if check and result.returncode != 0:
        raise Unavailable(f"{' '.join(argv)}: {result.stderr.strip() or result.stdout.strip()}")
    return result.stdout.strip()


def wait_until(what, condition, seconds=10.0):
    """Polls: other people's servers have no way to say that they are ready."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Unavailable(f"{what}: not ready after {seconds:.0f} s")
        time.sleep(0.01)


def mounted_as(path, fstype):
    """True if `path` itself is a mount point of that type: an unmounted folder would measure the disk beneath."""
    with open("/proc/self/mountinfo") as table:
        for line in table:
            left, right = line.split(" - ")
            if left.split()[4] == path and right.split()[0] == fstype:
                return True
    return False


class Contender:
    """`start` returns the file for fio. `direct`: whether fio opens it with O_DIRECT."""

    name = ""
    direct = True

    def __init__(self):
        self.process = None

    def start(self, work):
        raise NotImplementedError

    def stop(self):
        pass

    def _spawn(self, argv, log):
        with open(log, "w") as out:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def _end_process(self):
        if self.process is None:
            return
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None


class File(Contender):
    """The backing file itself."""

    def __init__(self, name, path):
        super().__init__()
        self.name, self.path = name, path

    def start(self, work):
        return self.path


class KernelLoop(Contender):
    def __init__(self, name, path, direct_io=False):
        super().__init__()
        self.name, self.path, self.direct_io, self.device = name, path, direct_io, None

    def start(self, work):
        argv = ["losetup", "--find", "--show", self.path]
        if self.direct_io:
            argv.insert(1, "--direct-io=on")
        self.device = run(*argv)
        return self.device

    def stop(self):
        if self.device:
            run("losetup", "--detach", self.device, check=False)
            self.device = None


class FuseMount(Contender):
    """Something that mounts a FUSE file system on a folder of its own."""

    fstype = "fuse"

    def _mount(self, work, argv_for, file_name):
        self.mount = os.path.join(work, "mnt-" + "".join(c if c.isalnum() else "-" for c in self.name))
        os.makedirs(self.mount, exist_ok=True)
        self._spawn(argv_for(self.mount), self.mount + ".log")
        wait_until(self.name, lambda: self.process.poll() is not None or mounted_as(self.mount, self.fstype))
        if self.process.poll() is not None:
            with open(self.mount + ".log") as log:
                raise Unavailable(log.read().strip()[-300:] or "ended at once")
        return os.path.join(self.mount, file_name)

    def stop(self):
        if getattr(self, "mount", None):
            run("fusermount3", "-uz", self.mount, check=False)
        self._end_process()


class Yardstick(FuseMount):
    def __init__(self, name, binary, size, options):
        super().__init__()
        self.name, self.binary, self.size, self.options = name, binary, size, options

    def start(self, work):
        path = self._mount(work, lambda mnt: [self.binary, str(self.size), mnt, *self.options], "mem")
        wait_until(self.name, lambda: os.path.exists(path))
        return path


class Mapperfs(FuseMount):
    """mapperfs with one table. `passthrough`: the device must be served by the kernel, and is checked for it."""

    fstype = "fuse.mapperfs"

    def __init__(self, name, build, transport, table, passthrough=False):
        super().__init__()
        self.name, self.build, self.transport, self.table = name, build, transport, table
        self.passthrough = passthrough

    def start(self, work):
        daemon = os.path.join(self.build, "tools", "mapperfs")
        options = f"transport={self.transport}" + (",passthrough" if self.passthrough else "")
        path = self._mount(work, lambda mnt: [daemon, "-f", mnt, "-o", options], "disk")
        with open(os.path.join(self.mount, "sys", "version")) as version:
            facts = dict(line.split(": ", 1) for line in version.read().splitlines() if ": " in line)
        if self.transport != "auto" and facts.get("transport", "").split()[0] != self.transport:
            raise Unavailable(f"asked for transport {self.transport}, serves {facts.get('transport')}")
        with open(os.path.join(self.mount, "control"), "w") as control:
            control.write(self.table)
        return path


class QemuStorageDaemon(FuseMount):
    name = "qemu-storage-daemon"

    def __init__(self, path):
        super().__init__()
        self.path = path

    def start(self, work):
        if not shutil.which("qemu-storage-daemon"):
            raise Unavailable("package qemu-system-common is not installed")
        self.mount = os.path.join(work, "qsd")
        open(self.mount, "w").close()
        self._spawn(["qemu-storage-daemon", "--blockdev",
                     f"driver=file,node-name=f,filename={self.path},cache.direct=off,locking=off",
                     "--export", f"type=fuse,id=e,node-name=f,mountpoint={self.mount},writable=on,allow-other=off"],
                    self.mount + ".log")
        wait_until(self.name, lambda: self.process.poll() is not None or mounted_as(self.mount, "fuse"))
        if self.process.poll() is not None:
            with open(self.mount + ".log") as log:
                raise Unavailable(log.read().strip()[-300:])
        return self.mount

    def stop(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
        super().stop()


class Nbdfuse(FuseMount):
    name = "nbdfuse+nbdkit"

    def __init__(self, path):
        super().__init__()
        self.path = path

    def start(self, work):
        if not shutil.which("nbdfuse") or not shutil.which("nbdkit"):
            raise Unavailable("packages libnbd-bin and nbdkit are not installed")
        self.mount = os.path.join(work, "nbdfuse")
        open(self.mount, "w").close()
        self._spawn(["nbdfuse", self.mount, "[", "nbdkit", "-s", "--exit-with-parent", "file", self.path, "]"],
                    self.mount + ".log")
        wait_until(self.name, lambda: self.process.poll() is not None or mounted_as(self.mount, "fuse.nbdfuse")
                   or mounted_as(self.mount, "fuse"))
        if self.process.poll() is not None:
            with open(self.mount + ".log") as log:
                raise Unavailable(log.read().strip()[-300:])
        return self.mount
