#!/usr/bin/env python3
"""The benchmark's own sense: what it compares, what it takes for mounted, that it takes down what it put up. Nothing
is measured here and no time is looked at."""

import importlib.machinery
import importlib.util
import json
import os
import pathlib
import sys
import tempfile
import unittest
import xml.dom.minidom

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True
import contenders as c  # noqa: E402
import engine_alone  # noqa: E402
import plan as p  # noqa: E402
import report  # noqa: E402


def load_run():
    loader = importlib.machinery.SourceFileLoader("bench_run", os.path.join(HERE, "run"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("bench_run", loader))
    loader.exec_module(module)
    return module


run = load_run()


def sample(iops):
    return dict(iops=iops, mib_s=iops / 256, lat_us=1e6 / iops, server_us=1.0, fio_us=2.0, cpu_us=3.0, machine_us=4.0)


class Fake(c.Contender):
    """Notes what is done with it; fails where it is told to."""

    def __init__(self, name, fails_at=None):
        super().__init__(name)
        self.fails_at, self.diary = fails_at, []

    def start(self, work):
        self.diary.append("start")
        if self.fails_at == "start":
            raise c.Unavailable("no such thing here")
        path = os.path.join(work, self.name)
        with open(path, "wb") as out:
            out.write(b"x" * 4096)
        return path

    def prove(self, path):
        self.diary.append("prove")
        if self.fails_at == "prove":
            raise c.Unavailable("is not what it says")

    def stop(self):
        self.diary.append("stop")


class Proof(unittest.TestCase):
    MOUNTS = ("22 1 254:0 / / rw - ext4 /dev/vda rw\n"
              "40 22 0:40 / /tmp/b/mnt rw,nosuid shared:7 - fuse.mapperfs mapperfs rw\n"
              "41 22 0:41 / /tmp/b/my\\040mnt rw - fuse x rw\n"
              "42 40 0:42 / /tmp/b/twice rw - tmpfs x rw\n"
              "43 40 0:43 / /tmp/b/twice rw - fuse.mapperfs x rw\n")

    def test_a_mount_is_what_is_mounted_on_the_place_itself(self):
        self.assertEqual(c.mount_type("/tmp/b/mnt", self.MOUNTS), "fuse.mapperfs")
        self.assertEqual(c.mount_type("/tmp/b/my mnt", self.MOUNTS), "fuse")
        self.assertEqual(c.mount_type("/tmp/b/twice", self.MOUNTS), "fuse.mapperfs")
        self.assertIsNone(c.mount_type("/tmp/b", self.MOUNTS))
        self.assertIsNone(c.mount_type("/tmp/b/mnt/disk", self.MOUNTS))

    def test_this_machine_has_a_root_and_no_fuse_on_it(self):
        self.assertFalse(c.mounted_as("/", "fuse.mapperfs"))

    def test_the_transport_that_serves_is_the_one_asked_for(self):
        dev = "version: 0.1.0\ntransport: /dev/fuse\nmax_write: 1\n"
        c.check_transport("dev", dev)
        c.check_transport("auto", dev)
        c.check_transport("uring", dev.replace("/dev/fuse", "io_uring"))
        for asked, text in (("uring", dev), ("dev", "version: 1\n")):
            with self.assertRaises(c.Unavailable):
                c.check_transport(asked, text)

    def test_who_serves_is_who_was_wanted(self):
        c.check_served(True, "passthrough\n")
        c.check_served(False, "engine\n")
        for wanted, text in ((True, "engine; no passthrough: no root\n"), (False, "passthrough\n")):
            with self.assertRaises(c.Unavailable):
                c.check_served(wanted, text)

    def test_dev_fuse_is_put_back(self):
        with tempfile.NamedTemporaryFile() as node:
            for mode in (0o600, 0o620):
                os.chmod(node.name, mode)
                device = c.DevFuseForAll()
                device.path = node.name
                device.put_back()  # that was never opened
                device.open()
                self.assertEqual(os.stat(node.name).st_mode & 0o777, 0o666)
                device.put_back()
                self.assertEqual(os.stat(node.name).st_mode & 0o777, mode)

    def test_threads_are_known_by_their_names(self):
        with open("/proc/self/comm") as comm:
            self.assertIn(comm.read().strip(), c.thread_names(os.getpid()))

    def test_cpu_time_survives_odd_names(self):
        fields = " ".join(["S"] + ["1"] * 10 + ["300", "200"] + ["0"] * 20)
        self.assertEqual(c.cpu_of(f"7 (a ) b) {fields}"), 500 / c.TICKS)


class Plan(unittest.TestCase):
    def setUp(self):
        self.entries = p.line_up("/b", "/shm", "/disk", 1 << 31, ["dev", "uring"])

    def test_names_are_the_contenders_own(self):
        names = [entry.name for entry in self.entries]
        self.assertEqual(len(names), len(set(names)))

    def test_the_yardstick_may_have_as_much_under_way(self):
        by_name = {entry.name: entry.contender for entry in self.entries}
        for transport, depth in (("dev", 0), ("uring", p.RING_DEPTH)):
            yardstick, ours = by_name[f"yardstick, {transport}"], by_name[f"mapperfs ram, {transport}"]
            self.assertEqual(yardstick.background, p.BACKGROUND[transport])
            for options in (" ".join(yardstick.options), ours.options):
                self.assertEqual(f"io_uring_q_depth={depth}" in options, depth != 0, options)

    def test_every_goal_can_be_measured(self):
        for transports in (["dev"], ["dev", "uring"]):
            plan = p.choose(p.line_up("/b", "/shm", "/disk", 1 << 31, transports))
            for label, job, a, b, least in p.goals(transports):
                names = [racer.name for racer in plan[job]]
                for name in [a, b] if isinstance(a, str) else [*a, b]:
                    self.assertIn(name, names, label)
                self.assertGreater(least, 0)

    def test_every_device_is_served_by_every_transport_that_can(self):
        at = {entry.name: entry.jobs for entry in self.entries}
        for device in (*p.ENGINE_CASES, "loop on disk"):
            for transport in ("dev", "uring"):
                self.assertGreaterEqual(len(at[f"mapperfs {device}, {transport}"]), 3, device)
        for device in ("ram", "loop on tmpfs", "loop on disk"):  # the kernel takes whole files only
            self.assertIn(f"mapperfs {device}, passthrough", at)

    def test_tables_cover_whole_sectors_and_end_inside_their_files(self):
        for entry in self.entries:
            for line in getattr(entry.contender, "table", "").splitlines():
                words = line.split()
                if words[0] == "create" or words[3] != "loop":
                    continue
                self.assertLessEqual(int(words[2]) + int(words[5]), (1 << 31) >> 9, line)

    def test_words_choose(self):
        plan = p.choose(self.entries, ["sync", "1x16"], ["kernel", "ram, dev"])
        self.assertEqual(set(plan), {"randrw 4K sync", "randrw 4K 1x16"})
        self.assertEqual([r.name for r in plan["randrw 4K sync"]], [p.LOOP, p.LOOP + ", --direct-io", "mapperfs ram, dev", p.USER_RAM])
        self.assertEqual(p.choose(self.entries, ["no such job"]), {})

    def test_quick_is_under_two_minutes_by_plan(self):
        args = run.options(["--quick"])
        plan = p.choose(self.entries, quick=True)
        self.assertLess(p.expected_seconds(plan, args.rounds, args.seconds, args.size, True), 110)

    def test_five_rounds_are_three_quarters_of_an_hour_by_plan(self):
        self.assertLess(p.expected_seconds(p.choose(self.entries), 5, 1, 2 << 30, True), 45 * 60)

    def test_of_a_part_only_what_was_measured_is_said(self):
        plan = p.choose(self.entries, ["2x16"], ["qemu", "delay 0, dev"])
        (label, job, cases, against, _), *more = run.goals_of(plan, ["dev", "uring"], False, True)
        self.assertEqual((job, cases, against, more), ("randrw 4K 2x16", ("mapperfs delay 0, dev",), p.QSD, []))
        whole = run.goals_of(p.choose(self.entries), ["dev", "uring"], True, False)
        self.assertEqual(whole, p.goals(["dev", "uring"]) + engine_alone.goals())

    def test_the_list_names_whatever_is_run(self):
        plan = p.choose(self.entries, ["1x16"], ["qemu", "delay 0, dev"])
        self.assertEqual(run.listed(plan, False), f"randrw 4K 1x16\n  mapperfs delay 0, dev\n  {p.QSD}")
        with_engine = run.listed(plan, True).splitlines()
        for name in (engine_alone.JOB, *(f"  {case}" for case in engine_alone.WANTED), f"  {p.QSD}"):
            self.assertIn(name, with_engine)
        self.assertGreater(p.expected_seconds(plan, 1, 1, 0, True), p.expected_seconds(plan, 1, 1, 0, False))

    def test_fio_is_never_told_parts_of_seconds(self):
        for word in run.fio_argv("/x", "randrw 4K sync", 1 << 20, 0.7):
            if "time=" in word:
                self.assertRegex(word, r"=\d+ms$", "fio takes 0.7 for 0, and 0 for ever")


class Report(unittest.TestCase):
    def test_ratios_are_of_the_same_round(self):
        results = report.Results()
        for nr, (a, b) in enumerate([(200, 100), (20, 10), (90, 30)]):
            results.add("job", "a", nr, sample(a))
            results.add("job", "b", nr, sample(b))
        results.add("job", "a", 9, sample(1))  # the other failed in this round
        self.assertEqual(results.ratios("job", "a", "b"), [2.0, 2.0, 3.0])
        text = results.goals([("faster", "job", "a", "b", 2.0), ("much", "job", "a", "b", 2.5), ("no", "x", "a", "b", 1)])
        lines = text.splitlines()
        self.assertNotIn("missed", lines[1])
        self.assertIn("missed", lines[2])
        self.assertIn("rounds differ widely", lines[1])
        self.assertIn("not measured", lines[3])

    def test_of_several_the_least_is_shown_by_name(self):
        results = report.Results()
        for nr in (1, 2):
            for name, iops in (("a", 600), ("b", 450), ("c", 500), ("against", 100)):
                results.add("job", name, nr, sample(iops))
        goals = [("least of {count}, {least}", "job", ("a", "b", "c"), "against", 4.0)]
        self.assertRegex(results.goals(goals).splitlines()[1], r"^least of 3, b +4\.00 +4\.50 ")
        self.assertEqual(json.loads(results.json(goals, "a machine"))["goals"][0]["label"], "least of 3, b")

    def test_nothing_is_the_least_while_one_of_several_is_missing(self):
        results = report.Results()
        for name in ("a", "b", "against"):
            results.add("job", name, 1, sample(600))
        goals = [("least of {count}, {least}", "job", ("a", "b", "dropped out"), "against", 0.5),
                 ("least of {count}, {least}", "job", ("dropped out",), "against", 0.5)]
        lines = results.goals(goals).splitlines()
        self.assertRegex(lines[1], r"^least of 3, 2 measured +0\.50 +- +not measured$")
        self.assertRegex(lines[2], r"^least of 1, 0 measured .* not measured$")
        self.assertIsNone(json.loads(results.json(goals, "a machine"))["goals"][0]["reached"])

    def test_a_figure_is_held_against_what_is_wanted_of_it(self):
        results = report.Results()
        for nr, iops in enumerate((9e6, 12e6, 9.5e6)):
            results.add("engine", "linear", nr, sample(iops))
        text = results.goals([("fast", "engine", "linear", report.MILLIONS, 10.0),
                              ("slow", "engine", "linear", report.MILLIONS, 9.0),
                              ("none", "engine", "x", report.MILLIONS, 9.0)]).splitlines()
        self.assertRegex(text[1], r"^fast +10\.00 +9\.50 .*missed")
        self.assertNotIn("missed", text[2])
        self.assertIn("not measured", text[3])

    def test_figures_are_medians(self):
        results = report.Results()
        for nr, iops in enumerate((1000, 50000, 2000)):
            results.add("job", "a", nr, sample(iops))
        self.assertEqual(results.figure("job", "a"), 2000)
        self.assertIn("2.0", results.table().splitlines()[1])

    def test_json_and_svg_are_well_formed(self):
        results = report.Results()
        results.add("job <1>", "mapperfs & co", 1, sample(1000))
        results.notes.append("left out: \"x\"")
        read = json.loads(results.json([("g", "job <1>", "mapperfs & co", "b", 1.0)], "a machine"))
        self.assertEqual(read["samples"][0]["rounds"]["1"]["iops"], 1000)
        self.assertIsNone(read["goals"][0]["reached"])
        xml.dom.minidom.parseString(results.svg())

    def test_fio_output_becomes_one_sample(self):
        way = dict(total_ios=500, iops=1000.0, bw_bytes=1 << 20, clat_ns=dict(mean=2000.0))
        idle = dict(total_ios=0, iops=0.0, bw_bytes=0, clat_ns=dict(mean=0.0))
        cpu = dict(server_s=0.001, fio_s=0.002, machine_s=0.004)
        text = "a warning\n" + json.dumps({"jobs": [dict(error=0, read=way, write=way)]})
        got = report.sample_of_fio(text, cpu, 0.5)
        self.assertEqual((got["iops"], got["mib_s"], got["lat_us"], got["cpu_us"]), (2000.0, 2.0, 2.0, 1.5))
        for jobs in (dict(error=5, read=way, write=way), dict(error=0, read=idle, write=idle)):
            with self.assertRaises(ValueError):
                report.sample_of_fio(json.dumps({"jobs": [jobs]}), cpu, 1.0)


class EngineAlone(unittest.TestCase):
    @staticmethod
    def text(allocations=0, names=tuple(engine_alone.WANTED)):
        return json.dumps({"cases": [dict(name=name, ns_per_bio=100, bios_per_s=1e7, allocations_per_bio=allocations)
                                     for name in names]})

    def test_its_cases_become_samples(self):
        samples = engine_alone.samples_of(self.text())
        self.assertEqual(set(samples), set(engine_alone.WANTED))
        for one in samples.values():
            self.assertEqual((one["iops"], one["server_us"], one["cpu_us"]), (1e7, 0.1, 0.1))

    def test_what_allocates_or_is_not_there_is_no_figure(self):
        for text in (self.text(allocations=1e-4), self.text(names=("linear over an instant device",))):
            with self.assertRaises(ValueError):
                engine_alone.samples_of(text)


class Measure(unittest.TestCase):
    def setUp(self):
        self.work = tempfile.TemporaryDirectory()
        self.addCleanup(self.work.cleanup)
        self.results, self.said = report.Results(), []

    def measure(self, plan, measure_one, rounds=2):
        run.measure(plan, rounds, self.work.name, measure_one, self.results, self.said.append)

    def test_contenders_take_turns_and_are_ended_each_time(self):
        a, b = Fake("a"), Fake("b")
        seen = []
        self.measure({"j1": [a, b], "j2": [a]}, lambda racer, path, job: seen.append((job, racer.name)) or sample(1))
        self.assertEqual(seen, [("j1", "a"), ("j1", "b"), ("j2", "a")] * 2)
        self.assertEqual(b.diary, ["start", "prove", "stop"] * 2)

    def test_who_fails_is_named_and_left_out(self):
        for fails_at in ("start", "prove"):
            bad, good = Fake("bad", fails_at), Fake("good")
            self.measure({"j": [bad, good]}, lambda *_: sample(1))
            self.assertEqual(bad.diary.count("start"), 1)
            self.assertEqual(bad.diary[-1], "stop")
            self.assertEqual(len(self.results.samples[("j", "good")]), 2)
        self.assertEqual(len(self.results.notes), 2)
        self.assertIn("is not what it says", self.results.notes[1])

    def test_the_engine_alone_is_measured_each_round_until_it_fails(self):
        calls = []

        def engine():
            calls.append(1)
            if len(calls) == 3:
                raise ValueError("allocates")
            return {"linear": sample(1)}

        run.measure({}, 4, self.work.name, None, self.results, self.said.append, engine)
        self.assertEqual(len(calls), 3)
        self.assertEqual(set(self.results.samples[(engine_alone.JOB, "linear")]), {1, 2})
        self.assertEqual(self.results.notes, [f"{engine_alone.JOB}: allocates"])

    def test_ctrl_c_ends_what_runs_and_keeps_what_was_measured(self):
        a, b = Fake("a"), Fake("b")

        def measure_one(racer, path, job):
            if racer is b:
                raise KeyboardInterrupt
            return sample(1)

        with self.assertRaises(KeyboardInterrupt):
            self.measure({"j": [a, b]}, measure_one)
        self.assertEqual(b.diary, ["start", "prove", "stop"])
        self.assertIn(("j", "a"), self.results.samples)

    def test_memory_is_filled_before_it_is_measured(self):
        a = Fake("a")
        a.fill = True
        seen = []
        self.measure({"j": [a]}, lambda racer, path, job: seen.append(pathlib.Path(path).read_bytes()) or sample(1),
                     1)
        self.assertEqual(len(seen[0]), 4096)
        self.assertNotEqual(seen[0], b"x" * 4096)


if __name__ == "__main__":
    unittest.main()
