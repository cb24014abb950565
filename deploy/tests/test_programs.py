"""The built programs take what the chart writes for them: Corefile, flags, and the policy's expressions."""

import json
import re
import subprocess
import tempfile
import unittest

from support import MATRIX, ROOT, container, find, helm, program
import generate


def agent(test):
    return program(test, "NODENS_BIN", "nodens")


def admission(test):
    return program(test, "NODENS_ADMISSION_BIN", "nodens-admission")


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def corefile(values):
    """As the agent fills it in."""
    text = find(helm.documents(values), "ConfigMap", "node-local-dns")["data"]["Corefile"]
    local = " ".join(helm.merge(helm.defaults(), values)["nodelocaldns"]["local_ips"])
    return text.replace("__PILLAR__CLUSTER__DNS__", "10.96.0.20").replace("__PILLAR__LOCAL__DNS__", local)


def check(test, text):
    with tempfile.NamedTemporaryFile("w", suffix=".Corefile") as file:
        file.write(text)
        file.flush()
        return run(agent(test), "check", file.name)


class Agent(unittest.TestCase):
    def setUp(self):
        agent(self)

    def test_every_corefile_is_accepted(self):
        for name, values in MATRIX.items():
            with self.subTest(name):
                status, said = check(self, corefile(values))
                self.assertEqual(status, 0, said)
                self.assertNotIn("warning", said.lower())

    def test_the_check_sees_a_wrong_corefile(self):
        status, said = check(self, corefile({}).replace("force_tcp", "force_tpc"))
        self.assertEqual(status, 2, said)

    def test_every_flag_is_accepted(self):
        for name, values in MATRIX.items():
            with self.subTest(name):
                args = container(find(helm.documents(values), "DaemonSet"))["args"]
                # The version is printed once all flags are read.
                status, said = run(agent(self), *args, "-version")
                self.assertEqual(status, 0, said)

    def test_a_flag_that_is_not_there_is_seen(self):
        status, _ = run(agent(self), "-nosuchflag", "-version")
        self.assertEqual(status, 2)

    def test_the_original_charts_arguments_are_accepted(self):
        args = ["-localip", "169.254.20.10", "-conf", "/etc/coredns/Corefile", "-upstreamsvc", "node-local-upstream",
                "-setupiptables=true", "-skipteardown=true", "-forwardonexit=false"]
        status, said = run(agent(self), *args, "-version")
        self.assertEqual(status, 0, said)

    def test_only_documented_variables_are_in_the_corefile(self):
        documented = set(re.findall(r"`(__[A-Z_]+__)`", (ROOT / "agent/src/template.rs").read_text()))
        self.assertTrue(documented)
        for values in MATRIX.values():
            text = find(helm.documents(values), "ConfigMap", "node-local-dns")["data"]["Corefile"]
            self.assertLessEqual(set(re.findall(r"__\w+?__\b", text)), documented)


class Admission(unittest.TestCase):
    def setUp(self):
        admission(self)

    def test_every_flag_is_accepted(self):
        for name, values in MATRIX.items():
            for kind in ("Deployment", "Job"):
                for workload in (d for d in helm.documents(values) if d["kind"] == kind):
                    with self.subTest(f"{name} {kind}"):
                        status, said = run(admission(self), *container(workload)["args"], "--help")
                        self.assertEqual(status, 0, said)

    def test_a_flag_that_is_not_there_is_seen(self):
        for command in ("serve", "policy-controller", "uninstall"):
            status, _ = run(admission(self), command, "--no-such-flag", "--help")
            self.assertEqual(status, 2, command)

    def test_the_policys_expressions_are_the_programs(self):
        for path, text in generate.policy_files(admission(self)).items():
            self.assertEqual((ROOT / path).read_text(), text, f"{path}: NODENS_ADMISSION_BIN=… make manifests writes it")

    def test_a_rendered_policy_is_the_programs(self):
        """With values of its own, so that what the template puts in is what the program would have."""
        values = {"controller": {"mode": "policy", "injection": {"exemptNamespaces": ["arms-prom"], "virtualNodeKeys": ["example.org/virtual"]}},
                  "nodelocaldns": {"local_ips": ["192.0.2.1", "fd00:d5::1"]}}
        rendered = find(helm.documents(values), "MutatingAdmissionPolicy")["spec"]
        status, said = run(admission(self), "policy", "--nameserver=192.0.2.1,fd00:d5::1", "--exempt-namespaces=arms-prom", "--virtual-node-keys=example.org/virtual", "--kube-dns-ip=10.96.0.10")
        self.assertEqual(status, 0, said)
        wanted = next(item["spec"] for item in json.loads(said)["items"] if item["kind"] == "MutatingAdmissionPolicy")

        def canonical(spec):
            constraints = spec["matchConstraints"]
            for selector in ("namespaceSelector", "objectSelector"):
                constraints[selector]["matchExpressions"].sort(key=lambda e: e["key"])
            conditions = [dict(c, expression=c["expression"].replace('", "', '","')) for c in spec["matchConditions"]]
            return dict(spec, matchConditions=conditions)

        self.assertEqual(canonical(rendered), canonical(wanted))


if __name__ == "__main__":
    unittest.main()
