#!/usr/bin/env bash
# SIGTERM ends the daemon in a bounded time, whatever I/O is out: held by a target, for a suspended
# device, for this very mount in a way that no table shows, for somebody who never answers.
. "$(dirname "$0")/lib.sh"
need_fuse
need fusermount3 python3

OTHER=$WORK/other
OTHER_PID=
mkdir "$OTHER"

# The other daemon goes first: what is left of ours may wait for it.
cleanup_both() {
  local code=$? i
  set +e
  if [ -n "$OTHER_PID" ]; then
    kill -CONT "$OTHER_PID" 2>/dev/null
    kill "$OTHER_PID" 2>/dev/null
    timeout 30 tail --pid="$OTHER_PID" -f /dev/null || kill -9 "$OTHER_PID"
    timeout 10 fusermount3 -uzq "$OTHER" 2>/dev/null
  fi
  cleanup "$code"
}
trap cleanup_both EXIT

# As `control`, on the other mount.
control_other() { MNT=$OTHER control "$@"; }

start_other() {
  local ours=$DAEMON_PID mount=$MNT
  MNT=$OTHER
  start
  OTHER_PID=$DAEMON_PID
  MNT=$mount
  DAEMON_PID=$ours
}

# read_through NAME: readers of a block each of the device in the background, in $READERS; returns
# when their requests are with the daemon. A loop device does one after the other: when the first
# has failed, the next one still needs somebody who serves.
read_through() {
  local i
  READERS=()
  for ((i = 0; i < 3; ++i)); do
    timeout 120 dd if="$MNT/$1" of=/dev/null bs=4k skip=$((20 * i)) count=1 iflag=direct \
      status=none 2>/dev/null &
    READERS+=($!)
  done
  for ((i = 0; i < 500; ++i)); do
    # The 9th field: I/O under way. That file is answered without the device.
    [ "$(timeout 5 awk '{ print $9 }' "$MNT/sys/$1/stats")" != 3 ] || return 0
    read -r -t 0.02 <> <(:) || true
  done
  fail "no reads under way on $1"
}

# freeze PID: stops the process. The signal does that only when one of its threads gets to it, and
# until then the others still answer.
freeze() {
  local i
  kill -STOP "$1"
  for ((i = 0; i < 500; ++i)); do
    awk '/^State:/ && $2 != "T" { exit 1 }' /proc/"$1"/task/*/status && return 0
    read -r -t 0.02 <> <(:) || true
  done
  fail "process $1 does not stop"
}

mounted() { grep -q " $1 fuse.mapperfs " /proc/mounts; }

# The readers' end is an error, and comes.
readers_failed() {
  local code reader
  for reader in "${READERS[@]}"; do
    code=0
    timeout 30 tail --pid="$reader" -f /dev/null || fail "$1: a reader waits on"
    wait "$reader" || code=$?
    [ "$code" = 1 ] || fail "$1: a reader ended with $code"
  done
}

# --- held by a target, for an hour; and by a suspended device ---
start
control "disk: 0 2048 ram" "slow: 0 2048 delay disk 0 3600000" "held: 0 2048 linear disk 0"
read_through slow
control "suspend held"
(timeout 60 dd if="$MNT/held" of=/dev/null bs=4k count=1 iflag=direct status=none 2>/dev/null || :) &
kill -TERM "$DAEMON_PID"
wait_daemon 0
mounted "$MNT" && fail "still mounted"
wait "${READERS[@]}" || true

need_loop

# --- two mounts that stand on each other: the read waits for a device of the mount that ends, and
# no table of it says so. Another device keeps what was written to it. ---
truncate -s 1M "$WORK/file"
start_other
start
control "disk: 0 2048 ram" "keep: 0 2048 loop $WORK/file"
attach disk
below=$LOOP
control_other "mid: 0 2048 linear $below 0"
attach_file "$OTHER/mid"
transport=$(timeout 5 awk '/^transport: / { print $2 }' "$MNT/sys/version")
control "over: 0 2048 linear $LOOP 0" "suspend disk"
read_through over
printf kept | timeout 5 dd of="$MNT/keep" conv=notrunc status=none
kill -TERM "$DAEMON_PID"
timeout 40 tail --pid="$DAEMON_PID" -f /dev/null || fail "SIGTERM does not end a mount that stands on itself"
wait_daemon 0
readers_failed over
mounted "$MNT" && fail "still mounted"
# Rings refuse what still comes; for /dev/fuse the connection has to be cut.
[ "$transport" = io_uring ] || grep -q "I/O of over does not end" "$WORK/daemon.log" ||
  fail "the log does not name the device"
same "data" kept "$(head -c 4 "$WORK/file")"
detach "$LOOP"
control_other "remove mid"
detach "$below"

# --- for a daemon that is stopped: nothing of ours can end that. The mount goes and its users hear
# of it; what is written is written; the process itself is free when the kernel is. ---
control_other "mid: 0 2048 ram"
attach_file "$OTHER/mid"
start
control "over: 0 2048 linear $LOOP 0" "keep: 0 2048 loop $WORK/file"
freeze "$OTHER_PID"
read_through over
printf more | timeout 5 dd of="$MNT/keep" conv=notrunc status=none
kill -TERM "$DAEMON_PID"
readers_failed over
for ((i = 0; i < 1500; ++i)); do
  ! grep -q "I/O of over does not end: ended without it" "$WORK/daemon.log" || break
  read -r -t 0.02 <> <(:) || true
done
[ "$i" -lt 1500 ] || fail "does not give up on I/O that never ends"
mounted "$MNT" && fail "mounted for as long as the other daemon is stopped"
same "data" more "$(head -c 4 "$WORK/file")"
kill -CONT "$OTHER_PID"
wait_daemon 1
detach "$LOOP"
