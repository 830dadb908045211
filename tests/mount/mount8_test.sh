#!/usr/bin/env bash
# Installed, mapperfs is a file system like others: mount(8) finds it by its type, by hand and from
# fstab, and umount(8) ends it. Installs into a folder of the test's own, which then stands over
# /usr/local in a mount namespace of the test's own: mount(8) is not told where to look.
. "$(dirname "$0")/lib.sh"

# --- inside the namespace ---

# by_boot COMMAND...: with the little that whoever mounts at boot has round it.
by_boot() { env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin timeout 20 "$@"; }

mount_line() { awk -v at="$MNT" '$2 == at { print $1, $3 }' /proc/mounts; }

# ended: the mount is gone, and so is its daemon.
ended() {
  local i
  for ((i = 0; i < 500; ++i)); do
    if ! ps -eo args | grep -v grep | grep -qF " $MNT"; then break; fi
    read -r -t 0.02 <> <(:) || true
  done
  same "what $1 left mounted" "" "$(mount_line)"
  ((i < 500)) || fail "the daemon lives on after $1"
}

inside() {
  # The copies of others' mounts would keep their daemons alive beyond their own umount.
  umount --lazy --all --types fuse.mapperfs
  mount --bind "$MAPPERFS_INSTALLED/usr/local/bin" /usr/local/bin
  echo 'disk: 0 2048 ram' >"$WORK/tables"

  by_boot mount -t fuse.mapperfs lab "$MNT" \
    -o "tables=$WORK/tables,transport=$MAPPERFS_TRANSPORT,max_write=256K" || fail "mount -t"
  same "mount -t" "lab fuse.mapperfs" "$(mount_line)"
  same "its device" "1048576" "$(timeout 5 stat -c %s "$MNT/disk")"
  same "its max_write" "max_write: 258048" "$(timeout 5 grep max_write "$MNT/sys/version")"
  same "mapperctl" "disk" "$(by_boot mapperctl --mount "$MNT" ls | cut -f 1)"
  by_boot umount "$MNT" || fail "umount"
  ended "umount"

  printf '%s\n' "shelf $MNT fuse.mapperfs tables=$WORK/tables,transport=$MAPPERFS_TRANSPORT,nofail,_netdev 0 0" \
    >"$WORK/fstab"
  by_boot mount --fstab "$WORK/fstab" "$MNT" || fail "mount --fstab"
  same "mount --fstab" "shelf fuse.mapperfs" "$(mount_line)"
  by_boot mount --all --fstab "$WORK/fstab" || fail "mount --all of what is mounted"
  same "mount --all of what is mounted" "shelf fuse.mapperfs" "$(mount_line)"
  same "its device" "1048576" "$(timeout 5 stat -c %s "$MNT/disk")"
  by_boot umount "$MNT" || fail "umount"
  ended "umount of fstab's"

  by_boot mount -t fuse.mapperfs lab "$MNT" -o bogus=1 2>"$WORK/said" && fail "mounted with bogus=1"
  grep -q 'unknown mount option: bogus=1' "$WORK/said" || fail "bogus=1: $(cat "$WORK/said")"
}

if [ -n "${MAPPERFS_INSTALLED:-}" ]; then
  inside
  exit 0
fi

# --- outside: what is installed, and where to ---
need_fuse
need cmake
BUILD=$(cd "$(dirname "$MAPPERFS")/.." && pwd)
[ -f "$BUILD/cmake_install.cmake" ] || skip "$MAPPERFS lies in no build folder"

# install_into FOLDER PREFIX
install_into() {
  DESTDIR=$1 timeout 60 cmake --install "$BUILD" --prefix "$2" >"$WORK/install.log" 2>&1 ||
    fail "cmake --install: $(tail -n 20 "$WORK/install.log")"
}

install_into "$WORK/root" /usr/local
for file in bin/mapperfs bin/mapperctl bin/mapperthin share/man/man8/mapperfs.8 \
  share/man/man8/mapperctl.8 share/man/man8/mapperthin.8 \
  share/bash-completion/completions/mapperctl lib/systemd/system/mapperfs@.service; do
  [ -f "$WORK/root/usr/local/$file" ] || fail "$file is not installed"
done
timeout 10 "$WORK/root/usr/local/bin/mapperfs" --version >/dev/null || fail "mapperfs --version"
timeout 10 "$WORK/root/usr/local/bin/mapperctl" thin-check --help >/dev/null ||
  fail "the installed mapperctl does not find mapperthin"
grep -q "exec /usr/local/bin/mapperfs " "$WORK/root/usr/local/lib/systemd/system/mapperfs@.service" ||
  fail "the unit does not start what was installed"
install_into "$WORK/other" /opt/lab
grep -q "exec /opt/lab/bin/mapperfs " "$WORK/other/opt/lab/lib/systemd/system/mapperfs@.service" ||
  fail "the unit does not follow the prefix"

if [ "$(id -u)" != 0 ] || [ ! -x /sbin/mount.fuse3 ] || ! unshare --mount true 2>/dev/null; then
  echo "SKIPPED: mount(8): needs root, /sbin/mount.fuse3 and a mount namespace" >&2
  exit 0
fi
MAPPERFS_INSTALLED=$WORK/root timeout 120 unshare --mount "$0"
