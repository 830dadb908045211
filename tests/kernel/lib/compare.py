"""Compares what the kernel and mapperfs said to one script, step by step.

Only the naming of devices is made equal beforehand, as each side has numbers and paths of its own:

  kernel 98:16, (98, 16), /dev/ubdb, ubdb     mapperfs /path/disk1     ->  @disk1@
  kernel 254:2, (254, 2)                      mapperfs 253:2 or NAME   ->  NAME (else @dm:2@)
  kernel /dev/mapper                          mapperfs the mount       ->  @mnt@
  kernel 98:64, /dev/ubde                     mapperfs /path/meta      ->  @meta@

One more line is expected of mapperfs: on a failure that the kernel explains only in its log,
mapperctl prints a sentence that begins with `mapperctl: `. It must be there, and is left out.
All else is a difference, and a difference stands in differences.md or fails the test.
"""

import difflib
import re
from dataclasses import dataclass, field

_SENTENCE = re.compile(r"^mapperctl: \S")
_IOCTL_FAILED = re.compile(r"^device-mapper: [\w-]+ ioctl on ", re.MULTILINE)


@dataclass
class Facts:
    """How one side calls its devices: mapped ones by `major`, below `mnt`; disks by path and, on
    the kernel's side only, by number (`MAJ:MIN`)."""

    major: int
    mnt: str
    disks: list
    numbers: list = field(default_factory=list)
    meta: str = ""
    meta_number: str = ""

    @property
    def is_kernel(self):
        return bool(self.numbers)


def canonical(text, facts, names):
    """`text` with every device called by its common name; `names` maps dm minors to names."""
    if facts.meta:
        text = text.replace(facts.meta, "@meta@")
    if facts.meta_number:
        either = facts.meta_number.replace(":", "(?::|, )")
        text = re.sub(rf"(?<![\w.+]){either}(?!\d)", "@meta@", text)
    for index, disk in enumerate(facts.disks):
        text = text.replace(disk, f"@disk{index}@")
        name = re.escape(disk.rsplit("/", 1)[-1])
        text = re.sub(rf"(?<![\w@]){name}(?![\w@])", f"@disk{index}@", text)
    for index, number in enumerate(facts.numbers):
        either = number.replace(":", "(?::|, )")
        text = re.sub(rf"(?<![\w.+]){either}(?!\d)", f"@disk{index}@", text)
    text = text.replace(facts.mnt, "@mnt@")
    text = re.sub(rf"(?<![\w.+]){facts.major}(?::|, )(\d+)(?!\d)",
                  lambda m: names.get(m.group(1), f"@dm:{m.group(1)}@"), text)
    if "BlkDevNamesUsed" in text:  # a column as wide as the longest name in it
        text = re.sub(" {2,}", " ", text)
    # The columns of `info -c`: the number is a major only before a minor and the four letters.
    return re.sub(rf"(?<!\S){facts.major}(?= +\d+ +[-L][-I][-s][rw]\b)", "@major@", text)


def lines_of(record, facts):
    """One record as comparable lines: `out|…`, `err|…`, `rc|…`."""
    lines = []
    for stream in ("out", "err"):
        for line in canonical(record[stream], facts, record["names"]).splitlines():
            if stream == "err" and not facts.is_kernel and _SENTENCE.match(line):
                continue
            lines.append(f"{stream}|{line}")
    return lines + [f"rc|{record['rc']}"]


def unexplained(kernel_record, record):
    """True where the kernel's ioctl failed and ours failed without a sentence that says why."""
    if record["rc"] == "0" or not _IOCTL_FAILED.search(record["err"]):
        return False
    return bool(_IOCTL_FAILED.search(kernel_record["err"])) and not any(
        _SENTENCE.match(line) for line in record["err"].splitlines())


@dataclass
class Difference:
    """One step that differs. `key` finds it again; `hunk` is what differs, `-` the kernel's."""

    script: str
    part: str
    step: str
    hunk: list
    where: str = ""
    log: list = None

    @property
    def key(self):
        return (self.script, self.part, self.step)

    def text(self):
        """As a block for differences.md."""
        part = "" if self.part == "only" else f" / {self.part}"
        return "\n".join(["```difference", f"script: {self.script}{part}", f"step: {self.step}",
                          *self.hunk, "```"])


def hunk(kernel, ours):
    """The lines that differ, in order: `- kernel` and `+ mapperfs`."""
    found = []
    matcher = difflib.SequenceMatcher(None, kernel, ours, autojunk=False)
    for tag, k0, k1, o0, o1 in matcher.get_opcodes():
        if tag != "equal":
            found += [f"- {line}" for line in kernel[k0:k1]] + [f"+ {line}" for line in ours[o0:o1]]
    return found


def step_names(steps):
    """A name for each step that stays when others come and go: its first line, counted if repeated."""
    seen, names = {}, []
    for step in steps:
        first = step["text"].split("\n")[0]
        seen[first] = seen.get(first, 0) + 1
        names.append(first if seen[first] == 1 else f"{first} [{seen[first]}]")
    return names


def compare_part(script, part, kernel, ours):
    """Yields the Differences of one part. Both are {steps, left, disks, facts}."""
    kernel_facts, our_facts = Facts(**kernel["facts"]), Facts(**ours["facts"])
    names = step_names(max(kernel["steps"], ours["steps"], key=len))
    for index, name in enumerate(names):
        if index >= len(kernel["steps"]) or index >= len(ours["steps"]):
            who = "the kernel's side" if index >= len(kernel["steps"]) else "mapperfs' side"
            yield Difference(script, part, name, [f"! {who} did not come to this step"])
            return
        k, o = kernel["steps"][index], ours["steps"][index]
        found = hunk(lines_of(k, kernel_facts), lines_of(o, our_facts))
        if unexplained(k, o):
            found.append("! no sentence (mapperctl: ...) says why")
        if found:
            yield Difference(script, part, name, found, f"scripts/{script}.txt:{k['line']}",
                             [*(f"kernel log: {line}" for line in k["log"]),
                              *(f"mapperfs: {line}" for line in o["err"].splitlines()
                                if _SENTENCE.match(line))])
    ends = [[f"left|{side['left']}", *(f"disk{i}|{s}" for i, s in enumerate(side["disks"])),
             *(f"metadata|{line}" for line in side.get("metadata", []))]
            for side in (kernel, ours)]
    if found := hunk(*ends):
        yield Difference(script, part, "(at the end)", found, f"scripts/{script}.txt")


def compare(script, kernel, ours):
    """All Differences of one script, part by part.

    A part that ran over the other side's image is compared with the other side's own run of it.
    """
    found = []
    for part in kernel:
        plain, over, _ = part.partition(" over ")
        counterpart = ours.get(plain)
        if not counterpart:
            found.append(Difference(script, part, "(whole part)", ["! mapperfs did not run it"]))
            continue
        found += compare_part(script, part, kernel[part], counterpart)
    for part in ours:
        plain, over, _ = part.partition(" over ")
        if over:
            found += compare_part(script, part, kernel[plain], ours[part])
        elif part not in kernel:
            found.append(Difference(script, part, "(whole part)", ["! the kernel did not run it"]))
    return found
