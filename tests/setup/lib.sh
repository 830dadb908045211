# shellcheck shell=bash disable=SC2034  # the names are for those who source this
# What the tests of the set-up scripts share. A test calls these and ends with `done_testing`; every
# check prints one line, `ok NAME` or `not ok NAME: why`, and tools/check counts those lines.
set -uo pipefail

TREE=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
readonly TREE
# A test that starts itself anew, in another namespace, hands its folder on.
SCRATCH=${SETUP_SCRATCH:-$(mktemp -d)}
readonly SCRATCH
failures=0

ok() { printf 'ok %s\n' "$1"; }

not_ok() {
  printf 'not ok %s: %s\n' "$1" "$2"
  failures=$((failures + 1))
}

# expect NAME CODE PATTERN COMMAND...: the command must exit with CODE and its output, both
# streams, must match the extended regular expression.
expect() {
  local name=$1 want=$2 pattern=$3 output code=0
  shift 3
  output=$("$@" 2>&1 </dev/null) || code=$?
  if [ "$code" -ne "$want" ]; then
    not_ok "$name" "exit code $code, not $want"
    printf '%s\n' "$output" | tail -n 40 | sed 's/^/    /'
  elif ! grep -qE -e "$pattern" <<<"$output"; then
    not_ok "$name" "no line matches '$pattern'"
    printf '%s\n' "$output" | tail -n 40 | sed 's/^/    /'
  else
    ok "$name"
  fi
}

# expect_empty NAME TEXT: nothing must have been found.
expect_empty() {
  if [ -z "$2" ]; then ok "$1"; else not_ok "$1" "found: $2"; fi
}

# fake NAME: makes an executable of standard input that stands before the real one in $FAKES.
FAKES=$SCRATCH/fakes
fake() {
  mkdir -p "$FAKES"
  { printf '#!/bin/bash\n' && cat; } >"$FAKES/$1"
  chmod +x "$FAKES/$1"
}

skip() { printf 'skipped: %s: %s\n' "${0##*/}" "$1"; }

done_testing() { [ "$failures" -eq 0 ]; }
