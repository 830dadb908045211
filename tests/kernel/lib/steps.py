"""Runs the steps of one script in one shell and records what each printed.

The same code runs inside the kernel's machine and beside mapperfs, so that a difference between
two transcripts is never a difference between two runners. One shell serves a whole part: variables
and open descriptors live on from step to step (`exec 9<$mnt/x` keeps a device open).

The shell knows words that are no programs. `pat` and `sha` (see pat.py) are answered by this
process, in a thread, because starting an interpreter for each would cost more than the step.
`brief COMMAND` keeps only the first line of its stderr, where a usage text would follow.
"""

import fcntl
import os
import pathlib
import select
import signal
import subprocess
import threading
import time

import pat

# Descriptors of the shell: 7 carries its reports up, 8 the answers to `pat` down.
_PRELUDE = """
pat() { printf 'pat %s\\n' "$*" >&7; read -r __rc <&8; cat "$W/pat.out"; cat "$W/pat.err" >&2; return "$__rc"; }
sha() { pat sha "$@"; }
brief() { "$@" 2>"$W/brief"; __rc=$?; head -1 "$W/brief" >&2; return $__rc; }
"""


class Shell:
    """A shell that runs one step after another. Not shared between threads."""

    def __init__(self, work, env, shell="/bin/sh"):
        self.work = pathlib.Path(work)
        self.work.mkdir(parents=True, exist_ok=True)
        report_read, report_write = os.pipe()
        answer_read, answer_write = os.pipe()

        def place_descriptors():
            os.setsid()
            high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (report_write, answer_read)]
            os.dup2(high[0], 7)
            os.dup2(high[1], 8)
            os.close(high[0])
            os.close(high[1])

        self.process = subprocess.Popen(
            [shell], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**env, "W": str(self.work)}, cwd=self.work, preexec_fn=place_descriptors,
            close_fds=False)
        os.close(report_write)
        os.close(answer_read)
        self.report, self.answer = report_read, answer_write
        self.steps = 0
        self.pending = b""
        self._send(_PRELUDE)

    def _send(self, text):
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def _line(self, deadline):
        """The next report line, or None when the time is up or the shell is gone."""
        while b"\n" not in self.pending:
            ready, _, _ = select.select([self.report], [], [], max(0.0, deadline - time.monotonic()))
            got = os.read(self.report, 4096) if ready else b""
            if not got:
                return None
            self.pending += got
        line, self.pending = self.pending.split(b"\n", 1)
        return line.decode()

    def _pat(self, words, deadline):
        """Answers one `pat` call; False when the time is up, as it is on a device that hangs."""
        answer = {}

        def work():
            with open(self.work / "pat.out", "w", encoding="utf-8") as out, \
                 open(self.work / "pat.err", "w", encoding="utf-8") as err:
                answer["rc"] = pat.main(words, out, err)

        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        worker.join(max(0.0, deadline - time.monotonic()))
        if worker.is_alive():
            return False
        os.write(self.answer, f"{answer.get('rc', 3)}\n".encode())
        return True

    def run(self, step):
        """Runs `step`; returns {out, err, rc}. rc is `timeout` or `gone` where the shell is lost."""
        self.steps += 1
        base = self.work / f"step{self.steps}"
        base.with_suffix(".sh").write_text(step.text + "\n", encoding="utf-8")
        deadline = time.monotonic() + step.timeout_s
        rc = "gone"
        try:
            self._send(f". {base}.sh >{base}.out 2>{base}.err </dev/null; echo \"rc $?\" >&7\n")
            while True:
                line = self._line(deadline)
                if line is None:
                    rc = "timeout" if time.monotonic() >= deadline else "gone"
                    break
                verb, _, rest = line.partition(" ")
                if verb == "rc":
                    rc = rest
                    break
                if not self._pat(rest.split(), deadline):
                    rc = "timeout"
                    break
        except BrokenPipeError:
            pass
        if rc in ("timeout", "gone"):
            self.kill()
        return {"out": _read(base.with_suffix(".out")), "err": _read(base.with_suffix(".err")), "rc": rc}

    def kill(self):
        """Ends the shell and all it started."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def close(self):
        """Ends the shell; one that sleeps on a hung device is left behind, not waited for."""
        self.kill()
        for fd in (self.report, self.answer):
            os.close(fd)
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            pass


def _read(path):
    try:
        return path.read_bytes().decode("utf-8", "backslashreplace")
    except FileNotFoundError:
        return ""


def run_part(side, steps, work):
    """Runs `steps` on `side` and returns the list of records.

    side.env is the shell's environment; side.names() maps the minor number of every mapped device
    of the moment to its name; side.log() gives what the mapper logged since it was last asked.
    """
    shell = Shell(work, side.env)
    records = []
    try:
        names = side.names()
        for step in steps:
            result = shell.run(step)
            before, names = names, side.names()
            records.append({"line": step.line, "text": step.text, **result,
                            "names": {**before, **names}, "log": side.log()})
            if result["rc"] in ("timeout", "gone"):
                break
    finally:
        shell.close()
    return records
