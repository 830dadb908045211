#!/usr/bin/env bash
# A Debian 12 as bare as debootstrap makes it, where nothing of this machine helps: the tree is
# copied in, then the README's two commands run there. Needs root, a network and some minutes; part
# of tools/check --slow.
#
#   MINBASE_KEEP=yes   keep the root folder (for looking round) instead of removing it
. "$(dirname "$0")/lib.sh"
root=$SCRATCH/root

# Deleting a root folder in which /dev is bound would delete the machine's. So everything happens in
# a mount namespace of its own: out here nothing is ever mounted below the root folder, and the
# mounts end with the last process inside, whatever ended it.
tidy() {
  local code=$? link
  trap - EXIT
  for link in /proc/[0-9]*/root; do
    case $(readlink "$link" 2>/dev/null) in
      "$root"*) link=${link#/proc/} && kill -KILL "${link%/root}" 2>/dev/null ;;
    esac
  done
  if grep -qF " $SCRATCH/" /proc/self/mounts; then
    printf 'not ok cleans up: something is mounted below %s\n' "$SCRATCH"
    exit 1
  fi
  [ "${MINBASE_KEEP:-no}" = yes ] || rm -rf --one-file-system "$SCRATCH"
  exit $code
}

# The archive that this machine's own apt uses; other repositories it may know are no concern here.
mirror() {
  # shellcheck disable=SC2016  # apt's variables, not the shell's
  apt-get indextargets --no-release-info --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' \
    'Identifier: Packages' | awk '$2 == "bookworm" && $3 == "main" { print $1; exit }'
}

make_root() {
  local uri
  uri=$(mirror)
  [ -n "$uri" ] || { printf 'no bookworm in the apt sources of this machine\n' && return 1; }
  debootstrap --variant=minbase bookworm "$root" "$uri" || return
  # The same sources as the machine's, security and updates included, with Debian's keys alone.
  rm -f "$root/etc/apt/sources.list"
  # shellcheck disable=SC2016
  apt-get indextargets --no-release-info --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' \
    'Identifier: Packages' | awk '$2 ~ /^bookworm(-updates|-security)?$/ && $3 == "main" {
      print "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]", $1, $2, $3 }' |
    sort -u >"$root/etc/apt/sources.list.d/machine.list"
  # How the machine reaches its mirror: names, proxies, what it says about dates.
  cp -L /etc/resolv.conf /etc/hosts "$root/etc/" || return
  apt-config dump | grep -E '^Acquire::(http|https|Check-(Date|Valid-Until))[: ]' \
    >"$root/etc/apt/apt.conf.d/90machine" || true
  # Bound to itself the root folder is a mount point, as a real root is: unshare(1) insists on it.
  mount --bind "$root" "$root" &&
    mount -t proc proc "$root/proc" &&
    mount -t sysfs -o ro sysfs "$root/sys" &&
    mount --rbind /dev "$root/dev" &&
    mount --make-rslave "$root/dev" &&
    mount -t tmpfs tmpfs "$root/tmp"
}

# The work tree as it is, without what is built or ignored.
copy_tree() {
  mkdir -p "$root/src" &&
    git -C "$TREE" ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' file; do
      [ ! -e "$TREE/$file" ] || printf '%s\0' "$file"
    done | tar -C "$TREE" --null -T - -cf - | tar -C "$root/src" -xf -
}

# A shell as in a fresh login, with nothing of this one's environment.
inside() {
  chroot "$root" /usr/bin/env -i HOME=/root TERM=dumb PATH=/usr/sbin:/usr/bin:/sbin:/bin CI=true \
    ${MAPPERFS_JOBS:+MAPPERFS_JOBS=$MAPPERFS_JOBS} bash -c "$1" </dev/null
}

# timed NAME COMMAND...: a check that is long enough to say how long it took.
timed() {
  local name=$1 began=$SECONDS log=$SCRATCH/log
  shift
  if "$@" >"$log" 2>&1; then
    ok "$name ($((SECONDS - began)) s)"
  else
    not_ok "$name" "exit code $?, its last lines:"
    tail -n 60 "$log" | sed 's/^/    /'
    return 1
  fi
}

run_inside_namespace() {
  # The copies of others' mounts would keep their daemons alive beyond their own umount.
  umount --lazy --all --types fuse.mapperfs
  timed 'debootstrap makes a bare Debian 12' make_root || return
  timed 'the tree is copied in' copy_tree || return
  timed 'tools/quickstart --once works in it' inside 'cd /src && tools/quickstart --once' || return
  grep -E 'libfuse .*transports|read back' "$SCRATCH/log" | sed 's/^/    /'
  timed 'tools/check --quick passes in it' inside 'cd /src && tools/check --quick' || return
  tail -n 12 "$SCRATCH/log" | sed 's/^/    /'
}

if [ -n "${SETUP_SCRATCH:-}" ]; then
  run_inside_namespace
  done_testing
  exit
fi
trap tidy EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
if [ "$(id -u)" -ne 0 ] || ! command -v debootstrap >/dev/null; then
  skip 'needs root and debootstrap'
  exit 0
fi
SETUP_SCRATCH=$SCRATCH unshare --mount --propagation private "$0"
