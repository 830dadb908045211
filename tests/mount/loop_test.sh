#!/usr/bin/env bash
# Loop devices over mapped devices: with and without direct I/O, file systems, partitions, fstrim.
. "$(dirname "$0")/lib.sh"
need_fuse
need_loop
need mkfs.ext4 fsck.ext4 sfdisk partx fstrim lsblk python3
start
mkdir "$WORK/at"
truncate -s 600M "$WORK/file"
control "ram: 0 1048576 ram" "file: 0 1048576 loop $WORK/file"

# fill FOLDER: files whose content is known by their names.
fill() {
  local i
  for i in 1 2 3; do head -c $((i * 1000003)) /dev/zero | tr '\0' "$i" > "$1/$i"; done
  sync -f "$1/1"
}
check() {
  local i
  for i in 1 2 3; do
    same "$1/$i" "$(head -c $((i * 1000003)) /dev/zero | tr '\0' "$i" | sha256sum)" "$(sha256sum < "$1/$i")"
  done
}

fsck_of() {
  case $1 in
    ext4) timeout 60 fsck.ext4 -fn "$2" ;;
    xfs) timeout 60 xfs_repair -n "$2" ;;
    btrfs) timeout 60 btrfs check "$2" ;;
  esac >"$WORK/fsck" 2>&1 || fail "fsck of $1 on $2: $(cat "$WORK/fsck")"
}

done_any=no
for fs in ext4 xfs btrfs; do
  if ! need_fs "$fs"; then
    echo "$fs: not on this machine" >&2
    continue
  fi
  for direct in on off; do
    device=$([ "$direct" = on ] && echo file || echo ram)
    attach "$device" --direct-io="$direct"
    force=-f
    [ "$fs" != ext4 ] || force=-F
    timeout 60 "mkfs.$fs" -q "$force" "$LOOP" >/dev/null 2>&1 || fail "mkfs.$fs on $device"
    timeout 20 mount "$LOOP" "$WORK/at" || fail "mount $fs on $device"
    fill "$WORK/at"
    timeout 20 umount "$WORK/at"
    fsck_of "$fs" "$LOOP"
    timeout 20 mount "$LOOP" "$WORK/at"
    check "$WORK/at"
    rm "$WORK/at"/?
    timeout 30 fstrim "$WORK/at" || fail "fstrim of $fs on $device"
    timeout 20 umount "$WORK/at"
    detach "$LOOP"
    done_any=yes
  done
done
[ "$done_any" = yes ] || skip "no file system to make"

# fstrim gave the space back.
blocks=$(stat -c %b "$WORK/file")
[ "$blocks" -lt 700000 ] || fail "the file takes $blocks of 1228800 sectors after fstrim"

# --- partitions ---
printf 'label: gpt\nsize=32M\nsize=64M\n' | timeout 20 sfdisk -q "$MNT/ram" >/dev/null 2>&1 || fail "sfdisk"
attach ram
timeout 20 partx -a "$LOOP" || fail "partx -a"
for ((i = 0; i < 200; ++i)); do [ -b "${LOOP}p2" ] && break; done
same "partitions" "65536 131072" "$(cat "/sys/block/$(basename "$LOOP")/$(basename "$LOOP")p"{1,2}/size | xargs)"

# --- neither it nor a partition is taken into a table of the same mount, which would wait for itself ---
numbers=$(timeout 5 lsblk -dno MAJ:MIN "$LOOP" | xargs)
for device in "$LOOP" "$numbers" "${LOOP}p1"; do
  refused ELOOP "inside this mount" "over: 0 8 linear $device 0"
done
timeout 20 partx -d "$LOOP"
over_ram=$LOOP

# --- a block device below a mapped one is named by its path, in tables by its numbers ---
truncate -s 1M "$WORK/plain"
attach_file "$WORK/plain"
numbers=$(timeout 5 lsblk -dno MAJ:MIN "$LOOP" | xargs)
control "over: 0 8 linear $LOOP 0"
same "deps" "$numbers=$LOOP" "$(timeout 5 cat "$MNT/sys/over/deps")"
same "table" "0 8 linear $numbers 0" "$(timeout 5 cat "$MNT/sys/over/table")"
control "remove over"
detach "$LOOP"
detach "$over_ram"

# --- removed right after losetup -d, which closes the file some time later ---
control "remove ram" "remove file"
stop
