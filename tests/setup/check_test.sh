#!/usr/bin/env bash
# tools/check on a little tree of its own: a run that passes, one for each way to fail, and the last
# line that integration reads.
. "$(dirname "$0")/lib.sh"
# The daemon stand-in that a test leaves behind must not outlive this one either.
trap 'rm -rf "$SCRATCH"' EXIT
unset MAPPERFS_CHECK_DIR MAPPERFS_CHECK_RUN MAPPERFS_DEPS

# tree NAME: a new tree with the scripts under test and a project whose tests are shell commands.
# Standard input holds the add_test() lines.
tree() {
  top=$SCRATCH/$1
  mkdir -p "$top/tools" "$top/tests/setup"
  cp "$TREE"/tools/{check,count-tests,lib.sh} "$top/tools/"
  {
    printf '%s\n' 'cmake_minimum_required(VERSION 3.20)' 'project(little NONE)' 'enable_testing()' \
      'function(sh name label command)' \
      '  add_test(NAME ${name} COMMAND bash -c "${command}")' \
      '  set_tests_properties(${name} PROPERTIES LABELS ${label} SKIP_RETURN_CODE 77)' \
      'endfunction()'
    cat
  } >"$top/CMakeLists.txt"
}

tree passes <<'END'
sh(unit.gtest unit-fuse "echo '[  PASSED  ] 12 tests.'; echo '[  SKIPPED ] 2 tests, listed below:'")
sh(mount.plain mount "true")
sh(unit.plain unit "true")
sh(unit.skipped unit "exit 77")
sh(mount.slow slow "exit 1")
sh(mount.part mount "echo 'skipped: part_test.sh: no <tool>'; echo more")
END
expect 'sums the tests of GoogleTest and of ctest' 0 '^15 passed, 0 failed$' \
  "$top/tools/check" --only release
expect 'counts what was skipped' 0 '3 skipped' "$top/tools/check" --only release
expect 'shows what a test left out' 0 '^ +skipped: part_test.sh: no <tool>$' \
  "$top/tools/check" --only release
expect 'runs the tests of the chosen labels' 0 '^14 passed, 0 failed$' \
  "$top/tools/check" --only system
expect 'sums over stages' 0 '^29 passed, 0 failed$' "$top/tools/check" --only release,system
expect 'runs the slow tests when told to' 1 '1 failed$' "$top/tools/check" --slow --only release
expect 'refuses an unknown stage' 2 "unknown stage 'relaese'" "$top/tools/check" --only relaese
expect 'refuses an unknown option' 2 "unknown option '--fast'" "$top/tools/check" --fast

tree fails <<'END'
sh(unit.good unit "true")
sh(unit.bad unit "echo 'the reason'; exit 1")
sh(unit.much unit "yes 'skipped: much_test.sh: noise' | head -500")
END
expect 'fails when a test fails' 1 '^2 passed, 1 failed$' "$top/tools/check" --only release
expect 'shows what the failing test said' 1 'the reason' "$top/tools/check" --only release
expect 'shows it where the end of the log is' 0 'the reason' \
  tail -n 3 "$top/build-check/logs/release.log"
expect 'stops at the stage that failed' 1 'stage release failed' \
  "$top/tools/check" --only release,system
expect_empty 'does not begin the stage after it' "$(ls "$top/build-check-system" 2>/dev/null)"

tree crashes <<'END'
sh(unit.crash unit "echo '[  PASSED  ] 3 tests.'; kill -SEGV \$$")
END
expect 'counts a crash as a failure' 1 '[1-9] failed$' "$top/tools/check" --only release

tree empty <<<'sh(kernel.one kernel "true")'
expect 'fails when no test bears the label' 1 '1 failed$' "$top/tools/check" --only system

tree does_not_build <<<'message(FATAL_ERROR "no compiler for this")'
expect 'fails when the build fails' 1 '^0 passed, 1 failed$' "$top/tools/check" --only release
expect 'shows why the build failed' 1 'no compiler for this' "$top/tools/check" --only release

tree leaves <<<'sh(mount.daemon mount "setsid sleep 987 >/dev/null 2>&1 </dev/null & true")'
expect 'fails when a test leaves a process' 1 'process: [0-9]+ sleep 987' \
  "$top/tools/check" --only release
left=$(for environment in /proc/[0-9]*/environ; do
  pid=${environment//[!0-9]/}
  tr "\0" " " 2>/dev/null <"/proc/$pid/cmdline" | grep -x 'sleep 987 '
done)
expect_empty 'ends the process that a test left' "$left"

if [ "$(id -u)" -eq 0 ]; then
  tree mounts <<<'sh(mount.tmpfs mount "mkdir \$TMPDIR/m && mount -t tmpfs none \$TMPDIR/m")'
  expect 'fails when a test leaves a mount' 1 'mounted: /tmp/mapperfs-check.*/m' \
    "$top/tools/check" --only release
  expect_empty 'unmounts what a test left' "$(grep ' /tmp/mapperfs-check[^ ]*/m tmpfs' \
    /proc/self/mounts)"
else
  skip 'not root: the test that leaves a mount'
fi

tree formats </dev/null
cp "$TREE/.clang-format" "$top/"
mkdir "$top/engine"
printf 'int  a ;\n' >"$top/engine/a.cc"
expect 'fails when a file is not formatted' 1 'engine/a.cc:1' "$top/tools/check" --only format
printf 'int a;\n' >"$top/engine/a.cc"
expect 'is content when every file is formatted' 0 'format *... ok' "$top/tools/check" --only format
done_testing
