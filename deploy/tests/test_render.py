"""What is rendered: the same each time, well-formed, valid in every Kubernetes version that has its API, unlinted by nobody."""

import json
import unittest

import helm_python
import jsonschema
import yaml

import schemas
from support import MATRIX, ROOT, container, find, helm


class Render(unittest.TestCase):
    def test_two_renders_are_identical_to_the_byte(self):
        for name, values in MATRIX.items():
            with self.subTest(name):
                self.assertEqual(helm.render(values), helm.render(values))

    def test_an_upgrade_renders_what_an_install_does(self):
        self.assertEqual(helm.render({}, is_install=True), helm.render({}, is_upgrade=True, revision=2))

    def test_lint_strict_finds_nothing_but_advice(self):
        for name, values in MATRIX.items():
            for version in ("v1.25.0", "v1.37.0"):
                if name == "policy" and version == "v1.25.0":
                    continue
                with self.subTest(f"{name} {version}"):
                    result = helm.lint(values, version)
                    bad = [m for m in result["messages"] if m["severity"] not in ("info", "INFO", 1)]
                    self.assertEqual(bad, [])

    def test_every_document_is_valid_in_every_version_that_has_it(self):
        # Most documents are the same under several sets of values.
        different = {json.dumps(d, sort_keys=True): name for name, values in MATRIX.items() for d in helm.documents(values) if d["kind"] not in schemas.FOREIGN}
        judged = 0
        for text, name in different.items():
            document = json.loads(text)
            for minor in schemas.MINORS:
                # Webhooks have conditions since 1.27.
                since = 27 if "matchConditions" in text and document["kind"].endswith("Configuration") else schemas.SINCE.get(document["kind"], 0)
                if minor >= since:
                    with self.subTest(f"{name} {document['kind']} 1.{minor}"):
                        schemas.validate(document, minor)
                        judged += 1
        self.assertGreater(judged, 700)

    def test_the_validator_sees_mistakes(self):
        daemonset = next(d for d in helm.documents() if d["kind"] == "DaemonSet")
        daemonset["spec"]["template"]["spec"]["hostNetwrk"] = True
        for minor in schemas.MINORS:
            with self.assertRaises(jsonschema.ValidationError):
                schemas.validate(daemonset, minor)

    def test_other_projects_kinds_are_as_their_references_have_them(self):
        seen = set()
        for name, values in MATRIX.items():
            for document in helm.documents(values):
                if document["kind"] in schemas.FOREIGN:
                    with self.subTest(f"{name} {document['kind']}"):
                        schemas.validate_foreign(document)
                        seen.add(document["kind"])
        self.assertEqual(seen, schemas.FOREIGN, "all of them are rendered by some values")

    def test_mistakes_in_other_projects_kinds_are_seen(self):
        values = [MATRIX["monitoring"], MATRIX["cert-manager"]]
        found = {d["kind"]: d for v in values for d in helm.documents(v) if d["kind"] in schemas.FOREIGN}
        mistakes = {
            "PodMonitor": lambda spec: spec["podMetricsEndpoints"][0].update(relabellings=[]),
            "ServiceMonitor": lambda spec: spec["endpoints"][0].update(interval="30"),
            "PrometheusRule": lambda spec: spec["groups"][0]["rules"][0].update(annotations={"summary": 1}),
            "Issuer": lambda spec: spec.update(selfsigned={}),
            "Certificate": lambda spec: spec["privateKey"].update(algorithm="EC"),
        }
        self.assertEqual(set(mistakes), set(found))
        for kind, make in mistakes.items():
            with self.subTest(kind):
                make(found[kind]["spec"])
                with self.assertRaises(jsonschema.ValidationError):
                    schemas.validate_foreign(found[kind])

    def test_no_object_is_there_twice(self):
        for name, values in MATRIX.items():
            with self.subTest(name):
                keys = [(d["kind"], d["metadata"].get("namespace"), d["metadata"]["name"]) for d in helm.documents(values)]
                self.assertEqual(len(keys), len(set(keys)))

    def test_ports_that_share_a_number_are_those_of_the_original(self):
        """A client-side patch between the two charts does not hold them apart, so there must be nothing to patch (test_older_release.py)."""
        with helm_python.Chart.load(ROOT / "deploy/tests/older-release") as chart:
            text, = chart.render({"env": {}}, name=helm.RELEASE, namespace=helm.NAMESPACE).values()
        theirs = find(list(yaml.safe_load_all(text)), "Service", "node-local-upstream")
        self.assertEqual(find(helm.documents(), "Service", "node-local-upstream")["spec"]["ports"], theirs["spec"]["ports"])

    def test_namespaced_objects_name_the_releases_namespace(self):
        cluster_wide = {"ClusterRole", "ClusterRoleBinding", "MutatingWebhookConfiguration", "MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"}
        for name in ("defaults", "policy", "monitoring", "cert-manager"):
            for document in helm.documents(MATRIX[name], namespace="dns"):
                wanted = None if document["kind"] in cluster_wide else "dns"
                self.assertEqual(document["metadata"].get("namespace"), wanted, document["kind"])

    def test_blank_lines_and_trailing_blanks_stay_out_of_objects(self):
        for name, values in MATRIX.items():
            for path, text in helm.render(values).items():
                if path != "NOTES.txt":
                    for document in yaml.safe_load_all(text):
                        self.assertIsInstance(document, (dict, type(None)), f"{name} {path}")
                    self.assertNotRegex(text, r"[^\n] +\n", f"{name} {path}")

    def test_every_image_is_ours_or_a_public_one(self):
        for name in ("defaults", "policy"):
            for document in helm.documents(MATRIX[name]):
                spec = document.get("spec", {})
                pod = spec.get("template", {}).get("spec", spec) if isinstance(spec.get("template", {}), dict) else spec
                for part in pod.get("containers", []):
                    self.assertRegex(part["image"], r"^(ghcr\.io/nodens-dns/nodens:0\.1\.0|docker\.io/library/busybox:1\.36)$")


