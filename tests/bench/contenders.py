"""Contenders of the benchmark: each brings up one thing that fio can read and write, proves that it is what it
claims to be, and takes it down again."""

import concurrent.futures
import contextlib
import mmap
import os
import shutil
import signal
import subprocess
import time
from stat import S_IMODE, S_ISUID

MIB = 1 << 20
FILL_BYTES = 64 * MIB  # at a time, by one thread
TICKS = os.sysconf("SC_CLK_TCK")
# What `transport` of sys/version says for the words that --transport takes.
TRANSPORT_NAMES = {"dev": "/dev/fuse", "uring": "io_uring"}


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


def mount_type(path, mountinfo):
    """The type of what is mounted on `path` itself, or None. A folder without its mount would measure the disk
    beneath; of several mounts on one place the last counts."""
    found = None
    for line in mountinfo.splitlines():
        left, right = line.split(" - ", 1)
        if left.split()[4] == path.replace(" ", "\\040"):
            found = right.split()[0]
    return found


def mounted_as(path, *types):
    with open("/proc/self/mountinfo") as table:
        return mount_type(path, table.read()) in types


def facts_of(text):
    """The `key: value` lines of sys/version."""
    return dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)


def check_transport(asked, version_text):
    """Whatever could not be had, the daemon serves through /dev/fuse: that is to be told, not to be measured."""
    serves = facts_of(version_text).get("transport", "nothing")
    if asked != "auto" and not serves.startswith(TRANSPORT_NAMES[asked]):
        raise Unavailable(f"asked for transport {asked}, serves {serves}")


def check_served(passthrough, served_text):
    """Who serves the device, once it is open."""
    if (served_text.strip() == "passthrough") != passthrough:
        raise Unavailable(f"wanted {'passthrough' if passthrough else 'the engine'}, served by: {served_text.strip()}")


def cpu_of(stat_text):
    """User and system seconds in the text of /proc/PID/stat; the command's name may hold anything."""
    fields = stat_text[stat_text.rindex(")") + 2:].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def children_of(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as children:
            return [int(word) for word in children.read().split()]
    except OSError:
        return []


class Priority:
    """That of everything that is measured, while this is entered. Where the kernel groups processes by session, the
    group has it; a process' own only counts within its group."""

    AUTOGROUP = "/proc/self/autogroup"
    nice = 0

    def __init__(self, nice):
        self.wanted = nice

    def _set(self, nice):
        Priority.nice = nice
        if os.access(self.AUTOGROUP, os.W_OK):
            with open(self.AUTOGROUP, "w") as group:
                group.write(str(nice))
        else:
            os.setpriority(os.PRIO_PROCESS, 0, nice)

    def __enter__(self):
        if self.wanted != 0:
            self._set(self.wanted)

    def __exit__(self, *_):
        if self.wanted != 0:
            self._set(0)


def kworkers():
    """The kernel's unbound workers: the loop driver's work is done by them."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/comm") as comm:
            if comm.read().startswith("kworker/u"):
                yield int(pid)


def kworker_seconds():
    """What each of them has run."""
    times = {}
    for pid in kworkers():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/schedstat") as stat:
            times[pid] = int(stat.read().split()[0]) / 1e9
    return times


class Contender:
    """`start` returns the file for fio; `stop` takes everything down, however far `start` came."""

    fill = False
    prefix = ()  # of fio's command

    def __init__(self, name):
        self.name, self.process = name, None

    def start(self, work):
        raise NotImplementedError

    def stop(self):
        pass

    def prove(self, path):
        """With the file open. Raises Unavailable."""

    @contextlib.contextmanager
    def held_open(self, path):
        """The file, filled and proven, stays open: what an open settles is settled for fio's as well."""
        with open(path, "r+b", buffering=0) as held:
            if self.fill:
                fill(held, os.stat(path).st_size)
            self.prove(path)
            yield

    def cpu_seconds(self):
        """Of the contender's processes until now."""
        if self.process is None:
            return 0.0
        total = 0.0
        for pid in [self.process.pid, *children_of(self.process.pid)]:
            with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as stat:
                total += cpu_of(stat.read())
        return total

    def _spawn(self, argv, log):
        # A process group of its own: Ctrl-C on the terminal is for us, who then take it down in order. Not a session:
        # the kernel's autogroups would give it a share of the processors of its own.
        with open(log, "w") as out:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                            preexec_fn=os.setpgrp)

    def _end_process(self):
        if self.process is None:
            return
        for end_it in (lambda: None, self.process.terminate, self.process.kill):
            end_it()
            try:
                self.process.wait(timeout=5)
                break
            except subprocess.TimeoutExpired:
                continue
        self.process = None


