#!/usr/bin/env bash
# mapperctl against a real mount, where a scripted one cannot stand in: which folders it takes for a
# mount, in whose folder a table's paths are looked up, names that need every escape, and top.
. "$(dirname "$0")/lib.sh"
need_fuse
need python3
export MAPPERFS_MOUNT=$MNT
ctl() { timeout 20 "$MAPPERCTL" "$@"; }

# --- a plain folder with a file `control` is no mount ---
mkdir "$WORK/plain" && : >"$WORK/plain/control"
said=$(ctl --mount "$WORK/plain" create x --table '0 8 zero' 2>&1) && fail "took a plain folder"
[[ $said == *"$WORK/plain is no mapperfs mount: a plain file"* ]] || fail "a plain folder: '$said'"
same "the plain file after it" "" "$(cat "$WORK/plain/control")"

# --- what is refused is refused in one sentence, and no line is empty ---
refuses() {
  local words=$1 said
  shift
  said=$(ctl "$@" 2>&1) && fail "took: $*"
  [[ $said == *"$words"* ]] || fail "$*: '$said' does not say '$words'"
  ! grep -q '^$' <<<"$said" || fail "$*: an empty line in '$said'"
}
start
refuses 'there is no mapped device "nobody"' passthrough nobody on
refuses 'passthrough: on|off: maybe not in {on,off}; mapperctl passthrough --help' passthrough nobody maybe
refuses "attach: " attach
refuses "Device does not exist." served nobody
refuses "Device does not exist." attach nobody
stop

# --- relative paths are the caller's; the daemon's folder is another ---
start
mkdir -p "$WORK/here/f" "$WORK/elsewhere"
truncate -s 8M "$WORK/here/f/a.img" "$WORK/here/b.img" "$WORK/here/my disk.img"
cd "$WORK/here"
ctl create slash --table '0 8 linear f/a.img 0'
ctl create dot --table '0 8 linear ./b.img 0'
ctl create bare --table '0 8 linear b.img 0'
ctl create blank --table '0 8 linear my\ disk.img 0'
ctl create inside --table '0 8 linear ../mnt/slash 0'
ctl create pool --table '0 8192 thin-pool f/meta f/a.img 128 0'
same "slash" "0 8 linear $WORK/here/f/a.img 0" "$(ctl table slash)"
same "dot" "0 8 linear $WORK/here/b.img 0" "$(ctl table dot)"
same "bare" "0 8 linear $WORK/here/b.img 0" "$(ctl table bare)"
same "blank" "0 8 linear $WORK/here/my\\ disk.img 0" "$(ctl table blank)"
same "inside" "0 8 linear slash 0" "$(ctl table inside)"
[ -d f/meta ] || fail "the pool's metadata is not in the caller's folder"
cd "$WORK/elsewhere"
ctl create lost --table '0 8 linear b.img 0' 2>/dev/null && fail "found b.img from elsewhere"
cd /

# --- what cannot be read is no table, and no empty one ---
for verb in "create x $WORK/here" "load bare $WORK/here"; do
  # shellcheck disable=SC2086  # words
  said=$(ctl $verb 2>&1) && fail "$verb: took a folder"
  [[ $said == *"Couldn't read '$WORK/here': Is a directory"* ]] || fail "$verb: '$said'"
done
for verb in "create x" "create --concise" "load bare"; do
  # shellcheck disable=SC2086
  said=$(ctl $verb 2>&1 < "$WORK/here") && fail "$verb: took a folder on standard input"
  [[ $said == *"standard input: Is a directory"* ]] || fail "$verb: '$said'"
done
same "devices after what cannot be read" "" "$(ctl ls | grep -w x || true)"
ctl remove inside && ctl remove_all
same "devices" "No devices found" "$(ctl ls)"

# --- a loop device that somebody has open is only marked: detach says so ---
if [ "$(id -u)" = 0 ] && losetup -f >/dev/null 2>&1; then
  ctl create disk --table '0 2048 ram'
  LOOP=$(ctl attach disk)
  exec 7<"$LOOP"
  same "detach of a loop device in use" "$LOOP" "$(ctl detach disk 2>"$WORK/said")"
  [[ $(<"$WORK/said") == *"$LOOP is still in use"*"disk is busy"* ]] || fail "detach: '$(<"$WORK/said")'"
  exec 7<&-
  ctl remove --retry disk
else
  part_skipped "detach: no loop device can be had"
fi

# --- names ---
for name in $'t\tab' --odd 'colon:' '#hash' 'a b'; do
  python3 -c 'import os, sys; os.mkdir(os.path.join(sys.argv[1], "sys", sys.argv[2]))' "$MNT" "$name"
  listed=$(ctl info -c --noheadings --separator '|' -o name,open,segments,major -- 2>&1)
  [[ $listed == "$name|0|0|"[0-9]* ]] || fail "info -c shows '$name' as '$listed'"
  ctl info -c --json | python3 -c '
import json, sys
text = sys.stdin.read()
assert json.dumps(sys.argv[1])[1:-1] in text, text' "$name"
  ctl --manglename none load --table '0 8 zero' -- "$name" || fail "load '$name'"
  ctl --manglename none resume -- "$name"
  [ "$(stat -c %s "$MNT/$name")" = 4096 ] || fail "no device file of '$name'"
  ctl --manglename none remove -- "$name" || fail "remove '$name'"
done
ctl create --table '0 8 zero' -- --odd:
ctl rename -- --odd: '#:'
same "renamed" "#:: 0 8 zero " "$(ctl table)"
ctl remove '#:'

# --- top: one read is under way on `slow` all the time that it looks, none on `idle` ---
ctl create idle --table '0 8 ram'
ctl create slow --table '0 8 delay idle 0 6000'
timeout 20 dd if="$MNT/slow" of=/dev/null bs=4096 count=1 iflag=direct status=none &
reader=$!
for ((i = 0; i < 500; ++i)); do
  [ "$(timeout 5 awk '{ print $9 }' "$MNT/sys/slow/stats")" != 1 ] || break
  read -r -t 0.02 <> <(:) || true
done
top=$(ctl top --once --interval 0.5)
wait "$reader" || fail "the delayed read failed"
# Name r/s w/s rMiB/s wMiB/s r_ms w_ms InFl Busy%
read -r _ reads _ _ _ _ _ flying busy <<<"$(grep '^slow ' <<<"$top")"
same "reads that ended" "0" "$reads"
same "reads under way" "1" "$flying"
[ "${busy%.*}" -ge 90 ] || fail "busy: $busy % of the time; $top"
read -r _ _ _ _ _ _ _ flying busy <<<"$(grep '^idle ' <<<"$top")"
same "the idle device" "0 0.0" "$flying $busy"
stop
