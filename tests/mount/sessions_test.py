#!/usr/bin/env python3
"""Control sessions go on independently: a command that waits keeps nobody else's out, least of all
the one that ends the wait. Everybody here is a process of their own, as people and scripts are."""
import errno
import os
import subprocess
import sys
import threading
import time

from lib import Mount, same

# More than any pool of threads used to have, and than the verbs that a run of a monitor leaves waiting.
MANY = 60
TOO_MANY = 700
PATIENCE_S = 20
BLOCK = 128 * 512  # a block of the pools here, bytes
started = []


def run(*words, **more):
    """A process; its output is kept for the failure that it may be part of."""
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, **more)
    started.append(process)
    return process


def ctl(*words):
    return run(os.environ["MAPPERCTL"], *words)


def shell(text):
    return run("sh", "-c", text)


def ends(what, process, code=0):
    """The process ends by itself, with that exit code; what it said."""
    try:
        said, _ = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"{what}: does not end") from None
    assert process.returncode == code, f"{what}: ended with {process.returncode}: {said}"
    return said


def wait_until(what, condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what}" + "".join(f"\n{p.args} {where(p)}" for p in started if p.poll() is None)
        os.sched_yield()


def where(task):
    """Where in the kernel a process or one of our threads is."""
    number = task.pid if isinstance(task, subprocess.Popen) else task.native_id
    try:
        with open(f"/proc/{number}/wchan") as file:
            return file.read()
    except OSError:
        return ""


def is_wait(place):
    """In FUSE, or for a lock of the file's or the folder's that somebody in FUSE has."""
    return "fuse" in place or place in ("request_wait_answer", "do_truncate", "open_last_lookups")


def waiting(what, processes):
    """Each of them waits in the kernel for the mount: what it asks for is under way."""
    for process in processes:
        wait_until(f"{what}: {process.args} waits for the mount",
                   lambda p=process: p.poll() is not None or is_wait(where(p)))
        assert process.poll() is None, f"{what}: {process.args} ended at once: {process.communicate()[0]}"


def write_block(m, name, block, byte=b"w"):
    """A write of one block of a device, by a process, since it may wait."""
    return run(sys.executable, "-c",
               "import os, sys\n"
               "f = os.open(sys.argv[1], os.O_WRONLY)\n"
               "n = int(sys.argv[3])\n"
               "assert os.pwrite(f, sys.argv[2].encode() * n, n * int(sys.argv[4])) == n\n",
               m.file(name), byte.decode(), str(BLOCK), str(block))


def make_pool(m, data_blocks=64):
    m.control(f"base: 0 {data_blocks * 128} ram\n"
              f"lower: 0 {data_blocks * 128} linear base 0\n"
              f"pool: 0 {data_blocks * 128} thin-pool {m.work}/meta lower 128 0\n"
              "message pool 0 create_thin 0\n"
              "thin: 0 65536 thin pool 0\n"
              "other: 0 2048 ram\n")
    ends("the first write", write_block(m, "thin", 0))


def hold_lower(m):
    """The pool's lower device is suspended, with a write of the pool's on its way; the write."""
    ends("suspend lower", ctl("suspend", "lower"))
    write = write_block(m, "thin", 1)
    waiting("a write over a suspended device", [write])
    return write


def others_go_on(m):
    """What has nothing to do with who waits is answered."""
    ends("ls", ctl("ls"))
    ends("create", ctl("create", "third", "--table", "0 16 zero"))
    ends("load", ctl("load", "third", "--table", "0 32 zero"))
    ends("suspend", ctl("suspend", "third"))
    ends("resume", ctl("resume", "third"))
    ends("status", ctl("status", "third"))
    ends("rename", ctl("rename", "third", "fourth"))
    ends("remove", ctl("remove", "fourth"))
    ends("mkdir", run("mkdir", m.file("sys", "fifth")))
    ends("a table by echo", shell(f"echo 0 16 zero > {m.file('sys', 'fifth', 'table')}"))
    ends("rm", run("rm", m.file("fifth")))
    ends("cat control", shell(f"cat {m.file('control')} > {m.work}/saved"))
    ends("ls -l", run("ls", "-l", m.path, m.file("sys")))


def resume_of_what_is_below(m):
    """Messages and a status commit, and so wait for the pool's I/O; the resume of the device below it
    is what they wait for."""
    make_pool(m)
    write = hold_lower(m)
    verbs = [ctl("message", "pool", "0", "create_thin 1"), ctl("status", "pool"),
             shell(f"echo message pool 0 create_thin 2 > {m.file('control')}"),
             shell(f"printf %s 'create_thin 3' > {m.file('sys', 'pool', 'message')}"),
             run("cat", m.file("sys", "pool", "status"))]
    waiting("commits", verbs)
    others_go_on(m)
    ends("info of the same device", ctl("info", "pool"))
    ends("table of the same device", ctl("table", "pool"))
    ends("uuid of the same device", run("cat", m.file("sys", "pool", "uuid")))
    ends("resume lower", ctl("resume", "lower"))
    for verb in verbs + [write]:
        ends("what waited", verb)
    m.control("remove thin\nremove pool\nremove lower\nremove base\nremove other\n")


def many_and_then_the_resume(m, how):
    """However many wait, by mapperctl or by shells."""
    make_pool(m)
    write = hold_lower(m)
    verbs = []
    for i in range(MANY):
        if how == "mapperctl":
            verbs.append(ctl("status", "pool") if i % 2 else ctl("message", "pool", "0", f"create_thin {i + 1}"))
        else:
            verbs.append(shell(f"echo message pool 0 create_thin {i + 1} > {m.file('control')}"))
    waiting(f"{MANY} commands", verbs)
    others_go_on(m)
    if how == "mapperctl":
        ends("resume lower", ctl("resume", "lower"))
    else:
        ends("resume lower", shell(f"echo resume lower > {m.file('control')}"))
    for verb in verbs + [write]:
        ends("what waited", verb)
    m.control("remove thin\nremove pool\nremove lower\nremove base\nremove other\n")