def fill(file, size):
    """Memory that was never written would be measured while it is allocated. From all cores, since it is the kernel's
    clearing that takes the time, and from whole pages."""
    with mmap.mmap(-1, MIB) as block:
        block.write(os.urandom(MIB))

        def write(begin):
            end = min(begin + FILL_BYTES, size)
            while begin < end:
                with memoryview(block) as data:
                    begin += os.pwrite(file.fileno(), data[:end - begin], begin)

        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as writers:
            list(writers.map(write, range(0, size, FILL_BYTES)))


class File(Contender):
    """The backing file itself."""

    def __init__(self, name, path):
        super().__init__(name)
        self.path = path

    def start(self, work):
        return self.path


class KernelLoop(Contender):
    def __init__(self, name, path, direct_io=False):
        super().__init__(name)
        self.path, self.direct_io, self.device = path, direct_io, None
        self.workers, self.worked, self.reniced = {}, 0.0, {}

    def cpu_seconds(self):
        """Of kernel workers, whoever they work for: on a machine with other work a little too much."""
        now = kworker_seconds()
        self.worked += sum(max(0.0, seconds - self.workers.get(pid, 0.0)) for pid, seconds in now.items())
        self.workers = now
        return self.worked

    def start(self, work):
        self.device = run("losetup", "--find", "--show", f"--direct-io={'on' if self.direct_io else 'off'}", self.path)
        return self.device

    def _match_priority(self):
        """Its workers run as the rest of us does (--nice), or other work on the machine would slow it alone."""
        for pid in kworkers() if Priority.nice != 0 else ():
            with contextlib.suppress(OSError):
                self.reniced.setdefault(pid, os.getpriority(os.PRIO_PROCESS, pid))
                os.setpriority(os.PRIO_PROCESS, pid, Priority.nice)

    def prove(self, path):
        self._match_priority()
        listed = run("losetup", "--list", "--noheadings", "--output", "BACK-FILE,DIO", path).split()
        if listed != [self.path, str(int(self.direct_io))]:
            raise Unavailable(f"{path} is {listed}, not {self.path} with direct I/O {self.direct_io}")

    def stop(self):
        if self.device:
            run("losetup", "--detach", self.device, check=False)
            self.device = None
        for pid, nice in self.reniced.items():
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, pid, nice)
        self.reniced = {}


class FuseMount(Contender):
    """Something that mounts a FUSE file system: on a folder of its own, or on a file."""

    types = ("fuse",)
    mount = None

    def _mount(self, work, argv_for, on_file=False):
        self.mount = os.path.join(work, "mnt-" + "".join(ch if ch.isalnum() else "-" for ch in self.name))
        if on_file:
            open(self.mount, "w").close()
        else:
            os.makedirs(self.mount, exist_ok=True)
        self._spawn(argv_for(self.mount), self.mount + ".log")
        wait_until(self.name, lambda: self.process.poll() is not None or mounted_as(self.mount, *self.types))
        if self.process.poll() is not None:
            with open(self.mount + ".log") as log:
                raise Unavailable(log.read().strip()[-300:] or "ended at once")

    def prove(self, path):
        if not mounted_as(self.mount, *self.types) or self.process.poll() is not None:
            raise Unavailable(f"{self.mount} is not mounted (any more)")

    def stop(self):
        if self.mount is not None and mounted_as(self.mount, *self.types):
            run("fusermount3", "-uz", self.mount, check=False)
        self._end_process()
        self.mount = None


def thread_names(pid):
    names = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/comm") as comm:
            names.append(comm.read().strip())
    return names


class Yardstick(FuseMount):
    def __init__(self, name, binary, size, background, options):
        super().__init__(name)
        self.binary, self.size, self.background, self.options = binary, size, background, options

    def start(self, work):
        if not os.path.exists(self.binary):
            raise Unavailable(f"{self.binary} is not built")
        self._mount(work, lambda mnt: [self.binary, str(self.size), str(self.background), mnt, *self.options])
        path = os.path.join(self.mount, "mem")
        wait_until(self.name, lambda: os.path.exists(path))
        return path

    def prove(self, path):
        """libfuse says nothing when it could not have its rings, and has threads of this name when it could."""
        super().prove(path)
        rings = any(name.startswith("fuse-ring") for name in thread_names(self.process.pid))
        if rings != ("-o" in self.options):
            raise Unavailable(f"serves through {'io_uring' if rings else '/dev/fuse'}, which was not asked for")


