#!/usr/bin/env python3
"""The control file over the mount: replies, transactions in pieces, backup, events, interruption."""
import errno
import os
import select
import signal
import threading
import time

from lib import TRANSPORT, Mount, fails, same


def replies(mount):
    fd = os.open(mount.file("control"), os.O_RDWR)
    os.write(fd, b"targets\n")
    reply = os.pread(fd, 1 << 16, 0)
    same("reply in small steps", reply, b"".join(os.pread(fd, 7, at) for at in range(0, len(reply), 7)))
    os.write(fd, b"targets\n")
    same("reply without seeking", reply, os.read(fd, 100) + os.read(fd, 1 << 16))
    same("end of the reply", b"", os.read(fd, 100))
    fails(errno.EINVAL, os.write, fd, b"frobnicate\n")
    assert b"frobnicate" in os.pread(fd, 4096, 0)
    os.write(fd, b"create x\n")
    same("no reply to create", b"", os.pread(fd, 4096, 0))
    os.close(fd)
    fd = os.open(mount.file("control"), os.O_WRONLY)
    fails(errno.EINVAL, os.write, fd, b"list\n")
    os.write(fd, b"remove x\n")
    os.close(fd)


def transactions(mount):
    fd = os.open(mount.file("control"), os.O_RDWR)
    text = b"begin\n" + b"".join(b"t%d: 0 8 zero\n" % i for i in range(50)) + b"commit\n"
    for at in range(0, len(text), 11):
        os.write(fd, text[at:at + 11])
        if at + 11 < len(text):
            assert not os.path.exists(mount.file("t0")), "executed before commit"
    same("devices", 50, len(mount.control("list").splitlines()))
    # A line that fails: what stood before stays, what comes after does not come.
    fails(errno.EINVAL, os.write, fd, b"begin\nu0: 0 8 zero\nu1: 0 8 nonsense\nu2: 0 8 zero\ncommit\n")
    assert os.path.exists(mount.file("u0"))
    assert not os.path.exists(mount.file("u1")) and not os.path.exists(mount.file("u2"))
    # Dropped by close.
    os.write(fd, b"begin\nv0: 0 8 zero\n")
    os.close(fd)
    deadline = time.monotonic() + 5
    while "commit" not in mount.read("sys", "log") and time.monotonic() < deadline:
        pass
    assert "closed before" in mount.read("sys", "log"), "a dropped transaction is not in the log"
    assert not os.path.exists(mount.file("v0"))
    # Larger than the transport's largest write: refused whole.
    most = int(mount.read("sys", "version").split("max_write: ")[1].split()[0])
    line = b"w: 0 8 zero\n"
    fd = os.open(mount.file("control"), os.O_RDWR)
    fails(errno.EMSGSIZE, os.write, fd, line + b"#" * most)
    assert not os.path.exists(mount.file("w"))
    text = b"begin\n" + line + b"#" * most + b"\ncommit\n"
    same("a long transaction in one write", len(text), os.write(fd, text))
    assert os.path.exists(mount.file("w"))
    os.close(fd)
    mount.control("remove_all")
    same("remove_all", "", mount.control("list"))


def backup(mount):
    mount.control("create --uuid the-uuid low\nlow: 0 2048 ram\n"
                  "a\\ b: 0 1024 linear low 0\na\\ b: 1024 1024 linear low 1024\n"
                  "create --readonly ro\nro: 0 8 zero\ncreate bare")
    text = mount.read("control")
    before = mount.control("table") + mount.control("list")
    mount.control("remove a\\ b\nremove_all")
    with open(mount.file("control"), "wb", buffering=0) as file:
        file.write(text.encode())
    same("backup of the restored", text, mount.read("control"))
    after = mount.control("table") + mount.control("list")
    strip = lambda lines: sorted(line for line in lines.splitlines() if "\t" not in line)
    same("tables restored", strip(before), strip(after))
    fields = [line.split("\t") for line in mount.control("list").splitlines()]
    same("uuid restored", "the-uuid", [f[1] for f in fields if f[0] == "low"][0])
    same("read-only restored", "L--r", [f[4] for f in fields if f[0] == "ro"][0])
    mount.control("remove a\\ b\nremove_all")


