#!/usr/bin/env bash
# tools/build-libfuse against a stand-in for apt: what it does when the mirror, the signature, the
# version or the build fails, and that a failure leaves nothing half-made. No network is asked.
. "$(dirname "$0")/lib.sh"
trap 'rm -rf "$SCRATCH"' EXIT
build_libfuse=$TREE/tools/build-libfuse
export MAPPERFS_DEPS=$SCRATCH/deps

# An apt-get whose mirror list, `update` and `source` say what the test wants.
fake apt-get <<'END'
case " $* " in
  *" indextargets "*)
    printf '%s\n' 'http://mirror.test/security bookworm-security main' \
      'http://mirror.test/debian bookworm main' 'http://mirror.test/debian bookworm-updates main'
    ;;
  *" update "*)
    all="$*"
    config=${all#*-c }
    cat "$(dirname "${config%% *}")/sources.list" >>"$SOURCES_LOG"
    printf '%b\n' "$UPDATE_SAYS"
    exit "$UPDATE_CODE"
    ;;
  *" source "*)
    [ "$SOURCE_VERSION" != hang ] || sleep 60
    [ -n "$SOURCE_VERSION" ] || exit 100
    touch "fuse3_$SOURCE_VERSION-1.dsc"
    ;;
  *) exit 100 ;;
esac
END
fake dpkg-source <<'END'
mkdir "${@: -1}"
END
export PATH=$FAKES:$PATH SOURCES_LOG=$SCRATCH/sources UPDATE_SAYS='' UPDATE_CODE=0 SOURCE_VERSION=''

left_behind() {
  find "$MAPPERFS_DEPS" -mindepth 1 ! -name .libfuse3.lock 2>/dev/null
}

expect 'prints its prefix' 0 "^$SCRATCH/deps/libfuse3\$" "$build_libfuse" --print-prefix
expect 'refuses an unknown option' 2 "unknown option '--fast'" "$build_libfuse" --fast

UPDATE_SAYS='E: Could not resolve host' UPDATE_CODE=100
expect 'has a code for no network' 3 'no mirror .* answers' "$build_libfuse"
expect 'asks the main archive for source packages' 0 \
  '^deb-src \[signed-by=/.*\] http://mirror.test/debian forky main$' cat "$SOURCES_LOG"
expect_empty 'never asks the security archive' "$(grep security "$SOURCES_LOG")"

UPDATE_SAYS='E: The repository is not signed.\nNO_PUBKEY 0123456789ABCDEF' UPDATE_CODE=100
expect 'has a code for a bad signature' 5 'signature .* could not be verified' "$build_libfuse"
expect 'tries to renew the keyring, verified with the old one' 0 \
  '^deb \[signed-by=/usr/share/keyrings/.*\] http://mirror.test/debian bookworm main$' \
  cat "$SOURCES_LOG"

UPDATE_SAYS='' UPDATE_CODE=0
expect 'has a code for a package that cannot be fetched' 3 'could not be fetched' "$build_libfuse"
SOURCE_VERSION=3.17.2
expect 'refuses a libfuse that is too old' 1 'libfuse 3.17.2-1, wanted' "$build_libfuse"
SOURCE_VERSION=3.18.9
expect 'says so when the build fails' 1 '3.18.9-1 did not build' "$build_libfuse"
expect_empty 'leaves nothing after failures' "$(left_behind)"

SOURCE_VERSION=hang
expect 'can be stopped' 124 'fetching' timeout -s TERM 1 "$build_libfuse"
expect_empty 'leaves nothing when stopped' "$(left_behind)"

# What the real run of this machine left is used as it is: the second call is free.
unset MAPPERFS_DEPS
if [ -f "$TREE/.deps/libfuse3/mapperfs-stamp" ]; then
  expect 'is done once' 0 'libfuse 3\.[0-9.]+-.* is in' env UPDATE_CODE=100 "$build_libfuse"
else
  skip 'no private libfuse in this tree'
fi
done_testing
