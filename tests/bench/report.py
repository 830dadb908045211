"""What the benchmark prints: a table of medians, the ratios asked for, JSON, and bars as SVG."""

import html
import json
import statistics

# A ratio from rounds that differ by more than this, in percent, says little.
WIDE_SPREAD = 20
# In the place of whom to compare with: nobody, the figure itself counts, in millions a second.
MILLIONS = "millions a second"


def median(values):
    return statistics.median(values) if values else float("nan")


def spread(values):
    """Half the distance between the extremes, in percent of the median."""
    middle = median(values)
    return 100 * (max(values) - min(values)) / 2 / middle if values and middle else 0.0


def sample_of_fio(text, cpu, counted):
    """One run's figures out of fio's JSON. `cpu`: seconds of the server, of fio and of the whole machine during the
    run; `counted`: the part of the run that its I/O counts are of. Raises ValueError where fio failed."""
    done = json.loads(text[text.index("{"):])["jobs"][0]
    if done["error"]:
        raise ValueError(f"fio: error {done['error']}")
    ways = [done[way] for way in ("read", "write") if done[way]["total_ios"]]
    ios = sum(way["total_ios"] for way in ways)
    if not ios:
        raise ValueError("fio did no I/O")
    all_ios = ios / counted
    sample = dict(iops=sum(way["iops"] for way in ways), mib_s=sum(way["bw_bytes"] for way in ways) / (1 << 20),
                  lat_us=sum(way["total_ios"] * way["clat_ns"]["mean"] for way in ways) / ios / 1000)
    for who in ("server", "fio", "machine"):
        sample[who + "_us"] = cpu[who + "_s"] * 1e6 / all_ios
    # On a machine whose cores are busy with this alone, IOPS go as the inverse of it; on one that has other work to
    # do it still says what an I/O costs.
    sample["cpu_us"] = sample["server_us"] + sample["fio_us"]
    return sample


class Results:
    """samples[(job, contender)][round] is a dict: iops, mib_s, lat_us, and CPU time by I/O of the server's processes,
    (or the kernel's workers), of fio (its system calls included: all of it, with files and passthrough), of both, and of
    the whole machine: server_us, fio_us, cpu_us, machine_us."""

    def __init__(self):
        self.samples = {}
        self.notes = []

    def add(self, job, contender, round_nr, sample):
        self.samples.setdefault((job, contender), {})[round_nr] = sample

    def values(self, job, contender, key="iops"):
        return [sample[key] for sample in self.samples.get((job, contender), {}).values()]

    def figure(self, job, contender, key="iops"):
        return median(self.values(job, contender, key))

    def ratios(self, job, a, b, key="iops"):
        """Within each round that has both: what two contenders did minutes apart is not compared."""
        mine, theirs = self.samples.get((job, a), {}), self.samples.get((job, b), {})
        return [mine[nr][key] / theirs[nr][key] for nr in mine if nr in theirs and theirs[nr][key]]

    def table(self):
        lines = [f"{'job':<17}{'contender':<38}{'kIOPS':>8}{'±%':>4}{'MiB/s':>8}{'lat µs':>9}"
                 f"{'CPU µs/IO: server':>19}{'fio':>7}{'machine':>9}"]
        for job, contender in self.samples:
            def at(key, job=job, contender=contender):
                return self.figure(job, contender, key)
            lines.append(f"{job:<17}{contender:<38}{at('iops') / 1000:>8.1f}"
                         f"{spread(self.values(job, contender)):>4.0f}{at('mib_s'):>8.0f}{at('lat_us'):>9.1f}"
                         f"{at('server_us'):>19.2f}{at('fio_us'):>7.2f}{at('machine_us'):>9.2f}")
        return "\n".join(lines)

    def least_of(self, job, contenders, b):
        """Of several that all have to reach the same, the one that is the farthest from it; None where one of them was
        not measured, which may be the least."""
        if not all(self.ratios(job, a, b) for a in contenders):
            return None
        return min(contenders, key=lambda a: median(self.ratios(job, a, b)))

    def reached(self, goals):
        """(label, at least, median of the ratios or None where something is missing, their spread, median of the ratios
        of CPU time by I/O)."""
        for label, job, a, b, least in goals:
            if b == MILLIONS:
                figures = [value / 1e6 for value in self.values(job, a)]
                yield label, least, median(figures) if figures else None, spread(figures), None
                continue
            if not isinstance(a, str):
                cases, a = a, self.least_of(job, a, b)
                measured = sum(1 for case in cases if self.ratios(job, case, b))
                label = label.format(count=len(cases), least=a or f"{measured} measured")
            ratios = self.ratios(job, a, b)
            cpu = self.ratios(job, b, a, "cpu_us")
            yield (label, least, median(ratios) if ratios else None, spread(ratios) if ratios else 0.0,
                   median(cpu) if cpu else None)

    def goals(self, goals):
        """goals: (label, job, a, b, at least). One line each, with what was reached. `a`: a name, or several, of which
        the one that reached least is shown as {least} in the label, or how many of {count} were measured where not all were."""
        lines = [f"{'ratio of IOPS':<88}{'at least':>9}{'reached':>9}{'±%':>4}{'by CPU':>8}"]
        for label, least, reached, width, cpu in self.reached(goals):
            if reached is None:
                lines.append(f"{label:<88}{least:>9.2f}{'-':>9}    not measured")
                continue
            verdict = "" if reached >= least else "  missed"
            if width > WIDE_SPREAD:
                verdict += "  (rounds differ widely)"
            by_cpu = f"{cpu:.2f}" if cpu is not None else "-"
            lines.append(f"{label:<88}{least:>9.2f}{reached:>9.2f}{width:>4.0f}{by_cpu:>8}{verdict}")
        return "\n".join(lines)

    def json(self, goals, machine, arguments=""):
        return json.dumps({
            "machine": machine,
            "arguments": arguments,
            "notes": self.notes,
            "samples": [{"job": job, "contender": contender, "rounds": rounds}
                        for (job, contender), rounds in self.samples.items()],
            "goals": [{"label": label, "at_least": least, "reached": reached, "spread_percent": width, "by_cpu": cpu}
                      for label, least, reached, width, cpu in self.reached(goals)],
        }, indent=1)

    def svg(self):
        """A bar per contender and job, longest of each job full width."""
        rows, y = [], 20
        for job in dict.fromkeys(job for job, _ in self.samples):
            rows.append(f'<text x="10" y="{y}" font-weight="bold">{html.escape(job)} (kIOPS)</text>')
            y += 8
            figures = [(name, self.figure(at, name)) for at, name in self.samples if at == job]
            most = max(figure for _, figure in figures) or 1
            for name, figure in figures:
                rows.append(f'<rect x="260" y="{y}" width="{480 * figure / most:.0f}" height="12" '
                            f'fill="{"#2b6cb0" if name.startswith("mapperfs") else "#a0aec0"}"/>'
                            f'<text x="10" y="{y + 10}">{html.escape(name)}</text>'
                            f'<text x="{266 + 480 * figure / most:.0f}" y="{y + 10}">{figure / 1000:.1f}</text>')
                y += 16
            y += 22
        return (f'<svg xmlns="http://www.w3.org/2000/svg" width="820" height="{y}" font-family="sans-serif" '
                f'font-size="11"><rect width="100%" height="100%" fill="white"/>{"".join(rows)}</svg>\n')
