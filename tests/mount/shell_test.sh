#!/usr/bin/env bash
# What shells and programs that copy write to `control`: whole lines, whole tables, or nothing.
. "$(dirname "$0")/lib.sh"
need_fuse
need python3 dd tee cp
start
control "base: 0 40000 ram" "disk: 0 2000 linear base 0"

sectors() { echo $(($(stat -c %s "$MNT/$1") / 512)); }
last_said() { tail -n 1 "$MNT/sys/log"; }
# lines N: a table of N sectors for `big`, a line each.
lines() { awk -v n="$1" 'BEGIN { for (i = 0; i < n; ++i) print "big: " i " 1 linear base " n - i }'; }

# A heredoc through cat, and begin and commit line by line.
timeout 10 cat >"$MNT/control" <<'END' || fail "a heredoc through cat: $(last_said)"
disk: 0 1000 linear base 0
disk: 1000 3000 linear base 5000
END
same "the table of a heredoc" 4000 "$(sectors disk)"
printf '%s\n' begin "disk: 0 1000 linear base 0" "disk: 1000 4000 linear base 5000" commit >"$MNT/control" ||
  fail "begin and commit: $(last_said)"
same "the table between begin and commit" 5000 "$(sectors disk)"
echo -n "disk: 0 6000 linear base 0" >"$MNT/control" || fail "echo -n: $(last_said)"
same "the table of echo -n" 6000 "$(sectors disk)"
# bash's echo writes each line by itself: the second is refused, and the sentence says why.
if echo "disk: 0 1000 linear base 0
disk: 1000 1000 linear base 5000" 2>/dev/null >"$MNT/control"; then fail "a table in two writes was taken"; fi
[[ $(last_said) == *"Gap in table"*"bash's echo"* ]] || fail "two writes: '$(last_said)'"

# Copied in pieces that end anywhere.
lines 12788 >"$WORK/table"
[ "$(stat -c %s "$WORK/table")" -gt $((128 * 1024)) ] || fail "the table fits one write of cat's"
copies() {
  timeout 20 "$@" || fail "$*: $(last_said)"
  same "the table after $*" 12788 "$(sectors big)"
  control "remove big"
}
copies sh -c 'cat "$0" >"$1"' "$WORK/table" "$MNT/control"
copies cp "$WORK/table" "$MNT/control"
copies sh -c 'tee "$1" <"$0" >/dev/null' "$WORK/table" "$MNT/control"
for bs in 512 4k 100k; do
  copies dd if="$WORK/table" of="$MNT/control" bs=$bs conv=notrunc status=none
done
lines 12788 | sed '1i begin
$a commit' >"$WORK/bracketed"
copies sh -c 'cat "$0" >"$1"' "$WORK/bracketed" "$MNT/control"
timeout 20 cat "$WORK/table" >"$MNT/control"
cut -d ' ' -f 2- "$WORK/table" >"$WORK/bare"
timeout 20 cat "$WORK/bare" >"$MNT/sys/big/table" || fail "a bare table: $(last_said)"
same "the bare table" 12788 "$(sectors big)"

# Cut off within a line: nothing changes, the copier hears of it.
if timeout 20 head -c 131072 "$WORK/table" >"$MNT/control" 2>"$WORK/said"; then fail "half a table was taken"; fi
same "the table after half a table" 12788 "$(sectors big)"
if timeout 20 sh -c 'head -c 20000 "$0" | cat >"$1"' "$WORK/table" "$MNT/control" 2>"$WORK/said"; then
  fail "half a table from a pipe was taken"
fi
same "the table after half a table from a pipe" 12788 "$(sectors big)"
for _ in $(seq 100); do
  grep -q 'was closed: the last line of the text has no newline' "$MNT/sys/log" && break
  read -r -t 0.05 <> <(:) || true
done
grep -q 'was closed: the last line of the text has no newline' "$MNT/sys/log" || fail "no word of the half table"

# Larger than the transport's largest write: refused whole, comments or not.
control "keep: 0 8 zero"
python3 - "$MNT/control" <<'END' || fail "a write of a comment and a command"
import errno, os, sys
fd = os.open(sys.argv[1], os.O_WRONLY)
try:
    done = os.write(fd, b"#" * (1 << 20) + b"remove keep\n")
    sys.exit(f"{done} bytes were taken")
except OSError as error:
    assert error.errno == errno.EMSGSIZE, error
END
[ -e "$MNT/keep" ] || fail "a command behind a comment was executed"
control "remove big" "remove keep" "remove disk" "remove base"
stop
