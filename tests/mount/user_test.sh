#!/usr/bin/env bash
# As an unprivileged user through fusermount3; what others may and may not do.
. "$(dirname "$0")/lib.sh"
need_fuse
need setpriv python3
need_root "becoming another user"
[ -u "$(command -v fusermount3)" ] || skip "fusermount3 is not setuid root"

USER_ID=65534
# Programs of the system: what root has in its own folder is root's.
as_user() {
  PATH=/usr/sbin:/usr/bin:/sbin:/bin timeout 60 setpriv --reuid "$1" --regid "$1" --clear-groups \
    "${@:2}"
}

let_users_mount

chmod 755 "$WORK"
chown -R $USER_ID:$USER_ID "$WORK"
cp "$MAPPERFS" "$(dirname "$0")/ctl.py" "$WORK/"
chmod 755 "$WORK"/{ctl.py,mapperfs}
as_user $USER_ID "$WORK/mapperfs" --transport "$MAPPERFS_TRANSPORT" "$MNT" || fail "mount as a user"
printf 'disk: 0 20480 ram\n' | as_user $USER_ID python3 "$WORK/ctl.py" "$MNT" || fail "control as a user"
printf 'hello' | as_user $USER_ID dd of="$MNT/disk" conv=notrunc,fsync status=none
same "data" "hello" "$(as_user $USER_ID head -c 5 "$MNT/disk")"
as_user $USER_ID mkdir "$MNT/sys/more"
as_user $USER_ID rmdir "$MNT/sys/more"
as_user $USER_ID chmod 640 "$MNT/disk"
timeout 5 ls "$MNT" >/dev/null 2>&1 && fail "others see a mount without allow_other"
if as_user $USER_ID mkfs.ext4 -q -F "$MNT/disk" >/dev/null 2>&1; then
  as_user $USER_ID fsck.ext4 -fn "$MNT/disk" >/dev/null 2>&1 || fail "fsck without a loop device"
fi
as_user $USER_ID fusermount3 -u "$MNT" || fail "unmount as a user"

# allow_other: others may look and, where the mode lets them, use a device; never command.
start -o allow_other
control "disk: 0 2048 ram"
chmod 666 "$MNT/disk"
chown root:root "$WORK"
printf 'other' | as_user 1 dd of="$MNT/disk" conv=notrunc status=none || fail "another user, mode 666"
same "written by another" "other" "$(timeout 5 head -c 5 "$MNT/disk")"
for refusal in "cat $MNT/control" "ls $MNT/sys" "rm -f $MNT/disk" "mv $MNT/disk $MNT/disc"; do
  # shellcheck disable=SC2086
  as_user 1 $refusal >/dev/null 2>&1 && fail "another user: $refusal"
done
printf 'remove disk\n' | as_user 1 tee "$MNT/control" >/dev/null 2>&1 && fail "another user commands"
chmod 600 "$MNT/disk"
as_user 1 head -c 1 "$MNT/disk" >/dev/null 2>&1 && fail "another user, mode 600"
control "remove disk"
stop
