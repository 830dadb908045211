# Common ground of the mount tests in shell. Sourced first; starts nothing by itself.
#
#   $WORK  a folder of the test's own      $MNT  the mount point in it      $DAEMON_PID
set -euo pipefail

MAPPERFS=${MAPPERFS:?set it to the daemon under test}
MAPPERFS_TRANSPORT=${MAPPERFS_TRANSPORT:-auto}
TEST_NAME=$(basename "$0")
WORK=$(mktemp -d "${TMPDIR:-/tmp}/mapperfs-test.XXXXXX")
MNT=$WORK/mnt
DAEMON_PID=
mkdir "$MNT"

skip() {
  echo "SKIPPED: $TEST_NAME: $*" >&2
  exit 77
}

# part_skipped WHY: the test goes on without a part of it. tools/check shows these lines.
part_skipped() { echo "skipped: $TEST_NAME: $*"; }

fail() {
  echo "FAILED: $TEST_NAME: $*" >&2
  [ ! -s "$WORK/daemon.log" ] || { echo "-- the daemon said:" && tail -20 "$WORK/daemon.log"; } >&2
  exit 1
}

# The loop devices on files of this test. Asked anew each time: the number of one that the test has
# detached may be another test's by now.
own_loops() {
  grep -lF "$WORK/" /sys/block/loop*/loop/backing_file 2>/dev/null | awk -F / '{ print "/dev/" $4 }'
}

# Undoes whatever the test left, in the order in which it was built up, from the top. Ends with the
# code that the test ended with.
cleanup() {
  local code=${1:-$?} loop
  set +e
  cd /
  while read -r _ at _; do
    [[ $at == "$WORK"/* && $at != "$MNT" ]] && timeout 20 umount "$at"
  done < <(tac /proc/mounts)
  for loop in $(own_loops); do timeout 10 losetup -d "$loop" 2>/dev/null; done
  timeout 10 fusermount3 -uzq "$MNT" 2>/dev/null
  if [ -n "$DAEMON_PID" ] && kill -0 "$DAEMON_PID" 2>/dev/null; then
    kill "$DAEMON_PID"
    timeout 10 tail --pid="$DAEMON_PID" -f /dev/null || kill -9 "$DAEMON_PID"
  fi
  rm -rf --one-file-system "$WORK"
  exit "$code"
}
trap cleanup EXIT
trap 'exit 1' TERM INT

need() {
  local tool
  for tool in "$@"; do
    command -v "$tool" >/dev/null || skip "'$tool' is missing: tools/install-deps --test brings it"
  done
}

need_fuse() {
  [ -r /dev/fuse ] && [ -w /dev/fuse ] || skip "/dev/fuse is missing or not ours to open"
  [ "$MAPPERFS_TRANSPORT" != uring ] ||
    grep -q '[Y1]' /sys/module/fuse/parameters/enable_uring 2>/dev/null ||
    skip "FUSE over io_uring is not there or off: /sys/module/fuse/parameters/enable_uring"
}

need_root() { [ "$(id -u)" = 0 ] || skip "needs root: $*"; }

# Opens /dev/fuse for everybody. The device node's mode is the machine's: it is put back at the end,
# and tests that do this never run at the same time (CMakeLists.txt looks for the word).
let_users_mount() {
  local mode
  mode=$(stat -c %a /dev/fuse)
  # shellcheck disable=SC2064  # the mode as it is now
  trap "code=\$?; chmod $mode /dev/fuse; cleanup \$code" EXIT
  chmod 666 /dev/fuse
}

need_loop() {
  need_root "loop devices"
  need losetup
  losetup -f >/dev/null 2>&1 || skip "no loop device can be had"
}

need_fs() {
  grep -qw "$1" /proc/filesystems || modprobe "$1" 2>/dev/null || return 1
  command -v "mkfs.$1" >/dev/null
}

# start [OPTION...]: the daemon in the foreground as a job of the test; returns when it serves, by the transport that
# the test is for.
start() {
  "$MAPPERFS" -f --transport "$MAPPERFS_TRANSPORT" "$@" "$MNT" >>"$WORK/daemon.log" 2>&1 &
  DAEMON_PID=$!
  wait_mounted || fail "the daemon did not mount"
  check_transport
}

# What could not be had is served through /dev/fuse: the test would prove that twice.
check_transport() {
  local serves
  serves=$(timeout 5 sed -n 's/^transport: //p' "$MNT/sys/version")
  case $MAPPERFS_TRANSPORT:$serves in
    dev:/dev/fuse | uring:io_uring | auto:/dev/fuse | auto:io_uring) ;;
    *) fail "asked for $MAPPERFS_TRANSPORT, served by '$serves'" ;;
  esac
}

wait_mounted() {
  local i
  for ((i = 0; i < 500; ++i)); do
    if grep -q " $MNT fuse.mapperfs " /proc/mounts && timeout 5 test -e "$MNT/control"; then
      return 0
    fi
    [ -z "$DAEMON_PID" ] || kill -0 "$DAEMON_PID" 2>/dev/null || return 1
    read -r -t 0.02 <> <(:) || true
  done
  return 1
}

# stop: a clean end by unmounting; the daemon must exit with 0.
stop() {
  timeout 20 fusermount3 -u "$MNT" || fail "fusermount3 -u"
  wait_daemon 0
}

# What is needed to see why a daemon sits there after its mount is gone: a connection that is not
# aborted has a superblock that somebody keeps, in another mount namespace or by an open file.
who_holds_on() {
  local task connection process
  (
    set +e +o pipefail
    echo "-- the daemon $DAEMON_PID is in state $(awk '/^State:/ { print $2 }' "/proc/$DAEMON_PID/status"); its threads:"
    for task in /proc/"$DAEMON_PID"/task/*; do
      echo "${task##*/} $(cat "$task/comm") $(cat "$task/wchan") syscall $(cut -d ' ' -f 1-3 "$task/syscall" 2>/dev/null)"
    done
    echo "-- its descriptors of FUSE:"
    find "/proc/$DAEMON_PID/fd" -lname '/dev/fuse' -printf '%f -> %l\n' 2>/dev/null
    echo "-- FUSE connections (fusectl, where it is mounted):"
    for connection in /sys/fs/fuse/connections/*/; do
      [ -e "$connection/waiting" ] && echo "$connection waiting $(cat "$connection/waiting")"
    done
    echo "-- who has $WORK mounted:"
    for process in /proc/[0-9]*; do
      grep -H " $WORK" "$process/mountinfo" 2>/dev/null | head -3 |
        sed "s#^#$(cat "$process/comm" 2>/dev/null) $(readlink "$process/ns/mnt" 2>/dev/null) #"
    done | sort -u -k 2,2
    echo "-- who has files in it:"
    find /proc/[0-9]*/fd /proc/[0-9]*/cwd -lname "$MNT*" -printf '%p -> %l\n' 2>/dev/null
    echo "-- loop devices on it:"
    timeout 10 losetup -l -n -O NAME,BACK-FILE 2>/dev/null | grep -F "$WORK"
    true
  ) >&2
}

