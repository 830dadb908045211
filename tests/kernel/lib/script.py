"""Script files: what a step is, and how a file is cut into steps and parts.

A script is a plain text file of shell steps, one a line; a here-document belongs to the step that
opens it. `#` starts a comment line. Directives:

  @module NAME       kernel module that the kernel's side loads first (ours needs nothing)
  @timeout SECONDS   limit of each step that follows (default 20)
  @no-space-timeout SECONDS
                     how long a thin pool keeps a write that finds no space (default 60)
  == NAME            a new part; the disks keep their content, every mapped device is gone. Scripts
                     with parts are the ones whose images travel between the two sides.
"""

import re
from dataclasses import dataclass, field

DEFAULT_TIMEOUT_S = 20
_HEREDOC = re.compile(r"<<-?\s*'?\"?(\w+)")


@dataclass
class Step:
    """One shell step. `text` is the whole of it, here-document included."""

    line: int
    text: str
    timeout_s: float = DEFAULT_TIMEOUT_S


@dataclass
class Script:
    """A parsed file. `name` is FOLDER/FILE without the ending; `parts` keeps their order."""

    name: str
    modules: list = field(default_factory=list)
    no_space_timeout_s: int = 60
    parts: dict = field(default_factory=dict)

    @property
    def travels(self):
        """True where disk images are to be handed from one side to the other between parts."""
        return len(self.parts) > 1

    @property
    def has_metadata(self):
        """True where a thin pool's metadata is part of the script, and travels with its disks."""
        return any("$meta" in step.text for part in self.parts.values() for step in part)


def _directive(script, line, timeout_s):
    words = line.split()
    if words[0] == "@module" and len(words) == 2:
        script.modules.append(words[1])
        return timeout_s
    if words[0] == "@timeout" and len(words) == 2:
        return float(words[1])
    if words[0] == "@no-space-timeout" and len(words) == 2:
        script.no_space_timeout_s = int(words[1])
        return timeout_s
    raise ValueError(f"{script.name}: unknown directive {line!r}")


def parse(name, text):
    """Cuts `text` into a Script. Raises ValueError on what it does not understand."""
    script = Script(name)
    part, timeout_s = "only", DEFAULT_TIMEOUT_S
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        first, line = at + 1, lines[at]
        at += 1
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("== "):
            part = line[3:].strip()
            script.parts[part] = []
            continue
        if line.startswith("@"):
            timeout_s = _directive(script, line, timeout_s)
            continue
        heredoc = _HEREDOC.search(line)
        body = [line]
        while heredoc:
            if at >= len(lines):
                raise ValueError(f"{name}:{first}: here-document without its {heredoc.group(1)}")
            body.append(lines[at])
            at += 1
            if body[-1] == heredoc.group(1):
                break
        script.parts.setdefault(part, []).append(Step(first, "\n".join(body), timeout_s))
    return script


def texts(root, names):
    """The text of each script in `names`, by name."""
    return {name: (root / f"{name}.txt").read_text(encoding="utf-8") for name in names}


def find(root, only=()):
    """Names of all scripts below `root`, sorted; `only` keeps those that start with a given name."""
    names = sorted(str(p.relative_to(root).with_suffix("")) for p in root.glob("*/*.txt"))
    return [n for n in names if not only or any(n == o or n.startswith(o + "/") for o in only)]
