# shellcheck shell=bash disable=SC2034  # the names are for those who source this
# What the set-up scripts share: where the tree is, how they speak, their exit codes.
# Sourced, never run; sets nothing but functions and the read-only names below.

# Exit codes of tools/install-deps and tools/build-libfuse (beside 0 done and 1 failed).
readonly EX_USAGE=2     # the command line is wrong
readonly EX_NETWORK=3   # no package mirror could be reached or none is configured
readonly EX_NEEDS=4     # something is missing that this user may not install
readonly EX_SIGNATURE=5 # a repository's signature could not be verified

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly REPO
# Private builds of libraries live here; one level, so that several trees can share it.
readonly DEPS=${MAPPERFS_DEPS:-$REPO/.deps}
# The name the script was called by: every message starts with it.
readonly PROGRAM=tools/${0##*/}

say() { printf '%s: %s\n' "$PROGRAM" "$*"; }
warn() { say "$@" >&2; }

# die CODE SENTENCE...
die() {
  local code=$1
  shift
  warn "$@"
  exit "$code"
}

have() { command -v "$1" >/dev/null 2>&1; }

# Prints the comment block at the head of the calling script: the manual is written once.
usage() { sed -n '2,/^[^#]/{s/^# \{0,1\}//;/^set /d;p}' "$0"; }

# version_at_least HAVE WANT: plain dotted versions, as libfuse's are.
version_at_least() {
  [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]
}
