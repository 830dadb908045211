#!/usr/bin/env python3
"""./run from end to end, too short to measure anything: what it brings up, measures and takes down."""

import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True
import plan as p  # noqa: E402

ONLY = ["tmpfs file", "yardstick, dev", "mapperfs ram, dev", "mapperfs loop on tmpfs, dev"]


def skip(why):
    print(f"SKIPPED: {os.path.basename(__file__)}: {why}", file=sys.stderr)
    sys.exit(77)


def mounts():
    with open("/proc/self/mounts") as table:
        return [line.split()[1] for line in table]


def main(build):
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        skip("/dev/fuse is missing or not ours to open")
    if subprocess.run(["which", "fio"], capture_output=True).returncode != 0:
        skip("fio is not installed")
    mode = os.stat("/dev/fuse").st_mode
    with tempfile.TemporaryDirectory() as work:
        figures = os.path.join(work, "figures")
        os.chmod(work, 0o711)  # a user's mount lies in it
        done = subprocess.run(
            [os.path.join(HERE, "run"), "--build", build, "--rounds", "1", "--seconds", "0.2", "--size", str(32 << 20),
             "--jobs", "4K sync", "--only", "|".join(ONLY), "--transports", "dev", "--disk", work, "--json", figures],
            capture_output=True, text=True, timeout=150)
        assert done.returncode == 0, done.stderr[-3000:]
        with open(figures) as read:
            samples = json.load(read)["samples"]
        left = [at for at in mounts() if at.startswith(work)]
        assert not left, f"left mounted: {left}"
        assert os.listdir(work) == ["figures"], f"left behind: {os.listdir(work)}"
    assert os.stat("/dev/fuse").st_mode == mode, "the mode of /dev/fuse was not put back"
    measured = {sample["contender"] for sample in samples}
    wanted = {*ONLY, p.USER_RAM}
    left_out = {line.split(": ", 2)[1] for line in done.stderr.splitlines() if line.startswith("left out: ")}
    if p.USER_RAM in left_out:
        print(f"skipped: {os.path.basename(__file__)}: without root {p.USER_RAM} is left out")
        wanted.discard(p.USER_RAM)
    assert measured == wanted, f"measured {sorted(measured)}, wanted {sorted(wanted)}: {done.stderr[-2000:]}"


if __name__ == "__main__":
    main(*sys.argv[1:])
