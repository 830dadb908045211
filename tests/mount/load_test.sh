#!/usr/bin/env bash
# fio with verify while the table is swapped, the device suspended and resumed, or grown: no error,
# no lost write, no hang. Each case takes 3 s, with MAPPERFS_LONG=1 a minute.
. "$(dirname "$0")/lib.sh"
need_fuse
need fio python3
SECONDS_EACH=${MAPPERFS_LONG:+60}
SECONDS_EACH=${SECONDS_EACH:-3}
start
truncate -s 65M "$WORK/a"

# fio_on DEVICE [OPTION...]: writes and verifies for SECONDS_EACH.
fio_on() {
  local device=$1
  shift
  timeout $((SECONDS_EACH + 60)) fio --name=load --filename="$MNT/$device" --rw=randrw --bs=4k --direct=1 \
    --ioengine=libaio --iodepth=16 --size=32M --time_based --runtime="$SECONDS_EACH" --verify=crc32c \
    --verify_backlog=1024 --verify_fatal=1 --verify_state_save=0 --output="$WORK/fio.txt" "$@" ||
    fail "fio on $device: $(tail -30 "$WORK/fio.txt")"
}

# while_running PID COMMAND...: runs it every 100 ms while the job lives; counts on in $rounds.
while_running() {
  local pid=$1
  shift
  while kill -0 "$pid" 2>/dev/null; do
    "$@" "$rounds" || fail "$* in round $rounds"
    rounds=$((rounds + 1))
    read -r -t 0.1 <> <(:) || true
  done
}

# under_load DEVICE COMMAND: again where a busy machine left time for a few rounds only.
under_load() {
  local device=$1 work=$2 rounds=0 pid
  until [ "$rounds" -ge 5 ]; do
    fio_on "$device" &
    pid=$!
    while_running "$pid" "$work"
    wait "$pid" || fail "fio during $work"
  done
}

# The same sectors in one segment or two.
swap() {
  if [ $(($1 % 2)) = 0 ]; then
    control "disk: 0 65536 loop $WORK/a 0" "disk: 65536 65536 loop $WORK/a 65536"
  else
    control "disk: 0 131072 loop $WORK/a"
  fi
}
swap_targets() {
  if [ $(($1 % 2)) = 0 ]; then
    control "disk: 0 131072 linear base 0"
  else
    control "disk: 0 65536 linear base 0" "disk: 65536 65536 linear base 65536"
  fi
}
suspend_resume() { control "suspend disk" && control "resume disk"; }
suspend_below() { control "suspend --noflush base" "resume base"; }
grow() { control "disk: 0 $((131072 - 8 * (($1 + 1) % 2))) linear base 0"; }

control "disk: 0 131072 loop $WORK/a"
under_load disk swap
under_load disk suspend_resume
control "remove disk" "base: 0 131072 ram" "disk: 0 131072 linear base 0"
under_load disk swap_targets
under_load disk suspend_resume
under_load disk suspend_below
under_load disk grow
fio_on disk --rw=randwrite --bs=5000 --direct=0 --ioengine=psync --verify_backlog=64 --size=30000000
control "remove disk" "remove base"
stop
