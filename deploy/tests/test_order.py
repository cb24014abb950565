"""The order in which things come and go, and the rights that go with it."""

import unittest

import yaml

from support import MATRIX, ROOT, container, find, helm

ADMISSION = "node-local-dns-admission-controller"


def order(values):
    return [(d["kind"], d["metadata"]["name"]) for d in yaml.safe_load_all(helm.manifest(values)) if d]


class Order(unittest.TestCase):
    def test_what_agents_need_is_there_before_them(self):
        kinds = [kind for kind, _ in order({})]
        for first, then in (("ServiceAccount", "DaemonSet"), ("ConfigMap", "DaemonSet"), ("Service", "DaemonSet"), ("Secret", "Deployment"),
                            ("ClusterRoleBinding", "Deployment"), ("RoleBinding", "Deployment"), ("Service", "Deployment")):
            self.assertLess(kinds.index(first), kinds.index(then), f"{first} before {then}")

    def test_injection_begins_last(self):
        self.assertEqual(order({})[-1], ("MutatingWebhookConfiguration", ADMISSION))
        self.assertEqual(order(MATRIX["policy"])[-2:], [("MutatingAdmissionPolicy", ADMISSION), ("MutatingAdmissionPolicyBinding", ADMISSION)])

    def test_injection_ends_before_anything_is_deleted(self):
        """Helm deletes policies last, so a Job in front of it does."""
        for name in ("defaults", "policy"):
            documents = helm.documents(MATRIX[name])
            hooks = {d["kind"]: d for d in documents if d["metadata"].get("annotations", {}).get("helm.sh/hook") == "pre-delete"}
            self.assertEqual(set(hooks), {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Job"})
            weight = {kind: int(d["metadata"]["annotations"]["helm.sh/hook-weight"]) for kind, d in hooks.items()}
            self.assertTrue(all(weight[kind] < weight["Job"] for kind in weight if kind != "Job"))
            self.assertIn("hook-succeeded", hooks["Job"]["metadata"]["annotations"]["helm.sh/hook-delete-policy"])
            args = container(hooks["Job"])["args"]
            self.assertIn(f"--name={ADMISSION}", args)
            self.assertIn("--force", args)
            injectors = [d for d in documents if d["kind"].startswith("Mutating")]
            self.assertTrue(injectors)
            for injector in injectors:
                self.assertEqual(injector["metadata"]["name"], ADMISSION)

    def test_an_uninstall_can_be_made_to_wait_for_pods(self):
        job = find(helm.documents(helm.at("uninstall.requireDrained", True)), "Job")
        self.assertNotIn("--force", container(job)["args"])

    def test_without_the_hook_nothing_of_it_is_left(self):
        self.assertFalse([d for d in helm.documents(MATRIX["no-hook"]) if d["metadata"]["name"].endswith("-uninstall")])


class Back(unittest.TestCase):
    """From a release of the original to ours, and back by `helm rollback`: Helm patches what both have, so nothing that the API server lets nobody
    change may differ."""

    UNCHANGEABLE = {
        "DaemonSet": lambda d: d["spec"]["selector"],
        "Deployment": lambda d: d["spec"]["selector"],
        "Service": lambda d: d["spec"].get("clusterIP"),
        "ClusterRoleBinding": lambda d: d["roleRef"],
        "Secret": lambda d: d.get("type", "Opaque"),
        "ServiceAccount": lambda d: None,
        "ConfigMap": lambda d: d.get("immutable"),
        "ClusterRole": lambda d: None,
        "MutatingWebhookConfiguration": lambda d: None,
    }

    def test_what_both_releases_have_differs_in_nothing_that_cannot_change(self):
        values = {"env": {"upstream_ip": "10.96.0.20"}}
        by_name = lambda documents: {(d["kind"], d["metadata"]["name"]): d for d in documents if "helm.sh/hook" not in d["metadata"].get("annotations", {})}
        ours = by_name(helm.documents(values))
        older = by_name(helm.documents(values | {"caBundle": "b2xk"}, chart=ROOT / "deploy/tests/older-release"))
        both = set(ours) & set(older)
        self.assertEqual(both, set(older), "each object of the older release is one of ours")
        for kind, name in sorted(both):
            with self.subTest(f"{kind} {name}"):
                of = self.UNCHANGEABLE[kind]
                self.assertEqual(of(ours[kind, name]), of(older[kind, name]))


class Rights(unittest.TestCase):
    """Those under which the admission server's own tests run it against a real API server, and no more."""

    def rules(self, values, kind, name):
        return [tuple(tuple(rule.get(part, ())) for part in ("apiGroups", "resources", "resourceNames", "verbs")) for rule in find(helm.documents(values), kind, name)["rules"]]

    def test_the_webhook_may_what_its_tests_prove_enough(self):
        core, registration = ("",), ("admissionregistration.k8s.io",)
        self.assertEqual(self.rules(helm.at("controller.events", True), "ClusterRole", f"{ADMISSION}-role"), [
            (core, ("namespaces", "services"), (), ("get", "list", "watch")),
            (("events.k8s.io",), ("events",), (), ("create", "patch")),
            (registration, ("mutatingwebhookconfigurations",), (ADMISSION,), ("get", "patch")),
        ])
        self.assertEqual(self.rules({}, "Role", ADMISSION), [(core, ("secrets",), (f"{ADMISSION}-cert",), ("get", "update"))])
        proven = (ROOT / "admission/tests/apiserver/scenarios/injection.rs").read_text()
        for words in ('"resources": ["namespaces", "services"], "verbs": ["get", "list", "watch"]', '"resources": ["events"], "verbs": ["create", "patch"]',
                      '"resourceNames": ["roles"], "verbs": ["get", "patch"]', '"resourceNames": ["roles-cert"], "verbs": ["get", "update"]'):
            self.assertIn(words, proven)

    def test_without_an_authority_of_its_own_it_writes_nothing(self):
        for name in ("cert-manager", "secret"):
            rules = self.rules(MATRIX[name], "ClusterRole", f"{ADMISSION}-role")
            self.assertEqual([verbs for _, _, _, verbs in rules], [("get", "list", "watch")], name)
            self.assertFalse([d for d in helm.documents(MATRIX[name]) if d["kind"] == "Role"])

    def test_the_policys_controller_may_read_services_and_write_its_parameters(self):
        self.assertEqual(self.rules(MATRIX["policy"], "ClusterRole", f"{ADMISSION}-role"), [(("",), ("services",), (), ("get", "list", "watch"))])
        self.assertEqual(self.rules(MATRIX["policy"], "Role", ADMISSION), [(("",), ("configmaps",), (f"{ADMISSION}-policy",), ("get", "patch"))])

    def test_the_agent_has_no_token(self):
        documents = helm.documents()
        self.assertIs(find(documents, "ServiceAccount", "node-local-dns")["automountServiceAccountToken"], False)
        self.assertIs(find(documents, "DaemonSet")["spec"]["template"]["spec"]["automountServiceAccountToken"], False)
        subjects = {s["name"] for d in documents if d["kind"].endswith("Binding") for s in d["subjects"]}
        self.assertNotIn("node-local-dns", subjects)


class Webhook(unittest.TestCase):
    def webhooks(self, values):
        return find(helm.documents(values), "MutatingWebhookConfiguration")["webhooks"]

    def test_it_selects_what_the_original_did_and_leaves_system_namespaces_out(self):
        webhook, = self.webhooks({})
        namespace = {e["key"]: (e["operator"], e.get("values")) for e in webhook["namespaceSelector"]["matchExpressions"]}
        self.assertEqual(namespace, {
            "node-local-dns-injection": ("In", ["enabled"]), "virtual-node-affinity-injection": ("DoesNotExist", None), "eci": ("DoesNotExist", None),
            "alibabacloud.com/eci": ("DoesNotExist", None), "kubernetes.io/metadata.name": ("NotIn", ["kube-system", "kube-public"])})
        pod = {e["key"]: (e["operator"], e.get("values")) for e in webhook["objectSelector"]["matchExpressions"]}
        self.assertEqual(pod, {"node-local-dns-injection": ("NotIn", ["disabled"]), "eci": ("DoesNotExist", None), "alibabacloud.com/eci": ("DoesNotExist", None)})
        self.assertEqual((webhook["failurePolicy"], webhook["timeoutSeconds"], webhook["sideEffects"], webhook["reinvocationPolicy"]), ("Ignore", 3, "None", "IfNeeded"))
        self.assertNotIn("caBundle", webhook["clientConfig"])

    def test_a_release_elsewhere_is_exempt_itself(self):
        webhook, = find(helm.documents({}, namespace="dns"), "MutatingWebhookConfiguration")["webhooks"]
        names = next(e["values"] for e in webhook["namespaceSelector"]["matchExpressions"] if e["key"] == "kubernetes.io/metadata.name")
        self.assertEqual(names, ["kube-system", "kube-public", "dns"])

    def test_pods_that_opt_in_have_an_entry_of_their_own(self):
        _, opt_in = self.webhooks(helm.at("controller.injection.podOptIn", True))
        self.assertEqual(opt_in["name"], f"{ADMISSION}-opt-in.k8s.io")
        self.assertIn({"key": "node-local-dns-injection", "operator": "In", "values": ["enabled"]}, opt_in["objectSelector"]["matchExpressions"])
        self.assertIn({"key": "node-local-dns-injection", "operator": "NotIn", "values": ["enabled"]}, opt_in["namespaceSelector"]["matchExpressions"])

    def test_a_policy_that_cannot_decide_lets_pods_pass(self):
        documents = helm.documents(MATRIX["policy"])
        self.assertEqual(find(documents, "MutatingAdmissionPolicy")["spec"]["failurePolicy"], "Ignore")
        binding = find(documents, "MutatingAdmissionPolicyBinding")["spec"]
        self.assertEqual(binding, {"policyName": ADMISSION, "paramRef": {"name": f"{ADMISSION}-policy", "namespace": "kube-system", "parameterNotFoundAction": "Allow"}})

    def test_events_are_side_effects(self):
        self.assertEqual(self.webhooks(helm.at("controller.events", True))[0]["sideEffects"], "NoneOnDryRun")


if __name__ == "__main__":
    unittest.main()
