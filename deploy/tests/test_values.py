"""The values: names and defaults of ack-node-local-dns 1.3.2, what each of them changes, and refusals in sentences."""

import json
import os
import tempfile
import unittest

import helm_python

from support import MATRIX, helm

# The parameter table of the original chart's README: key, its default here, a value, and every place where the value shows: (kind,
# path into the object). Images are ours, and an empty init image means the agent's own code; all other defaults are the original's.
DEPLOYMENT = ("Deployment", "spec.template.spec.containers.0")
DAEMONSET = ("DaemonSet", "spec.template.spec.containers.0")
TABLE = [
    ("env.upstream_ip", "", "172.21.0.20", {("Service", "spec.clusterIP"), ("ConfigMap", "data.Corefile")}),
    ("env.cluster_domain", "cluster.local", "example.org", {("Deployment", "spec.template.spec.containers.0.args.2"),
                                                             ("Pod", "spec.containers.0.command.2"), ("Pod", "spec.dnsConfig.searches.0"),
                                                             ("Pod", "spec.dnsConfig.searches.1"), ("Pod", "spec.dnsConfig.searches.2")}),
    ("env.enable_log", False, True, {("ConfigMap", "data.Corefile")}),
    ("controller.image", "ghcr.io/nodens-dns/nodens", "example.org/admission", {("Deployment", f"{DEPLOYMENT[1]}.image"), ("Job", f"{DEPLOYMENT[1]}.image")}),
    ("controller.imageTag", "", "v9", {("Deployment", f"{DEPLOYMENT[1]}.image"), ("Job", f"{DEPLOYMENT[1]}.image")}),
    ("controller.replicas", 2, 5, {("Deployment", "spec.replicas")}),
    ("nodelocaldns.image.repository", "ghcr.io/nodens-dns/nodens", "example.org/agent", {("DaemonSet", f"{DAEMONSET[1]}.image")}),
    ("nodelocaldns.image.tag", "", "v9", {("DaemonSet", f"{DAEMONSET[1]}.image")}),
    # The agent leaves the ICMP mask to the init container, so the host's files are not mounted.
    ("nodelocaldns.init_image.repository", "", "example.org/busybox", {("DaemonSet", "spec.template.spec.initContainers"),
                                                                        ("DaemonSet", f"{DAEMONSET[1]}.args.10"), ("DaemonSet", f"{DAEMONSET[1]}.volumeMounts.2"),
                                                                        ("DaemonSet", f"{DAEMONSET[1]}.volumeMounts.3"), ("DaemonSet", "spec.template.spec.volumes.2"),
                                                                        ("DaemonSet", "spec.template.spec.volumes.3")}),
]