# wait_daemon CODE: the daemon ends by itself with that exit code.
wait_daemon() {
  local code=0
  timeout 20 tail --pid="$DAEMON_PID" -f /dev/null || { who_holds_on && fail "the daemon does not end"; }
  wait "$DAEMON_PID" || code=$?
  DAEMON_PID=
  [ "$code" = "$1" ] || fail "the daemon ended with $code, not $1"
}

# control LINE...: one transaction, from standard input where there are no lines.
control() {
  if [ $# -gt 0 ]; then
    printf '%s\n' "$@" | timeout 30 python3 "$(dirname "$0")/ctl.py" "$MNT"
  else
    timeout 30 python3 "$(dirname "$0")/ctl.py" "$MNT"
  fi
}

# refused ERRNO WORDS LINE...: the transaction fails with that errno (or one of ERRNO|ERRNO) and a
# sentence with WORDS in it.
refused() {
  local errno=$1 words=$2 said
  shift 2
  if said=$(control "$@" 2>&1); then fail "'$*' was taken"; fi
  [[ $said =~ ^($errno):\  ]] || fail "'$*' gave '$said', not $errno"
  [[ $said == *"$words"* ]] || fail "'$*' gave '$said', which does not say '$words'"
}

# attach_file FILE [OPTION...]: a loop device on it; its path in $LOOP.
attach_file() {
  local file=$1
  shift
  LOOP=$(timeout 20 losetup -f --show "$@" "$file") || fail "losetup $* $file"
}

# attach NAME [OPTION...]: a loop device on a device; its path in $LOOP.
attach() {
  local name=$1
  shift
  attach_file "$MNT/$name" "$@"
}

detach() {
  timeout 20 losetup -d "$1" || fail "losetup -d $1"
}

# no_daemons WHAT: those that WHAT started below $WORK/tmp end soon after their mounts.
no_daemons() {
  local i
  for ((i = 0; i < 1000; ++i)); do
    pgrep -f "$WORK/tmp/" >/dev/null || return 0
    read -r -t 0.02 <> <(:) || true
  done
  fail "what $1 left running: $(pgrep -af "$WORK/tmp/")"
}

# same WHAT EXPECTED GOT
same() {
  [ "$2" = "$3" ] || fail "$1: expected '$2', got '$3'"
}
