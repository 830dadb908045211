"""mapperfs as the other side: a mount and a set of disk files for each script.

Every script has a daemon of its own, as the kernel's side has removed all devices before it starts.
A daemon that hangs is killed after a time, which frees everything that waits for it.
"""

import contextlib
import os
import pathlib
import shutil
import subprocess
import tempfile
import threading
import time

import pat
import steps

SCRIPT_LIMIT_S = 90
START_LIMIT_S = 10
THIN_TOOLS = ("thin_check", "thin_dump", "thin_restore", "thin_ls", "thin_delta", "thin_rmap")
# A mapped device is a file here, which is discarded by punching a hole.
BLKDISCARD = """#!/bin/sh
offset=0 length=
while getopts o:l: option; do
  case $option in o) offset=$OPTARG ;; l) length=$OPTARG ;; *) exit 1 ;; esac
done
shift $((OPTIND - 1))
exec fallocate -p -o "$offset" -l "${length:-$(($(stat -L -c %s "$1") - offset))}" "$1"
"""


class Tools:
    """Where the programs of a build are. Raises FileNotFoundError where one is missing."""

    def __init__(self, build):
        self.mapperfs = self._find(pathlib.Path(build), "mapperfs")
        self.mapperctl = self._find(pathlib.Path(build), "mapperctl")

    @staticmethod
    def _find(build, name):
        for folder in ("tools", "bin", "."):
            path = build / folder / name
            if path.is_file() and os.access(path, os.X_OK):
                return path.resolve()
        raise FileNotFoundError(f"no {name} in {build}")