def more_than_there_is_room_for(m, room):
    """One more is told so at once, and what ends the waits still gets in."""
    make_pool(m)
    write = hold_lower(m)
    refused, ended = [], []

    def status():
        control = os.open(m.file("control"), os.O_RDWR)
        try:
            os.write(control, b"status pool\n")
            ended.append(True)
        except OSError as error:
            refused.append((error.errno, os.pread(control, 4096, 0).decode()))
        finally:
            os.close(control)

    threads = []
    while not refused:
        assert len(threads) < TOO_MANY, f"{TOO_MANY} commands wait, and there is no end"
        assert not ended, "a status that should wait ended"
        threads.append(threading.Thread(target=status))
        threads[-1].start()
        wait_until("a status under way", lambda t=threads[-1]: not t.is_alive() or is_wait(where(t)))
    same("the errno of one too many", errno.EAGAIN, refused[0][0])
    assert "too many commands" in refused[0][1], refused
    assert len(threads) > room, f"only {len(threads)} commands may wait"
    ends("ls", ctl("ls"))
    ends("a table by echo", shell(f"echo third: 0 16 zero > {m.file('control')}"))
    ends("load", ctl("load", "third", "--table", "0 32 zero"))
    ends("resume", ctl("resume", "third"))
    ends("resume lower", ctl("resume", "lower"))
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "a status does not end"
    ends("the write", write)
    ends("a status when there is room again", ctl("status", "pool"))


def a_full_pool_grows(m):
    """A write waits for space, a suspend waits for the write; the pool grows in time."""
    m.control(f"base: 0 1024 ram\n"
              f"lower: 0 256 linear base 0\n"
              f"pool: 0 256 thin-pool {m.work}/meta lower 128 0\n"
              "message pool 0 create_thin 0\n"
              "thin: 0 65536 thin pool 0\n"
              "other: 0 2048 ram\n")
    ends("block 0", write_block(m, "thin", 0))
    ends("block 1", write_block(m, "thin", 1))
    write = write_block(m, "thin", 2)
    wait_until("out_of_data_space", lambda: "out_of_data_space" in m.control("status pool"))
    suspend = ctl("suspend", "thin")
    waiting("a suspend", [write, suspend])
    others_go_on(m)
    ends("status of the device", ctl("status", "thin"))
    ends("a message that commits", ctl("message", "pool", "0", "create_thin 1"))
    ends("status that commits", ctl("status", "pool"))
    ends("load lower", ctl("load", "lower", "--table", "0 1024 linear base 0"))
    ends("resume lower", ctl("resume", "lower"))
    ends("load pool", ctl("load", "pool", "--table", f"0 1024 thin-pool {m.work}/meta lower 128 0"))
    ends("resume pool", ctl("resume", "pool"))
    ends("the write that waited", write)
    ends("the suspend that waited", suspend)
    ends("resume thin", ctl("resume", "thin"))
    with open(m.file("thin"), "rb", buffering=0) as thin:
        same("the block written", b"w" * 16, os.pread(thin.fileno(), 16, 2 * BLOCK))


def removed_by_rm(m):
    """The kernel keeps a folder to itself while `rm` waits: names in it cannot be looked up."""
    make_pool(m)
    m.control("remove thin\nsuspend lower\n")
    remove = run("rm", m.file("pool"))
    waiting("rm", [remove])
    others_go_on(m)
    ends("resume lower", shell(f"echo resume lower > {m.file('control')}"))
    ends("rm", remove)


def one_file_all_the_same(m):
    """Each open has a node of its own; whoever looks sees one file with one number."""
    for names in [("control",), ("sys", "disk", "table")]:
        m.control("disk: 0 16 zero\n")
        path = m.file(*names)
        first = os.open(path, os.O_RDWR)
        second = os.open(path, os.O_RDWR)
        numbers = {os.fstat(first).st_ino, os.fstat(second).st_ino, os.stat(path).st_ino}
        with os.scandir(os.path.dirname(path)) as entries:
            numbers |= {e.inode() for e in entries if e.name == names[-1]}
            same(f"numbers of {path}", 1, len(numbers))
        os.close(first)
        os.close(second)
    m.control("remove disk\n")


FEW_PLACES = "io_uring_q_depth=8"  # on each core; nothing to /dev/fuse
CASES = [
    ("", one_file_all_the_same),
    ("", resume_of_what_is_below),
    ("", lambda m: many_and_then_the_resume(m, "mapperctl")),
    ("", lambda m: many_and_then_the_resume(m, "echo")),
    ("", removed_by_rm),
    ("", a_full_pool_grows),
    ("", lambda m: more_than_there_is_room_for(m, MANY)),
    (FEW_PLACES, lambda m: more_than_there_is_room_for(m, 1)),
]


def main():
    # All of them, or those of the numbers given.
    for number in [int(word) for word in sys.argv[1:]] or range(len(CASES)):
        options, case = CASES[number]
        with Mount("-o", ",".join(filter(None, ["thin_no_space_timeout=100", options]))) as m:
            os.environ["MAPPERFS_MOUNT"] = m.path
            try:
                case(m)
            finally:
                for process in started:
                    process.poll() is None and process.kill()
                started.clear()


main()
