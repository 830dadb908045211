"""The engine by itself among the other rows: engine_bench's figures as samples of one more job."""

import json
import os
import subprocess

import contenders as c
import report

JOB = "engine alone"
BLOCK = 4096
# Enough for a round: each case then takes some tens of milliseconds.
BIOS = 500000
# engine_bench's name of a case: the bios per second that are wanted of it.
WANTED = {
    "linear over an instant device": 10e6,
    "ram 16 MiB, random read": 4e6,
    "ram 16 MiB, random write": 4e6,
    "linear over ram, random read": 4e6,
    "linear over ram, random write": 4e6,
}


def samples_of(text):
    """{case: sample} of engine_bench's JSON; raises ValueError where a bio allocated memory, or a case is missing."""
    cases = {case["name"]: case for case in json.loads(text)["cases"]}
    found = {}
    for name in WANTED:
        if name not in cases:
            raise ValueError(f"engine_bench has no case '{name}'")
        if cases[name]["allocations_per_bio"] > 0:
            raise ValueError(f"{name}: {cases[name]['allocations_per_bio']} allocations a bio")
        bios_per_s, us = cases[name]["bios_per_s"], cases[name]["ns_per_bio"] / 1000
        found[name] = dict(iops=bios_per_s, mib_s=bios_per_s * BLOCK / c.MIB, lat_us=us, server_us=us, fio_us=0.0,
                           cpu_us=us, machine_us=us)
    return found


def run(build):
    """One round of it: {case: sample}."""
    binary = os.path.join(build, "tests", "bench", "engine_bench")
    if not os.path.exists(binary):
        raise c.Unavailable(f"{binary} is not built")
    return samples_of(c.run(binary, "--json", "--rounds", "1", "--bios", str(BIOS)))


def goals():
    """As plan.goals(), of a figure rather than of a ratio: in millions of bios a second."""
    return [(f"{JOB}, M bios/s: {name}", JOB, name, report.MILLIONS, least / 1e6) for name, least in WANTED.items()]