class Mapperfs(FuseMount):
    """mapperfs with one table, whose device `disk` is measured."""

    types = ("fuse.mapperfs",)

    def __init__(self, name, build, transport, table, fill=True, passthrough=False, depth=None):
        super().__init__(name)
        self.build, self.transport, self.table = build, transport, table
        self.fill, self.passthrough = fill, passthrough
        self.options = f"transport={transport}" + (f",io_uring_q_depth={depth}" if depth else "")

    def _daemon(self):
        daemon = os.path.join(self.build, "tools", "mapperfs")
        if not os.path.exists(daemon):
            raise Unavailable(f"{daemon} is not built")
        return daemon

    def start(self, work):
        daemon = self._daemon()
        self._mount(work, lambda mnt: [daemon, "-f", "-o", self.options, mnt])
        with open(os.path.join(self.mount, "control"), "w") as control:
            control.write(self.table)
        return os.path.join(self.mount, "disk")

    def prove(self, path):
        super().prove(path)
        with open(os.path.join(self.mount, "sys", "version")) as version:
            check_transport(self.transport, version.read())
        with open(os.path.join(self.mount, "sys", "disk", "served")) as served:
            check_served(self.passthrough, served.read())


class DevFuseForAll:
    """/dev/fuse, opened for everybody until put back."""

    path = "/dev/fuse"

    def __init__(self):
        self.mode = None

    def open(self):
        mode = S_IMODE(os.stat(self.path).st_mode)
        if mode & 0o666 != 0o666:
            os.chmod(self.path, mode | 0o666)
            self.mode = mode

    def put_back(self):
        if self.mode is not None:
            os.chmod(self.path, self.mode)
            self.mode = None


# Runs as the user, who alone may look into the mount: holds the file open, filled, tells what serves it, and ends with
# its input.
HOLDER = """
import mmap, os, sys
path, mount = sys.argv[1:]
with open(path, "r+b", buffering=0) as held:
    size, block = os.stat(path).st_size, mmap.mmap(-1, 1 << 20)
    block.write(os.urandom(1 << 20))
    while size > 0:
        size -= held.write(memoryview(block)[:size])
    print(open(mount + "/sys/version").read() + "served: " + open(mount + "/sys/disk/served").read(), flush=True)
    print("", flush=True)
    sys.stdin.read()
"""


class UserMapperfs(Mapperfs):
    """The daemon, and fio, as a user without any privilege, through fusermount3."""

    def __init__(self, name, build, transport, table, user):
        super().__init__(name, build, transport, table)
        self.user, self.dev_fuse = user, DevFuseForAll()
        self.prefix = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs"]

    def _as_user(self, *argv):
        # The daemon's own way to mount is a setuid program.
        return [*self.prefix[:-1], *argv]

    def start(self, work):
        helper = shutil.which("fusermount3")
        if os.geteuid() != 0 or not shutil.which("setpriv") or helper is None or not os.stat(helper).st_mode & S_ISUID:
            raise Unavailable("to become a user who may mount takes root, setpriv and a fusermount3 that is setuid")
        self.dev_fuse.open()
        os.chmod(work, 0o711)
        daemon = shutil.copy(self._daemon(), os.path.join(work, "mapperfs-of-a-user"))
        os.chmod(daemon, 0o755)

        def argv(mnt):
            os.chown(mnt, self.user, self.user)
            return self._as_user(daemon, "-f", "-o", self.options, mnt)

        self._mount(work, argv)
        run(*self._as_user("sh", "-c", 'cat >"$0"', os.path.join(self.mount, "control")), input=self.table)
        return os.path.join(self.mount, "disk")

    @contextlib.contextmanager
    def held_open(self, path):
        holder = subprocess.Popen(self._as_user("python3", "-c", HOLDER, path, self.mount), text=True,
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        with holder:
            facts = "".join(iter(holder.stdout.readline, "\n"))
            FuseMount.prove(self, path)
            check_transport(self.transport, facts)
            check_served(False, facts_of(facts).get("served", "nobody"))
            yield

    def stop(self):
        try:
            super().stop()
        finally:
            self.dev_fuse.put_back()


class QemuStorageDaemon(FuseMount):
    def __init__(self, name, path):
        super().__init__(name)
        self.path = path

    def start(self, work):
        if not shutil.which("qemu-storage-daemon"):
            raise Unavailable("package qemu-system-common is not installed")
        self._mount(work, lambda mnt: [
            "qemu-storage-daemon", "--blockdev",
            f"driver=file,node-name=f,filename={self.path},cache.direct=off,locking=off",
            "--export", f"type=fuse,id=e,node-name=f,mountpoint={mnt},writable=on,allow-other=off"], on_file=True)
        return self.mount

    def stop(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
        super().stop()


class Nbdfuse(FuseMount):
    types = ("fuse.nbdfuse", "fuse")

    def __init__(self, name, path):
        super().__init__(name)
        self.path = path

    def start(self, work):
        if not shutil.which("nbdfuse") or not shutil.which("nbdkit"):
            raise Unavailable("packages libnbd-bin and nbdkit are not installed")
        self._mount(work, lambda mnt: ["nbdfuse", mnt, "[", "nbdkit", "--exit-with-parent", "file", self.path, "]"], on_file=True)
        return self.mount
