#!/usr/bin/env bash
# Where FUSE over io_uring is not to be had, switched off or forbidden by a seccomp filter, /dev/fuse serves: without
# a word where nobody asked for rings, and with a sentence where they were asked for.
#
# In a mount namespace of its own, in which the kernel's switch says what the test wants; what the kernel itself would
# do is not asked, since nothing gets that far.
if [ "$(id -u)" = 0 ] && [ -z "${FALLBACK_TEST_INSIDE:-}" ] && unshare -m true 2>/dev/null; then
  FALLBACK_TEST_INSIDE=1 exec unshare -m --propagation private "$0"
fi
. "$(dirname "$0")/lib.sh"
need_root "the kernel's switch is played by a file"
[ -n "${FALLBACK_TEST_INSIDE:-}" ] || skip "no mount namespace is to be had"
need_fuse
need python3
SWITCH=/sys/module/fuse/parameters/enable_uring

# serve TRANSPORT [COMMAND...]: the daemon, run by the command, must serve through /dev/fuse; what it says about that is
# in $SAID. Its control works.
serve() {
  local transport=$1
  shift
  "$@" "$MAPPERFS" -f --transport "$transport" "$MNT" >"$WORK/daemon.log" 2>&1 &
  DAEMON_PID=$!
  wait_mounted || fail "the daemon did not mount"
  same "transport" "transport: /dev/fuse" "$(timeout 5 grep ^transport "$MNT/sys/version")"
  control "disk: 0 2048 ram"
  printf 'hello' | timeout 10 dd of="$MNT/disk" conv=notrunc,fsync status=none
  same "data" "hello" "$(timeout 10 head -c 5 "$MNT/disk")"
  SAID=$(timeout 5 grep "transport: " "$MNT/sys/log" || :)
  stop
}

# falls_back WORDS [COMMAND...]
falls_back() {
  local words=$1
  shift
  serve auto "$@"
  same "said, though nobody asked" "" "$SAID"
  serve uring "$@"
  [[ $SAID == *"$words"* && $SAID == *"/dev/fuse instead"* ]] || fail "'$SAID' does not say '$words'"
}

# Runs a command where io_uring_setup() is EPERM: so do container runtimes.
no_uring() {
  exec python3 - "$@" <<'END'
import ctypes
import os
import struct
import sys

IO_URING_SETUP = 425  # on every architecture
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
ALLOW, ERRNO_EPERM = 0x7FFF0000, 0x00050001
program = b"".join(struct.pack("HBBI", *step) for step in (
    (0x20, 0, 0, 0),                # load the number of the system call
    (0x15, 0, 1, IO_URING_SETUP),   # this one?
    (0x06, 0, 0, ERRNO_EPERM),
    (0x06, 0, 0, ALLOW)))
steps = ctypes.create_string_buffer(program, len(program))
filter_program = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(steps))
libc = ctypes.CDLL(None, use_errno=True)
for call in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filter_program, 0, 0)):
    if libc.prctl(*call) != 0:
        sys.exit(f"prctl{call[:2]}: {os.strerror(ctypes.get_errno())}")
os.execvp(sys.argv[1], sys.argv[1:])
END
}

if [ ! -e "$SWITCH" ]; then
  falls_back "has no FUSE over io_uring"
  part_skipped "the kernel has no switch that could be off or forbidden: $SWITCH"
  exit 0
fi
echo N >"$WORK/switch"
mount --bind "$WORK/switch" "$SWITCH"
falls_back "switched off; as root: echo 1 > $SWITCH"
echo Y >"$WORK/switch"
falls_back "io_uring is not allowed here: Operation not permitted" no_uring
umount "$SWITCH"