def leaves(value, path=""):
    """Every value of an object by its path; a list of containers that is there or not is one value."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from [(f"{path}.{key}".lstrip("."), inner)] if key == "initContainers" else leaves(inner, f"{path}.{key}")
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{path}.{index}")
    else:
        yield path.lstrip("."), value


def flat(values):
    found = {}
    for document in helm.documents(values):
        for path, value in leaves(document):
            found[(document["kind"], document["metadata"]["name"], path)] = json.dumps(value)
    return found


def changed(before, after):
    """Kinds and paths at which two renders differ; below a changed list element the element counts."""
    differ = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    return {(kind, path) for kind, _, path in differ}


class Parameters(unittest.TestCase):
    def test_each_key_of_the_original_changes_exactly_what_it_should(self):
        before = flat({})
        for key, default, value, wanted in TABLE:
            with self.subTest(key):
                self.assertEqual(self.default(key), default)
                found = changed(before, flat(helm.at(key, value)))
                # Elements of volumes are objects: what is below one belongs to it.
                shortened = {(kind, next((p for k, p in wanted if k == kind and (path + ".").startswith(p + ".")), path)) for kind, path in found}
                self.assertEqual(shortened, wanted)

    def test_the_init_images_tag_shows_where_there_is_one(self):
        values = helm.at("nodelocaldns.init_image.repository", "example.org/busybox")
        before = flat(values)
        found = changed(before, flat(helm.merge(values, helm.at("nodelocaldns.init_image.tag", "v9"))))
        self.assertEqual(found, {("DaemonSet", "spec.template.spec.initContainers")})

    def test_controller_enabled_false_leaves_the_agents_alone(self):
        kinds = {d["kind"] for d in helm.documents(MATRIX["agents-only"])}
        self.assertEqual(kinds, {"ConfigMap", "Service", "ServiceAccount", "DaemonSet", "Pod"})

    def default(self, key):
        value = helm.defaults()
        for part in key.split("."):
            value = value[part]
        return value

    def test_local_ips_lead_all_that_depends_on_them(self):
        text = "\n".join(helm.render(helm.at("nodelocaldns.local_ips", ["192.0.2.1", "fd00:d5::1"])).values())
        self.assertNotIn("169.254.20.10", text)
        for part in ("-localip=192.0.2.1,fd00:d5::1", "bind 192.0.2.1 fd00:d5::1", "--nameserver=192.0.2.1,fd00:d5::1", "health 192.0.2.1:8081", "listen on 192.0.2.1, fd00:d5::1"):
            self.assertIn(part, text)

    def test_names_and_selectors_of_the_original_stay(self):
        documents = helm.documents({}, name="mine")
        names = {(d["kind"], d["metadata"]["name"]) for d in documents}
        admission = "mine-admission-controller"
        self.assertLessEqual({("DaemonSet", "node-local-dns"), ("ConfigMap", "node-local-dns"), ("ServiceAccount", "node-local-dns"), ("Service", "node-local-upstream"),
                              ("Deployment", admission), ("Service", admission), ("ServiceAccount", admission), ("MutatingWebhookConfiguration", admission),
                              ("Secret", f"{admission}-cert"), ("ClusterRole", f"{admission}-role"), ("ClusterRoleBinding", f"{admission}-role-binding")}, names)
        selectors = {d["kind"]: d["spec"]["selector"]["matchLabels"] for d in documents if d["kind"] in ("DaemonSet", "Deployment")}
        self.assertEqual(selectors, {"DaemonSet": {"k8s-app": "node-local-dns"}, "Deployment": {"app": admission}})
        upstream = next(d for d in documents if d["metadata"]["name"] == "node-local-upstream")
        self.assertEqual(upstream["spec"]["selector"], {"k8s-app": "kube-dns"})
        self.assertEqual(upstream["metadata"]["labels"]["k8s-app"], "kube-dns")
        webhook = next(d for d in documents if d["kind"] == "MutatingWebhookConfiguration")["webhooks"][0]
        self.assertEqual((webhook["name"], webhook["clientConfig"]["service"]["path"]), (f"{admission}.k8s.io", "/inject"))


class Refusals(unittest.TestCase):
    """(values, words of the sentence). The first are the schema's, the others the templates'."""

    SCHEMA = [
        (helm.at("env.upstream", "172.21.0.20"), "additional properties 'upstream' not allowed"),
        (helm.at("controller.image", {"repository": "a"}), "/controller/image"),
        (helm.at("controller.mode", "sidecar"), "'webhook', 'policy', 'auto'"),
        (helm.at("controller.replicas", "two"), "/controller/replicas"),
        (helm.at("controller.webhook.timeoutSeconds", 30), "maximum: got 30, want 10"),
        (helm.at("env.enable_log", "yes"), "got string, want boolean"),
        (helm.at("nodelocaldns.interface_name", "much-too-long-a-name"), "/nodelocaldns/interface_name"),
        (helm.at("nodelocaldns.local_ips", []), "minItems: got 0, want 1"),
        (helm.at("nodelocaldns.cache.bytes", "32 MB"), "/nodelocaldns/cache/bytes"),
    ]
    TEMPLATES = [
        (helm.at("env.upstream_ip", "172.21.0"), "env.upstream_ip: \"172.21.0\" is no IP address. Write a free address"),
        (helm.at("env.upstream_ip", "172.21.0.256"), "is no IP address"),
        (helm.at("env.upstream_ip", "fd00:::1"), "is no IP address"),
        (helm.at("env.upstream_ip", "169.254.20.10"), "agents would ask themselves"),
        (helm.at("env.require_upstream_ip", True), "Write a free address of the cluster's Service range"),
        (helm.at("env.cluster_domain", "Cluster.Local."), "is no domain. Write it in lower case"),
        (helm.at("nodelocaldns.local_ips", ["fe80::1"]), "needs a zone, which Pods cannot have"),
        (helm.at("nodelocaldns.local_ips", ["169.254.20.10", "169.254.20.11"]), "two addresses of one family"),
        (helm.at("nodelocaldns.local_ips", ["localhost"]), "is no IP address"),
        (helm.at("env.local_dns_ip", "172.21.0.10"), "belongs to versions of ack-node-local-dns before 1.3"),
        (helm.at("high_availability", True), "belongs to versions of ack-node-local-dns before 1.3"),
        (helm.merge(helm.at("nodelocaldns.corefile", ".:53 {}"), helm.at("nodelocaldns.extra_corefile", "a:53 {}")), "replaces the whole Corefile"),
        (helm.at("controller.certificate.mode", "secret"), "name it in controller.certificate.secretName"),
        ({"controller": {"mode": "policy", "injection": {"podOptIn": True, "rolloutPercent": 10}}}, "cannot carry out podOptIn, rolloutPercent"),
    ]

    def refused(self, values, words):
        with self.subTest(json.dumps(values)):
            with self.assertRaises(helm_python.HelmError) as caught:
                helm.render(values)
            self.assertIn(words, str(caught.exception))

    def test_the_schema_refuses_what_has_the_wrong_shape(self):
        for values, words in self.SCHEMA:
            self.refused(values, words)

    def test_the_templates_say_what_would_be_right(self):
        for values, words in self.TEMPLATES:
            self.refused(values, words)

    def test_a_policy_needs_a_kubernetes_that_has_it(self):
        # Lint is the only way to another version without a cluster; it tells what `fail` says on standard error alone.
        with tempfile.TemporaryFile() as file:
            saved = os.dup(2)
            os.dup2(file.fileno(), 2)
            try:
                helm.lint(MATRIX["policy"], "v1.35.0")
            finally:
                os.dup2(saved, 2)
                os.close(saved)
            file.seek(0)
            self.assertIn("needs Kubernetes 1.36 or later; this is v1.35.0", file.read().decode())

    def test_every_value_is_in_the_schema_and_every_schema_key_is_a_value(self):
        schema = json.loads((helm.CHART / "values.schema.json").read_text())
        legacy = {"local_dns_ip", "high_availability", "global"}

        def walk(values, node, path):
            properties = node.get("properties")
            if properties is None:
                return
            self.assertIs(node.get("additionalProperties"), False, path)
            # What stands in no values.yaml because it is a choice of the user's: members of an empty map.
            if values:
                self.assertEqual(set(properties) - legacy - {"localhostProfile"}, set(values) - {"localhostProfile"}, path)
            for key, value in values.items():
                if isinstance(value, dict):
                    walk(value, properties[key], f"{path}.{key}")

        walk(helm.defaults(), schema, "values")


if __name__ == "__main__":
    unittest.main()
