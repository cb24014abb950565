"""Runs a page's marked blocks in their order, as a reader would who has a clone, the built programs and no cluster.

The machine is a network namespace with nothing but the loopback, a resolv.conf of its own and an empty home. The folder holds links to the
clone's files, and what the page has written there. Two programs are stand-ins:

* `cargo` builds nothing: `cargo run` and `target/release` are the debug programs that the other tests use, whatever the page says of `--release`.
* `helm` renders with the real engine (helm_stand_in.py); there is no package with Helm's own program.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pages import blocks, shown
from support import ROOT, program, skip

PATIENCE_S = 60
PROGRAMS = {"nodens": "NODENS_BIN", "nodens-admission": "NODENS_ADMISSION_BIN", "nodens-sim": "NODENS_SIM_BIN"}
# Debian's, which .ci/tools installs.
TOOLS = ("dig", "ip", "kubectl", "nft")
# What other shells of this machine know about clusters must not be known here.
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
CARGO = """#!/bin/sh
# cargo build … or cargo run [-p PROGRAM] … -- ARGUMENTS, without compiling anything.
action=$1 program=nodens
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  [ "$1" != -p ] || program=$2
  shift
done
[ $# -eq 0 ] || shift
case $action in
  build) command -v "$program" >/dev/null ;;
  run) exec "$program" "$@" ;;
  *) echo "there is no stand-in for cargo $action" >&2; exit 1 ;;
esac
"""


class Machine:
    """For one page."""

    def __init__(self, test):
        self.test, self.started = test, []
        self.folder = Path(tempfile.mkdtemp(prefix="nodens-page-"))
        test.addCleanup(shutil.rmtree, self.folder)
        # The agent gives root up, and has to find its Corefile still.
        self.folder.chmod(0o755)
        for path in ROOT.iterdir():
            if path.name not in ("target", ".git"):
                (self.folder / path.name).symlink_to(path)
        self.stand_ins()
        resolv = self.folder / ".resolv.conf"
        resolv.write_text("nameserver 192.0.2.53\n")
        script = 'ip link set lo up && mount --bind "$1" /etc/resolv.conf && echo made && exec sleep infinity'
        self.holder = subprocess.Popen(["unshare", "--net", "--mount", "sh", "-c", script, "sh", resolv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        test.addCleanup(self.end)
        if (said := self.holder.stdout.readline()) != "made\n":
            skip(test, f"no namespaces can be made here ({said.strip()})")

    def stand_ins(self):
        bin, release = self.folder / ".bin", self.folder / "target/release"
        bin.mkdir()
        release.mkdir(parents=True)
        for name, variable in PROGRAMS.items():
            if path := os.environ.get(variable) or shutil.which(name):
                (bin / name).symlink_to(path)
                (release / name).symlink_to(path)
        helm = f"#!/bin/sh\nexec {sys.executable} -B {ROOT}/deploy/tests/helm_stand_in.py \"$@\"\n"
        for name, script in (("cargo", CARGO), ("helm", helm)):
            (bin / name).write_text(script)
            (bin / name).chmod(0o755)

    def inside(self, command, output):
        """A shell's command in the namespaces and the folder."""
        enter = ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net", f"--mount=/proc/{self.holder.pid}/ns/mnt"]
        environment = ENVIRONMENT | {"PATH": f"{self.folder}/.bin:{ENVIRONMENT['PATH']}", "HOME": str(self.folder)}
        return subprocess.Popen([*enter, "bash", "-c", f"cd {self.folder} && {command}"], stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environment, start_new_session=True)

    def run(self, block, command, lines):
        """A command that ends, and well."""
        said = self.folder / ".said"
        with said.open("w") as output:
            process = self.inside(command, output)
            try:
                status = process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                status = f"nothing after {PATIENCE_S} s"
        words = said.read_text(errors="replace")
        self.test.assertEqual(status, 0, f"{block}: `{command}` ended with {status}: {words}")
        if lines:
            self.test.assertTrue(shown(lines, words), f"{block}: `{command}` is shown as\n" + "\n".join(lines) + f"\nand said\n{words}")

    def start(self, block, command, lines):
        """A command that goes on; returns when it has said what is shown."""
        self.test.assertTrue(lines, f"{block}: what is started has to show a line by which one sees that it is there")
        said = self.folder / f".said-{len(self.started)}"
        with said.open("w") as output:
            process = self.inside(command, output)
        self.started.append((block, command, process, said))
        end = time.monotonic() + PATIENCE_S
        while not shown(lines, said.read_text(errors="replace"), so_far=True):
            there = process.poll() is None and time.monotonic() < end
            self.test.assertTrue(there, f"{block}: `{command}` is shown as\n" + "\n".join(lines) + f"\nand said, up to its end or for {PATIENCE_S} s\n{said.read_text()}")
            time.sleep(0.05)

    def page(self, page, content=None):
        """All of a page; the number of its blocks that were run."""
        count = 0
        for block in blocks(page, content):
            for mark in block.marks:
                if mark.startswith("file="):
                    path = self.folder / mark.removeprefix("file=")
                    path.parent.mkdir(exist_ok=True)
                    path.write_text(block.text)
            if not {"run", "start"} & set(block.marks):
                continue
            commands = block.commands()
            last = commands.pop() if "start" in block.marks else None
            for command, lines in commands:
                self.run(block, command, lines)
            if last:
                self.start(block, *last)
            count += 1
        self.stop()
        return count

    def stop(self):
        """Ctrl-C for all that goes on; who is first started ends last. Each has to end well."""
        while self.started:
            block, command, process, said = self.started.pop()
            self.test.assertIsNone(process.poll(), f"{block}: `{command}` had ended: {said.read_text()}")
            os.killpg(process.pid, signal.SIGINT)
            self.test.assertEqual(process.wait(PATIENCE_S), 0, f"{block}: `{command}` after Ctrl-C: {said.read_text()}")

    def end(self):
        for _, _, process, _ in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.holder.kill()
        self.holder.wait()
        self.holder.stdout.close()


def need(test, page):
    """Skips, aloud, where a program is missing that the page's commands are about."""
    words = {word for block in blocks(page) if block.marks for command, _ in (block.commands() if block.language == "console" else ()) for word in command.split()}
    for name, variable in PROGRAMS.items():
        if name in words or f"target/release/{name}" in words or "cargo" in words and name in ("nodens", *words):
            program(test, variable, name)
    for name in TOOLS:
        if name in words:
            program(test, name.upper(), name)
