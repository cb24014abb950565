"""The agent under deploy/seccomp/nodens.json: io_uring where it is allowed, epoll with a reason where it is not, and nothing that it should not have."""

import ctypes.util
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

from support import ROOT, free_port, program, skip

PROFILE = ROOT / "deploy/seccomp/nodens.json"
LAUNCHER = Path(__file__).with_name("under_seccomp.py")
# `example.org. A` with the ID 0x1234.
QUERY = bytes.fromhex("123401000001000000000000076578616d706c65036f72670000010001")
PATIENCE_S = 60


class Profile(unittest.TestCase):
    def setUp(self):
        if not ctypes.util.find_library("seccomp"):
            skip(self, "there is no libseccomp")
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def profile(self, without=()):
        data = json.loads(PROFILE.read_text())
        data["syscalls"] = [rule for rule in data["syscalls"] if not set(without) & set(rule["names"])]
        path = Path(self.folder.name) / "profile.json"
        path.write_text(json.dumps(data))
        return path

    def serve(self, profile):
        """The agent's log once it has answered a query over UDP."""
        port, http = free_port(), free_port()
        corefile = Path(self.folder.name) / "Corefile"
        # Nobody is asked: the zone has no upstream that answers, and SERVFAIL is an answer.
        # The agent gives root up before it reads.
        os.chmod(self.folder.name, 0o755)
        corefile.write_text(f".:{port} {{\n    bind 127.0.0.1\n    cache 30\n    forward . 127.0.0.1:{free_port()}\n    health 127.0.0.1:{http}\n}}\n")
        agent = subprocess.Popen([sys.executable, LAUNCHER, profile, program(self, "NODENS_BIN", "nodens"), "-conf", corefile],
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(1)
                end = time.monotonic() + PATIENCE_S
                while True:
                    try:
                        client.sendto(QUERY, ("127.0.0.1", port))
                        answer = client.recv(512)
                        break
                    except OSError:
                        if agent.poll() is not None or time.monotonic() > end:
                            raise AssertionError(f"no answer: {agent.communicate()[0] if agent.poll() is not None else 'timed out'}")
        finally:
            agent.terminate()
            log = agent.communicate(timeout=PATIENCE_S)[0]
        self.assertEqual(answer[:2], QUERY[:2])
        self.assertEqual(agent.returncode, 0, log)
        return log

    def test_io_uring_is_allowed(self):
        log = self.serve(self.profile())
        if "io_uring_disabled" in log or "kernel" in log.lower():
            skip(self, f"this kernel has no io_uring to allow: {log}", unobtainable=True)
        self.assertIn("runtime uring", log)

    def test_without_it_the_agent_serves_on_epoll_and_names_seccomp(self):
        log = self.serve(self.profile(without=["io_uring_setup"]))
        self.assertIn("runtime tokio", log)
        self.assertIn("seccomp", log.lower())

    def test_what_an_agent_never_needs_is_refused(self):
        tries = {
            "unshare": "import ctypes; c=ctypes.CDLL(None, use_errno=True); sys.exit(0 if c.unshare(0x20000) == -1 and ctypes.get_errno() == 1 else 1)",
            "mount": "import ctypes; c=ctypes.CDLL(None, use_errno=True); sys.exit(0 if c.mount(b'none', b'/mnt', b'tmpfs', 0, None) == -1 and ctypes.get_errno() == 1 else 1)",
            "ptrace": "import ctypes; c=ctypes.CDLL(None, use_errno=True); sys.exit(0 if c.ptrace(0, 0, 0, 0) == -1 and ctypes.get_errno() == 1 else 1)",
            "another socket family": "import socket, errno\ntry:\n    socket.socket(40, socket.SOCK_STREAM)\nexcept OSError as e:\n    sys.exit(0 if e.errno == errno.EPERM else 1)\nsys.exit(1)",
        }
        for what, code in tries.items():
            with self.subTest(what):
                done = subprocess.run([sys.executable, LAUNCHER, self.profile(), sys.executable, "-c", f"import sys\n{code}"], capture_output=True, text=True)
                self.assertEqual(done.returncode, 0, done.stderr)

    def test_the_profile_names_nothing_dangerous_and_nothing_twice(self):
        data = json.loads(PROFILE.read_text())
        names = [name for rule in data["syscalls"] if not rule.get("args") for name in rule["names"]]
        self.assertEqual(len(names), len(set(names)))
        for name in ("mount", "umount2", "unshare", "setns", "ptrace", "bpf", "init_module", "finit_module", "keyctl", "add_key", "perf_event_open", "kexec_load",
                     "process_vm_writev", "reboot", "userfaultfd", "pivot_root", "chroot", "mknod", "mknodat", "swapon", "clone", "socket"):
            self.assertNotIn(name, names)
        self.assertEqual((data["defaultAction"], data["defaultErrnoRet"]), ("SCMP_ACT_ERRNO", 1))


if __name__ == "__main__":
    unittest.main()
