#!/usr/bin/python3
"""Init of the user-mode-linux machine: mounts, modules, runs every script, powers off.

What it is to do stands in job.json on the shared folder (host path in `mapperfs_share=` on the
kernel's command line); each script's transcript is written there as soon as it is finished, so
that a machine that hangs still tells how far it came.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import traceback

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import pat  # noqa: E402
import script as scripts  # noqa: E402
import steps  # noqa: E402

SHARE = pathlib.Path("/mnt/share")
LIBC = ctypes.CDLL(None, use_errno=True)
SYS_FINIT_MODULE = 313
DM_LIST_DEVICES = 0xC138FD02
NAMES_BYTES = 1 << 16
POWER_OFF = 0x4321FEDC
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FAST_BIN, FAST_LIB = pathlib.Path("/run/bin"), pathlib.Path("/run/lib")
NO_SPACE_TIMEOUT = pathlib.Path("/sys/module/dm_thin_pool/parameters/no_space_timeout")
UML_MODULES = pathlib.Path("/usr/lib/uml/modules")


def mount(kind, where, data=None):
    source = kind.encode()
    if LIBC.mount(source, where.encode(), source, 0, data.encode() if data else None) != 0:
        raise OSError(ctypes.get_errno(), f"mount {kind} on {where}: {os.strerror(ctypes.get_errno())}")


def set_up():
    """The least a machine needs; everything written goes to tmpfs or the shared folder."""
    mount("proc", "/proc")
    mount("sysfs", "/sys")
    mount("tmpfs", "/run")
    mount("tmpfs", "/mnt")
    mount("tmpfs", "/tmp")
    command_line = pathlib.Path("/proc/cmdline").read_text()
    SHARE.mkdir()
    mount("hostfs", str(SHARE), re.search(r"mapperfs_share=(\S+)", command_line).group(1))
    os.symlink("/proc/self/fd", "/dev/fd")


def copy_programs(programs, libraries):
    """Copies what the steps run to memory: a start from hostfs costs three times as much."""
    for folder, paths in ((FAST_BIN, programs), (FAST_LIB, libraries)):
        folder.mkdir()
        for path in paths:
            shutil.copy(path, folder)


class Modules:
    """Loads kernel modules with what they depend on; there need not be a modprobe."""

    def __init__(self):
        self.root = UML_MODULES / os.uname().release
        self.needs, self.loaded = {}, set()
        for line in (self.root / "modules.dep").read_text().splitlines():
            module, _, rest = line.partition(":")
            self.needs[module] = rest.split()

    def load(self, name):
        for module, needs in self.needs.items():
            if module.endswith(f"/{name}.ko"):
                for path in [*reversed(needs), module]:
                    self._insert(path)
                return
        raise FileNotFoundError(f"no module {name} for this kernel")

    def _insert(self, path):
        if path in self.loaded:
            return
        self.loaded.add(path)
        fd = os.open(self.root / path, os.O_RDONLY)
        if LIBC.syscall(SYS_FINIT_MODULE, fd, b"", 0) != 0 and ctypes.get_errno() != 17:
            raise OSError(ctypes.get_errno(), f"cannot load {path}")
        os.close(fd)


class KernelSide:
    """The kernel's device mapper as steps.run_part() wants it."""

    def __init__(self, disks, meta, major):
        self.disks, self.meta = disks, meta
        with pat.Device(disks[0], writable=False) as device:
            self.disk_bytes = device.sectors() * pat.SECTOR
        self.facts = {"major": major, "mnt": "/dev/mapper", "disks": disks,
                      "numbers": [_numbers_of(disk) for disk in disks],
                      "meta": meta, "meta_number": _numbers_of(meta)}
        self.sum_of_zeroes = pat.hashlib.sha256(bytes(self.disk_bytes)).hexdigest()
        self.sums = [self.sum_of_zeroes] * len(disks)  # the files are fresh at the boot
        self.kmsg = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self.kmsg, 0, os.SEEK_END)
        self.env = {
            "PATH": f"{FAST_BIN}:{PATH}", "LD_LIBRARY_PATH": str(FAST_LIB), "LC_ALL": "C",
            "DM_DISABLE_UDEV": "1", "mnt": "/dev/mapper", "major": str(major), "HOME": "/run",
            "meta": meta, **{f"disk{i}": disk for i, disk in enumerate(disks)}}

    @staticmethod
    def names():
        """Asks the kernel itself: sysfs does not know devices that never had a table."""
        answer = bytearray(NAMES_BYTES)
        # struct dm_ioctl: version 4.0.0, data_size, data_start 312 (the struct's own size)
        struct.pack_into("=5I", answer, 0, 4, 0, 0, NAMES_BYTES, 312)
        with open("/dev/mapper/control", "rb") as control:
            fcntl.ioctl(control, DM_LIST_DEVICES, answer)
        at, found = struct.unpack_from("=I", answer, 16)[0], {}
        while True:  # struct dm_name_list: dev, next, name
            device, following = struct.unpack_from("=QI", answer, at)
            if device == 0:
                return found
            name = answer[at + 12 : answer.index(0, at + 12)].decode("utf-8", "replace")
            found[str(os.minor(device))] = name
            if following == 0:
                return found
            at += following

    def log(self):
        lines = []
        while True:
            try:
                lines.append(os.read(self.kmsg, 8192).decode("utf-8", "replace").split("\n")[0])
            except BlockingIOError:
                return [line.partition(";")[2] for line in lines]
            except BrokenPipeError:
                continue

    def clear(self):
        """Removes what a script left; returns the names, so that leaving something is visible."""
        left = sorted(self.names().values())
        for _ in left:
            subprocess.run(["dmsetup", "remove_all", "--force"], env=self.env, timeout=20, check=False,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if self.names():
            raise RuntimeError(f"these devices cannot be removed: {self.names()}")
        return left

    def wipe(self):
        """Fills the disks with zeroes; knows from save() which have zeroes already."""
        for index, disk in enumerate(self.disks):
            if self.sums[index] != self.sum_of_zeroes:
                with pat.Device(disk, writable=True) as device:
                    device.write(0, bytes(self.disk_bytes))

    def wipe_metadata(self):
        with pat.Device(self.meta, writable=True) as device:
            device.write(0, bytes(device.sectors() * pat.SECTOR))

    def metadata(self, folder):
        """What thin_dump says of the metadata, line by line; also put into `folder` if one is given."""
        dump = self._tool("thin_dump", self.meta)
        if folder:
            (folder / "meta.xml").write_text(dump)
        return dump.splitlines()

    def load_metadata(self, folder):
        self.wipe_metadata()
        if (folder / "meta.xml").read_text():
            self._tool("thin_restore", "-q", "-i", str(folder / "meta.xml"), "-o", self.meta)

    def _tool(self, *command):
        ran = subprocess.run(command, env=self.env, timeout=20, check=False, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        return ran.stdout if ran.returncode == 0 else ""

    def save(self, folder):
        """Returns the sum of each disk, after copying it to `folder`/diskN where one is given."""
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
        for index, disk in enumerate(self.disks):
            with pat.Device(disk, writable=False) as device, contextlib.ExitStack() as stack:
                copy = stack.enter_context(open(folder / f"disk{index}", "wb")) if folder else None
                total = pat.hashlib.sha256()
                for piece in device.pieces(0, device.sectors()):
                    total.update(piece)
                    if copy:
                        copy.write(piece)
                self.sums[index] = total.hexdigest()
        return list(self.sums)

    def load(self, folder):
        for index, disk in enumerate(self.disks):
            with pat.Device(disk, writable=True) as device:
                device.write(0, (folder / f"disk{index}").read_bytes())
        self.save(None)


def work(job):
    """Runs all scripts of the job; one transcript file each."""
    modules = Modules()
    for name in job["modules"]:
        modules.load(name)
    side = KernelSide(job["disks"], job["meta"], _dm_major())
    for name, text in job["scripts"].items():
        script = scripts.parse(name, text)
        for module in script.modules:
            modules.load(module)
        if NO_SPACE_TIMEOUT.exists():
            NO_SPACE_TIMEOUT.write_text(str(script.no_space_timeout_s))
        target = SHARE / "kernel" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        transcript = run_script(side, script, SHARE / "images")
        target.with_suffix(".tmp").write_text(json.dumps(transcript))
        os.rename(target.with_suffix(".tmp"), target.with_suffix(".json"))


def run_script(side, script, images):
    """All parts of `script` one after another, and again over the other side's images."""
    transcript = {}
    side.wipe()
    if script.has_metadata:
        side.wipe_metadata()
    folder = images / script.name
    before = None
    for part, part_steps in script.parts.items():
        transcript[part] = run_part(side, script, part, part_steps,
                                    folder / f"kernel-{part}" if script.travels else None)
        if before and (folder / f"mapperfs-{before}").is_dir():
            _load(side, script, folder / f"mapperfs-{before}")
            transcript[f"{part} over mapperfs"] = run_part(side, script, part, part_steps, None)
            _load(side, script, folder / f"kernel-{part}")
        before = part
    return transcript


def _load(side, script, folder):
    side.load(folder)
    if script.has_metadata:
        side.load_metadata(folder)


def run_part(side, script, part, part_steps, save_to):
    records = steps.run_part(side, part_steps, f"/run/steps/{script.name}/{part}")
    left = side.clear()
    disks = side.save(save_to)
    return {"steps": records, "left": left, "disks": disks, "facts": side.facts,
            "metadata": side.metadata(save_to) if script.has_metadata else []}


def _numbers_of(path):
    rdev = os.stat(path).st_rdev
    return f"{os.major(rdev)}:{os.minor(rdev)}"


def _dm_major():
    for line in pathlib.Path("/proc/devices").read_text().splitlines():
        if line.endswith(" device-mapper"):
            return int(line.split()[0])
    raise RuntimeError("no device-mapper in this kernel")


def main():
    try:
        set_up()
        job = json.loads((SHARE / "job.json").read_text())
        copy_programs(job["programs"], job["libraries"])
        work(job)
        (SHARE / "done").write_text("done\n")
    except BaseException:  # init must not die: that is a kernel panic without a word
        traceback.print_exc()
        if SHARE.is_dir():
            (SHARE / "trouble").write_text(traceback.format_exc())
    sys.stdout.flush()
    os.sync()
    LIBC.reboot(POWER_OFF)


if __name__ == "__main__":
    main()
