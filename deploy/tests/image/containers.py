"""Containers of our images as a kubelet has them run: what a Pod's container says becomes an OCI bundle, and crun runs that.

crun is a container runtime's lower half: namespaces, capabilities, the seccomp filter, read-only paths and mounts are the kernel's own. What is not
here is the kubelet, containerd, and cgroups (crun is told to leave them alone). Where the kernel or the machine does not let crun run, tests that
need it are skipped, aloud.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from image_layout import Image  # noqa: E402
from support import ROOT, skip  # noqa: E402

PATIENCE_S = 60
# Of a container without any, in all runtimes.
DEFAULT_CAPABILITIES = "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE".split()
# In the kernel's order (linux/capability.h), which is that of the bits in /proc.
ALL_CAPABILITIES = """CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK
    IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL
    SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ""".split()
# crun 1.8 refuses machines with both kinds of cgroups, though it is told to use none: it gets to see the newer kind alone.
CGROUPS = 'if [ ! -f /sys/fs/cgroup/cgroup.controllers ]; then umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup; fi; exec "$@"'


def seccomp_profile(io_uring):
    """deploy/seccomp/nodens.json, with io_uring or, as the profiles that container runtimes come with, without."""
    profile = json.loads((ROOT / "deploy/seccomp/nodens.json").read_text())
    if not io_uring:
        profile["syscalls"] = [rule for rule in profile["syscalls"] if "io_uring_setup" not in rule["names"]]
    for rule in profile["syscalls"]:
        for argument in rule.get("args", []):
            argument.setdefault("valueTwo", 0)
    return profile


def built(test, name="nodens"):
    """The image that `make image` has made, or another one that the environment names."""
    folder = Path(os.environ.get("NODENS_IMAGE") or Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "image")
    if not (folder / f"{name}.oci").is_dir():
        skip(test, f"there is no image in {folder} (`make image`)", unobtainable=True)
    return Image(folder, name)


def needs(test, *programs):
    if os.geteuid() != 0:
        skip(test, "containers and network namespaces are made as root", unobtainable=True)
    for name in programs:
        if not shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"):
            skip(test, f"{name} cannot be installed here (`make tools` tries to)", unobtainable=True)


def bundle(rootfs, image, spec, *, seccomp, network, mounts=(), environment=()):
    """The runtime's configuration for a container of a Pod (`spec`). `mounts`: (source, destination, read-only); source None: a tmpfs.
    Paths that do not begin with a slash are the bundle's."""
    context = spec.get("securityContext", {})
    capabilities = context.get("capabilities", {})
    if context.get("privileged"):
        kept = ALL_CAPABILITIES
    else:
        kept = [c for c in DEFAULT_CAPABILITIES if "ALL" not in capabilities.get("drop", [])] + capabilities.get("add", [])
    own = int(re.search(r"CapBnd:\s*(\w+)", Path("/proc/self/status").read_text())[1], 16)
    # Some machines do not have all of them themselves.
    kept = [f"CAP_{c}" for c in kept if own >> ALL_CAPABILITIES.index(c) & 1]
    user = context.get("runAsUser", 0)
    of_user = kept if user == 0 else []
    mount = lambda destination, kind, source, *options: {"destination": destination, "type": kind, "source": source, "options": list(options)}
    own = [mount("/proc", "proc", "proc"), mount("/dev", "tmpfs", "tmpfs", "nosuid", "mode=755"), mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", "ro")]
    for source, destination, read_only in mounts:
        if source is None:
            own.append(mount(destination, "tmpfs", "tmpfs", "mode=0777"))
        else:
            own.append(mount(destination, "none", str(source), "rbind", "ro" if read_only else "rw"))
    linux = {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "mount")] + [{"type": "network", "path": str(network)}]}
    if not context.get("privileged"):
        linux |= {"seccomp": seccomp, "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
                  "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]}
    return {
        "ociVersion": "1.0.2",
        "root": {"path": str(rootfs), "readonly": context.get("readOnlyRootFilesystem", False)},
        "process": {
            "user": {"uid": user, "gid": context.get("runAsGroup", 0)},
            "args": (spec.get("command") or image.config["config"]["Entrypoint"]) + spec.get("args", []),
            "env": image.config["config"]["Env"] + [f"{name}={value}" for name, value in dict(environment).items()],
            "cwd": image.config["config"]["WorkingDir"],
            "noNewPrivileges": context.get("allowPrivilegeEscalation") is False,
            "capabilities": {"bounding": kept, "effective": of_user, "permitted": of_user},
        },
        "mounts": own,
        "linux": linux,
    }


class Container:
    """One that runs, until `end` or `kill`."""

    def __init__(self, test, folder, name, configuration):
        self.test, self.name, self.folder = test, name, Path(folder) / name
        self.folder.mkdir(exist_ok=True)
        (self.folder / "config.json").write_text(json.dumps(configuration))
        self.log = self.folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(self.crun("run", "--bundle", self.folder, name), stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        test.addCleanup(self.kill)

    def crun(self, command, *words):
        runtime = ["crun", f"--root={self.folder}/state", "--cgroup-manager=disabled", command, *map(str, words)]
        return ["unshare", "-m", "sh", "-c", CGROUPS, "sh", *runtime]

    def text(self):
        return self.log.read_text()

    def wait_for(self, text):
        """The first line with this text."""
        end = time.monotonic() + PATIENCE_S
        while True:
            ended = self.process.poll() is not None
            for line in self.text().splitlines():
                if text in line:
                    return line
            if ended or time.monotonic() > end:
                raise AssertionError(f"{self.name} {'ended' if ended else 'runs'}, and did not say {text!r}: {self.text()}")
            time.sleep(0.02)

    def signal(self, number):
        subprocess.run(self.crun("kill", self.name, signal.Signals(number).name.removeprefix("SIG")), capture_output=True, timeout=PATIENCE_S)

    def end(self):
        """SIGTERM, as the kubelet says it; its exit code."""
        self.signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def kill(self):
        if self.process.poll() is None:
            self.signal(signal.SIGKILL)
            self.process.wait(PATIENCE_S)


def once(rootfs, *arguments, stdin=None):
    """What a program of the image prints: no runtime, only its root. For programs that need nothing else."""
    chroot = shutil.which("chroot", path="/usr/sbin:/usr/bin:/sbin:/bin")
    done = subprocess.run([chroot, rootfs, *arguments], capture_output=True, text=True, input=stdin, timeout=PATIENCE_S, env={})
    assert done.returncode == 0, f"{arguments}: {done.returncode} {done.stdout}{done.stderr}"
    return done.stdout


def check_runtime(test, folder, rootfs, image):
    """Skips, aloud, where crun cannot run the image's simplest command."""
    needs(test, "crun", "unshare", "ip")
    spec = {"command": ["/nodens"], "args": ["-version"], "securityContext": {"readOnlyRootFilesystem": True}}
    configuration = bundle(rootfs, image, spec, seccomp=seccomp_profile(False), network="/proc/self/ns/net")
    container = Container(test, folder, "check", configuration)
    code, said = container.process.wait(PATIENCE_S), container.text()
    shutil.rmtree(container.folder)
    if code:
        skip(test, f"crun cannot run a container on this machine: {said}", unobtainable=True)


__all__ = ["Container", "Image", "PATIENCE_S", "ROOT", "built", "bundle", "check_runtime", "needs", "once", "seccomp_profile", "skip", "unittest"]
