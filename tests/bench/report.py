"""What the benchmark found: printed as it comes, kept for JSON and Markdown.

In come sections, figures, checks and promises; out go a table of 80 columns on stdout, one JSON
document and one section for docs/benchmarks.md. A figure is the median of its rounds; its spread
is how far the rounds lie from it.

SPDX-License-Identifier: MIT
"""

import datetime
import json
import os
import platform
import re
import statistics
import subprocess

WIDTH = 80
BUSY_LOAD = 1.0      # load average above which something else uses the machine


def command_line(*command):
    """First line that a command prints, or 'unknown'."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
        return (done.stdout or done.stderr).strip().splitlines()[0]
    except (OSError, IndexError, subprocess.TimeoutExpired):
        return "unknown"


def machine():
    """The machine and the software that the figures depend on."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = re.search(r"model name\s*: (.*)", file.read())
    with open("/proc/meminfo", encoding="utf-8") as file:
        memory_kb = int(re.search(r"MemTotal:\s*(\d+)", file.read()).group(1))
    with open("/etc/os-release", encoding="utf-8") as file:
        system = re.search(r'PRETTY_NAME="(.*)"', file.read())
    return {
        "cpu": model.group(1) if model else platform.machine(),
        "cores": os.cpu_count(),
        "memoryGb": round(memory_kb / 1e6),
        "system": system.group(1) if system else "unknown",
        "kernel": platform.release(),
        "postgres": command_line("pg_config", "--version"),
        "libevent": command_line("pkg-config", "--modversion", "libevent"),
        "wrk": " ".join(command_line("wrk", "-v").split()[:2]),
        "loadAtStart": os.getloadavg()[0],
    }


def number(value, digits=None):
    """1234567 -> 1,234,567; small figures keep three significant digits."""
    if value is None:
        return "-"
    if digits is not None:
        return f"{value:,.{digits}f}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 1 else f"{value:.1f}"


def median(values):
    return statistics.median(values)


