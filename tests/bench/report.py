"""What the benchmark prints: a table of medians, the ratios asked for, JSON, and bars as SVG."""

import html
import json
import statistics


def median(values):
    return statistics.median(values) if values else float("nan")


def spread(values):
    """Half the distance between the extremes, in percent of the median."""
    middle = median(values)
    return 100 * (max(values) - min(values)) / 2 / middle if values and middle else 0.0


class Results:
    """samples[(job, contender)] is a list of dicts: iops, mib_s, lat_us, cpu_us."""

    def __init__(self):
        self.samples = {}
        self.notes = []

    def add(self, job, contender, sample):
        self.samples.setdefault((job, contender), []).append(sample)

    def figure(self, job, contender, key="iops"):
        return median([s[key] for s in self.samples.get((job, contender), [])])

    def ratio(self, job, a, b):
        """Median of the ratios within each round: what two contenders did minutes apart is not compared."""
        pairs = zip(self.samples.get((job, a), []), self.samples.get((job, b), []))
        return median([x["iops"] / y["iops"] for x, y in pairs if y["iops"]])

    def table(self):
        lines = [f"{'job':<22}{'contender':<34}{'kIOPS':>9}{'±%':>5}{'MiB/s':>9}{'lat µs':>10}{'CPU µs/IO':>11}"]
        for (job, contender), samples in self.samples.items():
            lines.append(
                f"{job:<22}{contender:<34}{self.figure(job, contender) / 1000:>9.1f}"
                f"{spread([s['iops'] for s in samples]):>5.0f}{self.figure(job, contender, 'mib_s'):>9.0f}"
                f"{self.figure(job, contender, 'lat_us'):>10.1f}{self.figure(job, contender, 'cpu_us'):>11.2f}")
        return "\n".join(lines)

    def goals(self, goals):
        """goals: (label, job, a, b, at least). One line each, with what was reached."""
        lines = [f"{'goal':<72}{'at least':>9}{'reached':>9}"]
        for label, job, a, b, least in goals:
            if (job, a) not in self.samples or (job, b) not in self.samples:
                lines.append(f"{label:<72}{least:>9.2f}{'-':>9}  not measured")
                continue
            reached = self.ratio(job, a, b)
            lines.append(f"{label:<72}{least:>9.2f}{reached:>9.2f}{'' if reached >= least else '  missed'}")
        return "\n".join(lines)

    def json(self, goals, machine):
        return json.dumps({
            "machine": machine,
            "notes": self.notes,
            "samples": [{"job": j, "contender": c, "rounds": s} for (j, c), s in self.samples.items()],
            "goals": [{"label": label, "job": job, "a": a, "b": b, "at_least": least,
                       "reached": self.ratio(job, a, b) if (job, a) in self.samples and
                       (job, b) in self.samples else None} for label, job, a, b, least in goals],
        }, indent=1)

    def svg(self):
        """A bar per contender and job, longest of each job full width."""
        rows, y = [], 20
        jobs = list(dict.fromkeys(job for job, _ in self.samples))
        for job in jobs:
            rows.append(f'<text x="10" y="{y}" font-weight="bold">{html.escape(job)} (kIOPS)</text>')
            y += 8
            figures = [(c, self.figure(j, c)) for j, c in self.samples if j == job]
            most = max(f for _, f in figures) or 1
            for contender, figure in figures:
                rows.append(f'<rect x="260" y="{y}" width="{480 * figure / most:.0f}" height="12" '
                            f'fill="{"#2b6cb0" if contender.startswith("mapperfs") else "#a0aec0"}"/>'
                            f'<text x="10" y="{y + 10}">{html.escape(contender)}</text>'
                            f'<text x="{266 + 480 * figure / most:.0f}" y="{y + 10}">{figure / 1000:.1f}</text>')
                y += 16
            y += 22
        return (f'<svg xmlns="http://www.w3.org/2000/svg" width="820" height="{y}" font-family="sans-serif" '
                f'font-size="11"><rect width="100%" height="100%" fill="white"/>{"".join(rows)}</svg>\n')