class Mount:
    """A running daemon. Use with `with`; `side` is what steps.run_part() wants."""

    def __init__(self, tools, disks, disk_bytes, no_space_timeout_s=60):
        self.tools = tools
        self.options = ["-o", f"thin_no_space_timeout={no_space_timeout_s}"]
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="mapperfs-kernel-"))
        self.mnt = self.folder / "mnt"
        self.disks = [self.folder / f"disk{i}" for i in range(disks)]
        self.meta = self.folder / "meta"
        self.disk_bytes = disk_bytes
        self.logged = ""
        self.killed = False

    def __enter__(self):
        self.mnt.mkdir()
        for disk in self.disks:
            with open(disk, "wb") as file:
                file.truncate(self.disk_bytes)
        programs = self.folder / "bin"
        programs.mkdir()
        # Not a plain link: under the name dmsetup, mapperctl would leave its own sentences out.
        (programs / "mapperctl").symlink_to(self.tools.mapperctl)
        (programs / "dmsetup").write_text('#!/bin/sh\nexec mapperctl "$@"\n')
        (programs / "blkdiscard").write_text(BLKDISCARD)
        for tool in THIN_TOOLS:
            (programs / tool).write_text(f'#!/bin/sh\nexec mapperctl {tool.replace("_", "-")} "$@"\n')
        # Theirs writes over the metadata there are.
        (programs / "thin_restore").write_text('#!/bin/sh\ncase "$*" in *"-o $meta") rm -rf "$meta" ;; esac\n'
                                               'exec mapperctl thin-restore "$@"\n')
        for program in ("dmsetup", "blkdiscard", *THIN_TOOLS):
            (programs / program).chmod(0o755)
        self.output = open(self.folder / "daemon.log", "wb")
        self.daemon = subprocess.Popen([self.tools.mapperfs, "--foreground", *self.options, self.mnt],
                                       stdin=subprocess.DEVNULL, stdout=self.output,
                                       stderr=subprocess.STDOUT, start_new_session=True)
        self.guard = threading.Timer(SCRIPT_LIMIT_S, self.kill)
        self.guard.daemon = True
        self.guard.start()
        deadline = time.monotonic() + START_LIMIT_S
        while not (self.mnt / "control").exists():
            if self.daemon.poll() is not None or time.monotonic() > deadline:
                said = (self.folder / "daemon.log").read_text(errors="replace")
                self.__exit__(None, None, None)
                raise RuntimeError(f"mapperfs did not start: {said}")
            time.sleep(0.01)
        self.env = {
            "PATH": f"{programs}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C", "HOME": str(self.folder), "MAPPERFS_MOUNT": str(self.mnt),
            "mnt": str(self.mnt), "major": str(self.major()), "meta": str(self.meta),
            **{f"disk{i}": str(disk) for i, disk in enumerate(self.disks)}}
        return self

    def __exit__(self, *_):
        self.guard.cancel()
        if self.daemon.poll() is None:
            subprocess.run(["fusermount3", "-u", "-z", self.mnt], check=False,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                self.daemon.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()
        subprocess.run(["fusermount3", "-u", "-z", self.mnt], check=False,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.output.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def tail(self):
        """The last lines that the daemon printed."""
        return (self.folder / "daemon.log").read_text(errors="replace").splitlines()[-10:]

    def kill(self):
        """Ends a daemon that does not answer; what waits for it gets ENOTCONN."""
        self.killed = True
        self.daemon.kill()
        self.daemon.wait()

    def _list(self):
        """The devices as control's `list` gives them, a list of fields each."""
        try:
            fd = os.open(self.mnt / "control", os.O_RDWR)
        except OSError:
            return []
        try:
            os.write(fd, b"list\n")
            text, offset = b"", 0
            while piece := os.pread(fd, 1 << 16, offset):
                text, offset = text + piece, offset + len(piece)
        except OSError:
            return []
        finally:
            with contextlib.suppress(OSError):  # of a daemon that is gone
                os.close(fd)
        return [line.split("\t") for line in text.decode("utf-8", "replace").splitlines()]

    def major(self):
        """The major number mapped devices show; asked of a device made for the purpose."""
        def tell(line):
            fd = os.open(self.mnt / "control", os.O_WRONLY)
            try:
                os.write(fd, line)
            finally:
                os.close(fd)
        tell(b"create probe\n")
        number = int(self._list()[0][2])
        tell(b"remove probe\n")
        return number

    def names(self):
        return {fields[3]: _unescaped(fields[0]) for fields in self._list()}

    def log(self):
        try:
            text = (self.mnt / "sys/log").read_text(errors="replace")
        except OSError:
            return []
        new = text[len(self.logged):] if text.startswith(self.logged) else text
        self.logged = text
        return new.splitlines()

    def clear(self):
        """Removes what is left and returns the names; also says if the daemon is no more."""
        if self.daemon.poll() is not None:
            how = "hung and was killed" if self.killed else f"ended: {self.daemon.returncode}"
            return [f"the daemon {how}", *self.tail()]
        left = sorted(self.names().values())
        for _ in left:
            subprocess.run([self.tools.mapperctl, "remove_all", "--force"], check=False, timeout=20,
                           env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return left

    def save(self, folder):
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
            for index, disk in enumerate(self.disks):
                shutil.copyfile(disk, folder / f"disk{index}")
        return [pat.sha(str(disk)) for disk in self.disks]

    def load(self, folder):
        for index, disk in enumerate(self.disks):
            shutil.copyfile(folder / f"disk{index}", disk)

    def metadata(self, folder):
        """What thin-dump says of $meta, line by line; also put into `folder` if one is given."""
        ran = subprocess.run([self.tools.mapperctl, "thin-dump", self.meta], timeout=20, check=False,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        dump = ran.stdout if ran.returncode == 0 else ""
        if folder:
            (folder / "meta.xml").write_text(dump)
        return dump.splitlines()

    def load_metadata(self, folder):
        shutil.rmtree(self.meta, ignore_errors=True)
        if (folder / "meta.xml").read_text():
            subprocess.run([self.tools.mapperctl, "thin-restore", "-q", "-i", folder / "meta.xml",
                            "-o", self.meta], timeout=20, check=False)


def _unescaped(word):
    out, quoted = [], False
    for letter in word:
        if letter == "\\" and not quoted:
            quoted = True
            continue
        out.append(letter)
        quoted = False
    return "".join(out)


def run_part(mount, script, part, save_to):
    records = steps.run_part(mount, script.parts[part], mount.folder / "steps" / part.replace(" ", "-"))
    left = mount.clear()
    facts = {"major": int(mount.env["major"]), "mnt": str(mount.mnt),
             "disks": list(map(str, mount.disks)), "meta": str(mount.meta)}
    disks = mount.save(save_to)
    return {"steps": records, "left": left, "disks": disks, "facts": facts,
            "metadata": mount.metadata(save_to) if script.has_metadata else []}


def run_script(tools, script, images, disks, disk_bytes):
    """All parts of `script` in a row; disks are saved below `images` where they are to travel."""
    transcript = {}
    with Mount(tools, disks, disk_bytes, script.no_space_timeout_s) as mount:
        for part in script.parts:
            folder = images / script.name / f"mapperfs-{part}" if script.travels else None
            transcript[part] = run_part(mount, script, part, folder)
    return transcript


def run_over_kernel(tools, script, images, disks, disk_bytes):
    """Each part again, over the image that the kernel left after the part before it."""
    transcript, before = {}, None
    with Mount(tools, disks, disk_bytes, script.no_space_timeout_s) as mount:
        for part in script.parts:
            if before:
                mount.load(images / script.name / f"kernel-{before}")
                if script.has_metadata:
                    mount.load_metadata(images / script.name / f"kernel-{before}")
                transcript[f"{part} over kernel"] = run_part(mount, script, part, None)
            before = part
    return transcript