class Workloads(unittest.TestCase):
    def test_the_agent_has_least_privilege(self):
        for name, values in MATRIX.items():
            with self.subTest(name):
                daemonset = next(d for d in helm.documents(values) if d["kind"] == "DaemonSet")
                security = container(daemonset)["securityContext"]
                self.assertNotIn("privileged", security)
                self.assertEqual(security["capabilities"], {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_BIND_SERVICE", "SETUID", "SETGID"]})
                self.assertFalse(security["allowPrivilegeEscalation"])
                self.assertTrue(security["readOnlyRootFilesystem"])
                self.assertIn(security["seccompProfile"]["type"], ("RuntimeDefault", "Localhost"))
                text = yaml.safe_dump(daemonset)
                self.assertEqual("SYS_ADMIN" in text, name == "seed", "only the original's init container needs it")

    def test_iptables_gets_what_its_programs_want(self):
        daemonset = next(d for d in helm.documents(helm.at("nodelocaldns.packet_rules", "iptables")) if d["kind"] == "DaemonSet")
        self.assertIn("NET_RAW", container(daemonset)["securityContext"]["capabilities"]["add"])

    def test_the_agent_runs_on_every_node_but_virtual_ones(self):
        pod = next(d for d in helm.documents() if d["kind"] == "DaemonSet")["spec"]["template"]["spec"]
        self.assertEqual(pod["tolerations"], [{"operator": "Exists"}])
        terms = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        self.assertEqual(terms, [{"matchExpressions": [{"key": "type", "operator": "NotIn", "values": ["virtual-kubelet"]}]}])
        self.assertEqual(pod["nodeSelector"], {"kubernetes.io/os": "linux"})
        self.assertEqual((pod["hostNetwork"], pod["dnsPolicy"], pod["enableServiceLinks"]), (True, "Default", True))
        self.assertEqual(pod["priorityClassName"], "system-node-critical")

    def test_two_agents_of_an_update_can_meet_on_a_node(self):
        surging = next(d for d in helm.documents(MATRIX["every-switch"]) if d["kind"] == "DaemonSet")
        self.assertEqual(surging["spec"]["updateStrategy"]["rollingUpdate"], {"maxSurge": "25%", "maxUnavailable": 0})
        # A port of a host-network container is a port of the host, of which the scheduler grants one.
        self.assertNotIn("ports", container(surging))

    def test_probes_ask_where_the_corefile_listens(self):
        for name in ("defaults", "dual-stack", "ipv6"):
            documents = helm.documents(MATRIX[name])
            agent = container(next(d for d in documents if d["kind"] == "DaemonSet"))
            corefile = next(d for d in documents if d["kind"] == "ConfigMap" and "Corefile" in d.get("data", {}))["data"]["Corefile"]
            for probe, plugin in (("livenessProbe", "health"), ("startupProbe", "health"), ("readinessProbe", "ready")):
                get = agent[probe]["httpGet"]
                host = f"[{get['host']}]" if ":" in get["host"] else get["host"]
                self.assertIn(f"    {plugin} {host}:{get['port']}\n", corefile, name)
            self.assertIn(f"-health-port={agent['livenessProbe']['httpGet']['port']}", agent["args"])

    def test_the_admission_server_needs_nothing_of_its_node(self):
        for name in ("defaults", "policy"):
            for kind in ("Deployment", "Job"):
                workload = next(d for d in helm.documents(MATRIX[name]) if d["kind"] == kind)
                security = container(workload)["securityContext"]
                self.assertEqual((security["runAsNonRoot"], security["readOnlyRootFilesystem"], security["capabilities"]), (True, True, {"drop": ["ALL"]}))
                self.assertNotIn("hostNetwork", workload["spec"]["template"]["spec"])
                self.assertEqual(workload["spec"]["template"]["spec"]["dnsPolicy"], "Default")

    def test_pod_templates_change_with_the_version_of_the_image_alone(self):
        for document in helm.documents():
            if document["kind"] in ("DaemonSet", "Deployment"):
                labels = document["spec"]["template"]["metadata"]["labels"]
                self.assertFalse({"helm.sh/chart", "app.kubernetes.io/version"} & set(labels))


if __name__ == "__main__":
    unittest.main()
