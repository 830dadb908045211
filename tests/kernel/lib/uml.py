"""Boots user-mode-linux once and lets it run all scripts with the kernel's own device mapper.

Needs Debian's packages user-mode-linux and dmsetup; no root, no KVM. The machine's root is the
host's own file system through hostfs, mounted read-only; it can write only to the shared folder
and to its disks, which are plain files.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
DISKS = 4
DISK_BYTES = 4 << 20
META_BYTES = 4 << 20  # of the disk that $meta names: the metadata of a thin pool
# What the core and the targets of the first hour need; a script asks for more with @module.
MODULES = ["dm-mod", "dm-zero", "dm-delay", "dm-flakey", "dm-dust", "dm-switch", "dm-unstripe"]


def missing():
    """Names of what is not installed, as the packages to install."""
    found = []
    if not shutil.which("linux.uml") or not pathlib.Path("/usr/lib/uml/modules").is_dir():
        found.append("user-mode-linux")
    if not _dmsetup():
        found.append("dmsetup")
    if not shutil.which("thin_dump", path=SYSTEM_PATH):
        found.append("thin-provisioning-tools")
    return found


def _dmsetup():
    return shutil.which("dmsetup", path=SYSTEM_PATH)


def _programs():
    """What the steps run most, and the libraries of that, for the machine to hold in memory."""
    names = ["dmsetup", "sh", "dd", "cat", "sleep", "timeout", "head", "cut", "grep", "sort", "od",
             "sha256sum", "sed", "thin_dump", "thin_restore", "thin_check"]
    programs = [p for p in (shutil.which(n, path=SYSTEM_PATH) for n in names) if p]
    libraries = set()
    for program in programs:
        listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
        libraries.update(re.findall(r"=> (/\S+)", listed))
    return {"programs": programs, "libraries": sorted(libraries)}


def version():
    """What the kernel's answers depend on: the machine's kernel and the tool's version."""
    uml = sorted(os.listdir("/usr/lib/uml/modules"))
    tools = [pathlib.Path(shutil.which(name, path=SYSTEM_PATH)).stat() for name in ("dmsetup", "thin_dump")]
    return " ".join([str(uml), *(f"{tool.st_size} {int(tool.st_mtime)}" for tool in tools)])


class Machine:
    """One boot. start() returns at once; wait() gives the folder with the transcripts."""

    def __init__(self, share, texts):
        """`texts` maps each script's name to its text: the machine need not see the tree."""
        self.share = pathlib.Path(share)
        self.texts = texts
        self.process = None

    def start(self):
        for stale in ("kernel", "done", "trouble"):
            path = self.share / stale
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        self.share.mkdir(parents=True, exist_ok=True)
        arguments = []
        for index, size in enumerate([DISK_BYTES] * DISKS + [META_BYTES]):
            disk = self.share / f"ubd{index}"
            with open(disk, "wb") as file:
                file.truncate(size)
            arguments.append(f"ubd{index}={disk}")
        job = {"scripts": self.texts, "modules": MODULES, **_programs(),
               "disks": [f"/dev/ubd{chr(ord('a') + i)}" for i in range(DISKS)],
               "meta": f"/dev/ubd{chr(ord('a') + DISKS)}"}
        (self.share / "job.json").write_text(json.dumps(job))
        command = ["linux.uml", "mem=512M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/",
                   "ro", *arguments, f"init={HERE / 'guest.py'}", f"mapperfs_share={self.share}",
                   "con=null", "con0=fd:0,fd:1", "ssl=null", "quiet", f"umid=mapperfs{os.getpid()}"]
        environment = {**os.environ, "HOME": str(self.share)}
        with open(self.share / "console.log", "wb") as console:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=console,
                                            stderr=subprocess.STDOUT, env=environment,
                                            start_new_session=True)

    def wait(self, timeout_s):
        """Waits for the power-off. Raises RuntimeError with the console's end on trouble."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.stop()
            raise RuntimeError(self._trouble(f"the machine was not done after {timeout_s} s")) from None
        if not (self.share / "done").exists():
            raise RuntimeError(self._trouble("the machine stopped early"))
        return self.share / "kernel"

    def stop(self):
        """Ends the machine with all its threads; a no-op after the power-off."""
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _trouble(self, what):
        finished = len(list((self.share / "kernel").glob("*/*.json")))
        console = (self.share / "console.log").read_text(errors="replace")[-3000:]
        return f"{what}; {finished} of {len(self.texts)} scripts finished\n{console}"
