#!/usr/bin/env python3
"""ctl.py MOUNT: standard input to MOUNT/control as one transaction, the reply to standard output.

A refusal prints "ERRNO: sentence" to standard error and ends with 1."""
import errno
import os
import sys

text = sys.stdin.buffer.read()
control = os.open(os.path.join(sys.argv[1], "control"), os.O_RDWR)
try:
    done = os.write(control, text)
    assert done == len(text), f"{done} of {len(text)} bytes taken"
except OSError as error:
    why = os.pread(control, 1 << 16, 0).decode().strip()
    print(f"{errno.errorcode[error.errno]}: {why}", file=sys.stderr)
    sys.exit(1)
at = 0
while reply := os.pread(control, 1 << 20, at):
    sys.stdout.buffer.write(reply)
    at += len(reply)
