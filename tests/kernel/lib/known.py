"""The known differences: reads differences.md and holds it against what was found.

An entry is a heading, its reason, and fenced blocks marked `difference`, each exactly what the
comparison prints for a step: script, step, and the lines of both sides. One that is found as it
stands is known; one that is found otherwise, or no longer found, is a failure.
"""

import re
from dataclasses import dataclass


@dataclass
class Known:
    """One block. `title` is the heading it stands under; `line` its line in the file."""

    title: str
    line: int
    key: tuple
    hunk: list


def parse(text):
    """Every block of differences.md. Raises ValueError where one has no reason or is malformed."""
    title, reason, block, start, found = None, False, None, 0, []
    for number, line in enumerate(text.split("\n"), 1):
        if block is not None:
            if line == "```":
                found.append(_known(title, start, block))
                block = None
            else:
                block.append(line)
        elif line.startswith("## "):
            title, reason = line[3:], False
        elif line == "```difference":
            if not title or not reason:
                raise ValueError(f"differences.md:{number}: a difference without heading and reason")
            block, start = [], number
        elif line.strip():
            reason = True
    if block is not None:
        raise ValueError(f"differences.md:{start}: block without end")
    return found


def _known(title, start, block):
    script = re.fullmatch(r"script: (\S+)(?: / (.+))?", block[0] if block else "")
    step = re.fullmatch(r"step: (.+)", block[1] if len(block) > 1 else "")
    if not script or not step or len(block) < 3:
        raise ValueError(f"differences.md:{start}: needs script:, step: and what differs")
    key = (script.group(1), script.group(2) or "only", step.group(1))
    return Known(title, start, key, block[2:])


def sift(differences, known, scripts_run):
    """Returns (new, stale, matched): Differences not known as they are, entries no longer true.

    Only entries of scripts in `scripts_run` are judged.
    """
    by_key = {entry.key: entry for entry in known}
    new, matched = [], []
    for difference in differences:
        entry = by_key.get(difference.key)
        if entry and entry.hunk == difference.hunk:
            matched.append(entry)
        else:
            new.append(difference)
    true = {entry.key for entry in matched}
    stale = [e for e in known if e.key[0] in scripts_run and e.key not in true]
    return new, stale, matched