def per_device_files(mount):
    os.mkdir(mount.file("sys", "disk"))
    fails(errno.EEXIST, os.mkdir, mount.file("sys", "disk"))
    same("size without a table", 0, os.stat(mount.file("disk")).st_size)

    def put(name, text):
        with open(mount.file("sys", "disk", name), "wb", buffering=0) as file:
            file.write(text.encode())

    put("table", "0 1024 zero\n# a comment\n1024 1024 error\n")
    same("table", "0 1024 zero \n1024 1024 error \n", mount.read("sys", "disk", "table"))
    put("inactive", "0 4096 zero\n")
    same("inactive", "0 4096 zero \n", mount.read("sys", "disk", "inactive"))
    put("inactive", "\n")
    same("cleared", "", mount.read("sys", "disk", "inactive"))
    fails(errno.EINVAL, put, "table", "0 8 zero\n16 8 zero\n")
    put("uuid", "one\n")
    same("uuid", "one\n", mount.read("sys", "disk", "uuid"))
    fails(errno.EINVAL, put, "uuid", "two\n")
    fails(errno.EINVAL, put, "message", "hello\n")
    os.rename(mount.file("disk"), mount.file("disc"))
    assert os.path.exists(mount.file("sys", "disc", "table"))
    os.rename(mount.file("sys", "disc"), mount.file("sys", "disk"))
    fails(errno.EINVAL, os.rename, mount.file("disk"), mount.file("sys", "moved"))
    os.rmdir(mount.file("sys", "disk"))
    assert not os.path.exists(mount.file("disk"))


def sizes_follow_the_table(mount):
    mount.control("disk: 0 2048 zero")
    fd = os.open(mount.file("disk"), os.O_RDONLY)
    for sectors in (4096, 1024, 123456):
        mount.control(f"disk: 0 {sectors} zero")
        same("fstat", sectors * 512, os.fstat(fd).st_size)
        same("stat", sectors * 512, os.stat(mount.file("disk")).st_size)
        same("seek to the end", sectors * 512, os.lseek(fd, 0, os.SEEK_END))
    os.close(fd)
    mount.control("remove disk")


def events(mount):
    mount.control("disk: 0 2048 zero")
    fd = os.open(mount.file("sys", "disk", "event"), os.O_RDONLY)
    same("event number", b"0\n", os.pread(fd, 100, 0))
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    same("no event yet", [], poll.poll(50))
    thread = threading.Thread(target=lambda: mount.control("rename disk disc"))
    thread.start()
    same("event", [(fd, select.POLLIN)], poll.poll(10000))
    thread.join()
    same("event number", b"1\n", os.pread(fd, 100, 0))
    same("read: no event", [], poll.poll(0))
    thread = threading.Thread(target=lambda: mount.control("remove disc"))
    thread.start()
    same("gone", [(fd, select.POLLIN | select.POLLERR)], poll.poll(10000))
    thread.join()
    fails(errno.ENXIO, os.pread, fd, 100, 0)
    os.close(fd)


def interrupted(mount):
    """A suspend that waits for I/O in flight gives up when its caller is interrupted."""
    if "io_uring" in mount.read("sys", "version"):
        return  # libfuse 3.18 passes no interrupts on rings
    mount.control("low: 0 2048 ram\nupper: 0 2048 linear low 0\nsuspend low")
    reader = threading.Thread(target=lambda: open(mount.file("upper"), "rb", buffering=0).read(512))
    reader.start()
    while int(mount.read("sys", "upper", "stats").split()[8]) == 0:
        pass
    child = os.fork()
    if child == 0:
        def stop(*_):
            raise InterruptedError

        signal.signal(signal.SIGALRM, stop)
        fd = os.open(mount.file("control"), os.O_WRONLY)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        try:
            os.write(fd, b"suspend upper\n")
            os._exit(1)
        except InterruptedError:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    same("interrupted suspend", 0, os.waitstatus_to_exitcode(status))
    same("runs on", "L--w", mount.control("list upper").split("\t")[4])
    mount.control("resume low")
    reader.join()
    mount.control("remove upper\nremove low")


def main():
    with Mount() as mount:
        replies(mount)
        transactions(mount)
        backup(mount)
        per_device_files(mount)
        sizes_follow_the_table(mount)
        events(mount)
        interrupted(mount)


if __name__ == "__main__":
    main()