class Report:
    """Collects and prints. Every add_* both prints and keeps."""

    def __init__(self, quick):
        self.started = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
        self.quick = quick
        self.machine = machine()
        self.sections = []
        self.checks = []
        self.promises = []
        self._print_machine()

    def _print_machine(self):
        m = self.machine
        print("SeatGrid benchmark", self.started.isoformat(), "(quick)" if self.quick else "")
        print(f"  {m['cpu']}, {m['cores']} cores, {m['memoryGb']} GB, kernel {m['kernel']}")
        print(f"  {m['system']}, {m['postgres']}")
        print(f"  libevent {m['libevent']}, {m['wrk']}, load {m['loadAtStart']:.2f} at start")
        print("  servers and load generators share the cores", flush=True)
        if m["loadAtStart"] > BUSY_LOAD:
            print("  THE MACHINE IS BUSY with something else: trust no absolute figure")

    def section(self, name, title):
        self.sections.append({"name": name, "title": title, "figures": [], "notes": []})
        print(f"\n{title}")
        print(f"  {'':<30}{'median':>9}{'spread':>8}{'p50 ms':>8}{'p99 ms':>8}  beside", flush=True)

    def figure(self, name, rounds, unit="/s", baseline=None, ratio=None, extra=None):
        """rounds: dicts with rate and perhaps p50, p99 (ms); the median rate's round is shown."""
        rates = [r["rate"] for r in rounds]
        middle = median(rates)
        spread = max(abs(rate - middle) for rate in rates) / middle if middle else 0
        entry = {"name": name, "value": middle, "unit": unit, "rounds": rates,
                 "spread": round(spread, 4)}
        for key in ("p50", "p95", "p99", "p99.9"):
            values = [r[key] for r in rounds if r.get(key) is not None]
            if values:
                entry[key] = median(values)
        if baseline:
            entry["baseline"] = baseline
            entry["ratio"] = ratio
        entry.update(extra or {})
        self.sections[-1]["figures"].append(entry)
        beside = f"{number(ratio, 2)} x {baseline}" if baseline and ratio is not None else \
            baseline or ""
        width = f"±{spread * 100:.0f} %" if len(rates) > 1 else ""
        shown = number(middle) + ("" if "/s" in unit else " " + unit)
        print(f"  {name:<30}{shown:>9}{width:>8}{number(entry.get('p50')):>8}"
              f"{number(entry.get('p99')):>8}  {beside}", flush=True)
        return entry

    def note(self, text):
        """A line below the figures of the section, wrapped."""
        self.sections[-1]["notes"].append(text)
        line = "   "
        for word in text.split():
            if len(line) + 1 + len(word) > WIDTH:
                print(line)
                line = "   "
            line += " " + word
        print(line, flush=True)

    def check(self, what, good, detail=""):
        self.checks.append({"what": what, "ok": bool(good), "detail": detail})
        self.note(f"{'ok  ' if good else 'FAILED'} {what}{': ' + detail if detail else ''}")
        return good

    def promise(self, promise, target, measured, reached):
        """reached: True, False, or None when this run could not tell."""
        self.promises.append({"promise": promise, "target": target, "measured": measured,
                              "reached": reached})

    def print_promises(self):
        if not self.promises:
            return
        print("\nPromises of docs/ARCHITECTURE.md")
        for p in self.promises:
            word = {True: "reached", False: "NOT REACHED", None: "cannot tell"}[p["reached"]]
            print(f"  {p['promise']}: {p['target']}")
            print(f"      {p['measured']}: {word}", flush=True)

    def failed(self):
        return [check for check in self.checks if not check["ok"]]

    def as_dict(self):
        return {"date": self.started.isoformat(), "quick": self.quick, "machine": self.machine,
                "sections": self.sections, "checks": self.checks, "promises": self.promises}

    def write_json(self, path):
        with open(path, "w", encoding="utf-8") as file:
            json.dump(self.as_dict(), file, indent=1, ensure_ascii=False)
            file.write("\n")

    def markdown(self):
        m = self.machine
        lines = [f"## {self.started.date()}, {m['cpu']}, {m['cores']} cores", "",
                 f"{m['system']}, kernel {m['kernel']}, {m['memoryGb']} GB, {m['postgres']}, "
                 f"libevent {m['libevent']}, {m['wrk']}; load {m['loadAtStart']:.2f} at start. "
                 "Servers and load generators share the cores."
                 + (" **The machine was busy with something else.**"
                    if m["loadAtStart"] > BUSY_LOAD else ""), ""]
        if self.promises:
            lines += ["| promise | target | measured | |", "|---|---|---|---|"]
            words = {True: "reached", False: "**not reached**", None: "cannot tell"}
            lines += [f"| {p['promise']} | {p['target']} | {p['measured']} | "
                      f"{words[p['reached']]} |" for p in self.promises]
            lines.append("")
        for section in self.sections:
            lines += self._markdown_section(section)
        return "\n".join(lines)

    @staticmethod
    def _markdown_section(section):
        lines = [f"### {section['title']}", "",
                 "| | median | spread | p50 ms | p99 ms | beside |",
                 "|---|---:|---:|---:|---:|---|"]
        for f in section["figures"]:
            spread = f"±{f['spread'] * 100:.0f} %" if len(f["rounds"]) > 1 else ""
            beside = f.get("baseline", "")
            if f.get("ratio") is not None:
                beside = f"{number(f['ratio'], 2)} x {beside}"
            lines.append(f"| {f['name']} | {number(f['value'])} {f['unit']} | {spread} | "
                         f"{number(f.get('p50'))} | {number(f.get('p99'))} | {beside} |")
        lines.append("")
        lines += [f"- {' '.join(note.split())}" for note in section["notes"]]
        return lines + [""] if section["notes"] else lines
