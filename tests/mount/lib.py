"""Common ground of the mount tests in Python: a daemon on a folder of the test's own."""
import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

LONG = bool(os.environ.get("MAPPERFS_LONG"))
TRANSPORT = os.environ.get("MAPPERFS_TRANSPORT", "auto")
SWITCH = "/sys/module/fuse/parameters/enable_uring"


def skip(why):
    print(f"SKIPPED: {os.path.basename(sys.argv[0])}: {why}", file=sys.stderr)
    sys.exit(77)


def need_fuse():
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        skip("/dev/fuse is missing or not ours to open")
    if TRANSPORT == "uring":
        try:
            on = open(SWITCH).read().strip() in ("Y", "1")
        except OSError:
            on = False
        if not on:
            skip(f"FUSE over io_uring is not there or off: {SWITCH}")


class Mount:
    """with Mount() as m: m.path is the mount point, m.work a folder beside it."""

    def __init__(self, *options):
        need_fuse()
        self.options = options

    def __enter__(self):
        # What hangs in a dead mount hangs for good: an alarm ends the test instead.
        signal.alarm(900 if LONG else 150)
        self.work = tempfile.mkdtemp(prefix="mapperfs-test.")
        self.path = os.path.join(self.work, "mnt")
        os.mkdir(self.path)
        self.log = open(os.path.join(self.work, "daemon.log"), "wb")
        self.start()
        return self

    def start(self):
        """The daemon; returns when it serves."""
        self.daemon = subprocess.Popen(
            [os.environ["MAPPERFS"], "-f", "--transport", TRANSPORT, *self.options, self.path],
            stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 10
        while f" {self.path} fuse.mapperfs " not in open("/proc/mounts").read():
            if self.daemon.poll() is not None or time.monotonic() > deadline:
                raise AssertionError("not mounted: " + self.said())
        # What could not be had is served through /dev/fuse: the test would prove that twice.
        serves = next(line for line in self.read("sys", "version").splitlines() if line.startswith("transport: "))
        wanted = {"dev": ["/dev/fuse"], "uring": ["io_uring"]}.get(TRANSPORT, ["/dev/fuse", "io_uring"])
        assert serves.split(": ", 1)[1] in wanted, f"asked for {TRANSPORT}, {serves}"

    def crash(self):
        """Kills the daemon and takes its mount away; start() begins anew on the same folder."""
        self.daemon.kill()
        self.daemon.wait()
        subprocess.run(["fusermount3", "-uz", self.path], timeout=20, check=True)

    def __exit__(self, kind, value, trace):
        if value is not None:
            print("-- the daemon said:\n" + self.said()[-4000:], file=sys.stderr)
        # Not lazily where all went well: what the test left open would be the test's fault.
        how = "-uq" if value is None else "-uzq"
        subprocess.run(["fusermount3", how, self.path], timeout=20)
        try:
            code = self.daemon.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            code = "no end"
        said = self.said()
        shutil.rmtree(self.work)
        if value is None:
            assert code == 0, f"the daemon ended with {code}: {said[-6000:]}"

    def said(self):
        self.log.flush()
        return open(self.log.name, errors="replace").read()

    def file(self, *names):
        return os.path.join(self.path, *names)

    def control(self, text):
        """One transaction; the reply."""
        control = os.open(self.file("control"), os.O_RDWR)
        try:
            data = text if isinstance(text, bytes) else text.encode()
            if not data.endswith(b"\n"):
                data += b"\n"
            assert os.write(control, data) == len(data)
            reply = b""
            while more := os.pread(control, 1 << 20, len(reply)):
                reply += more
            return reply.decode()
        finally:
            os.close(control)

    def read(self, *names):
        with open(self.file(*names), "rb", buffering=0) as file:
            return file.read().decode()


def fails(wanted, call, *args):
    """call(*args) must raise OSError with that errno."""
    try:
        call(*args)
    except OSError as error:
        got = errno.errorcode[error.errno]
        assert error.errno == wanted, f"{call.__name__}{str(args)[:200]}: {got}, not {errno.errorcode[wanted]}"
        return
    raise AssertionError(f"{call.__name__}{str(args)[:200]} went through; {errno.errorcode[wanted]} expected")


def same(what, expected, got):
    assert expected == got, f"{what}: expected {expected!r}, got {got!r}"[:3000]
