#!/usr/bin/env bash
# tools/install-deps against stand-ins for dpkg and apt: nothing is installed, no network asked.
. "$(dirname "$0")/lib.sh"
trap 'rm -rf "$SCRATCH"' EXIT
install_deps=$TREE/tools/install-deps

# A dpkg that has every package but those named in MISSING, failing for them as it does, and an apt-get that keeps its words.
fake dpkg-query <<'END'
shift 2
code=0
for package; do
  case " $MISSING " in *" $package "*) code=1 && continue ;; esac
  printf 'ii %s\n' "$package"
done
exit $code
END
fake apt-get <<'END'
printf '%s\n' "$*" >>"$APT_LOG"
echo "E: Failed to fetch something"
exit 100
END
export PATH=$FAKES:$PATH MISSING='' APT_LOG=$SCRATCH/apt.log

expect 'lists both sets' 0 '^librocksdb-dev$' "$install_deps" --list
expect 'lists the test set' 0 '^fio$' "$install_deps" --test --list
expect 'lists the contenders of the bench' 0 '^qemu-system-common$' "$install_deps" --bench --list
expect_empty 'keeps the test set out of the build set' \
  "$("$install_deps" --build --list | grep -x fio)"
expect 'is content when nothing is missing' 0 'all [0-9]+ packages' "$install_deps"
expect_empty 'does not call apt when nothing is missing' "$(cat "$APT_LOG" 2>/dev/null)"
expect 'makes the mtab that a bare Debian lacks' 0 'all [0-9]+ packages' \
  env MAPPERFS_MTAB="$SCRATCH/etc-mtab" "$install_deps"
expect 'links it with the mounts of whoever reads it' 0 '^\.\./proc/self/mounts$' \
  readlink "$SCRATCH/etc-mtab"
expect 'leaves an mtab that is there' 0 '^\.\./proc/self/mounts$' env MAPPERFS_MTAB="$SCRATCH/etc-mtab" \
  sh -c '"$1" >/dev/null && readlink "$MAPPERFS_MTAB"' - "$install_deps"
expect 'refuses an unknown option' 2 "unknown option '--all'" "$install_deps" --all

MISSING='fio meson'
expect 'names what is missing' 4 'missing: meson fio' "$install_deps" --check
expect 'looks at the chosen set alone' 4 'missing: meson$' "$install_deps" --check --build
expect_empty 'does not call apt to check' "$(cat "$APT_LOG" 2>/dev/null)"

if [ "$(id -u)" -eq 0 ]; then
  expect 'says so when no mirror answers' 3 'no package mirror' "$install_deps"
  expect 'asked apt for the missing packages alone' 0 'install --no-install-recommends meson fio$' \
    cat "$APT_LOG"
  # The fakes must be readable for the other user; sudo is made to refuse.
  fake sudo <<<'exit 1'
  chmod 755 "$SCRATCH"
  expect 'tells an ordinary user what to type' 4 'as root, run: apt-get install .*meson' \
    setpriv --reuid=65534 --regid=65534 --clear-groups "$install_deps" --build
else
  skip 'not root: the paths that call apt'
fi
done_testing
