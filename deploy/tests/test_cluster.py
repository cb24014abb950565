"""The chart against a real kube-apiserver, with the real Helm and the real admission server under the chart's own rights: install, inject, upgrade, uninstall."""

import unittest

import helm_python
import yaml

from support import ROOT, skip
from cluster import wait
from cluster_case import ADMISSION, DAEMONSET, DEPLOYMENT, JOB, POLICIES, SECRET, UPSTREAM, WEBHOOK, ClusterCase


class OnACluster(ClusterCase):
    """One API server for all; each test installs, and leaves nothing."""

    def test_install_inject_upgrade_uninstall_with_the_webhook(self):
        self.install()
        self.assertEqual(len(self.cluster.get(WEBHOOK)["webhooks"]), 1)
        upstream = self.cluster.get(UPSTREAM)["spec"]["clusterIP"]
        self.assertRegex(upstream, r"^10\.96\.", "the API server picked an address")
        self.run_webhook()
        self.namespace("shop", **{"node-local-dns-injection": "enabled"})
        self.namespace("plain")
        self.expect_seed(self.injected("shop"), "shop")
        self.never_injected("plain")
        bundle = self.cluster.get(WEBHOOK)["webhooks"][0]["clientConfig"]["caBundle"]
        authority = self.cluster.get(SECRET)["data"]

        # An upgrade changes what it says and leaves what the server wrote.
        self.upgrade({"controller": {"ndots": 2, "replicas": 3}})
        self.assertEqual(self.cluster.get(WEBHOOK)["webhooks"][0]["clientConfig"]["caBundle"], bundle)
        self.assertEqual(self.cluster.get(SECRET)["data"], authority)
        self.assertEqual(self.cluster.get(UPSTREAM)["spec"]["clusterIP"], upstream)
        self.assertEqual(self.cluster.get(DEPLOYMENT)["spec"]["replicas"], 3)
        self.expect_seed(self.pod("shop")["dnsConfig"], "shop")

        # The Service's address cannot be changed; that is said in words before anything is touched.
        self.upgrade({"env": {"upstream_ip": upstream}})
        with self.assertRaises(helm_python.HelmError) as caught:
            self.upgrade({"env": {"upstream_ip": "10.96.7.7"}})
        self.assertIn("Kubernetes lets nobody change it", str(caught.exception))

        seen = self.uninstall(WEBHOOK)
        self.assertEqual(seen["before"], [True, True], seen)
        self.assertEqual(seen["after"], [False, True], "injection stops while agents are still there")
        self.assertIn("shop", seen["said"])
        self.nothing_is_left()
        self.never_injected("shop")

    def test_install_inject_uninstall_with_the_policy(self):
        policy = f"{POLICIES}ies/{ADMISSION}"
        if self.cluster.get(f"{POLICIES}ies") is None:
            skip(self, "this kube-apiserver has no MutatingAdmissionPolicy v1", unobtainable=True)
        self.install({"controller": {"mode": "auto"}})
        self.assertTrue(self.cluster.get(policy), "auto takes the policy where there is one")
        self.assertIsNone(self.cluster.get(WEBHOOK))
        self.namespace("shop-policy", **{"node-local-dns-injection": "enabled"})
        self.run_admission()
        self.expect_seed(self.injected("shop-policy"), "shop-policy")
        self.namespace("plain-policy")
        self.never_injected("plain-policy")
        seen = self.uninstall(policy)
        self.assertEqual((seen["before"], seen["after"]), ([True, True], [False, True]), seen)
        self.nothing_is_left()
        self.never_injected("shop-policy")

    def test_an_uninstall_that_must_wait_for_pods_is_refused_and_leaves_agents(self):
        self.install({"uninstall": {"requireDrained": True}})
        self.run_webhook()
        self.namespace("shop-drain", **{"node-local-dns-injection": "enabled"})
        self.injected("shop-drain")
        with self.assertRaises(helm_python.HelmError):
            self.uninstall(WEBHOOK)
        self.assertTrue(self.cluster.get(DAEMONSET))
        self.assertIsNone(self.cluster.get(WEBHOOK), "nothing new is injected meanwhile")
        # The same again once nobody asks any more.
        self.remove_pods("shop-drain")
        wait("Pods to go", lambda: not self.cluster.get("/api/v1/namespaces/shop-drain/pods")["items"])
        self.cluster.call("DELETE", f"{JOB}?propagationPolicy=Background")
        wait("the first Job to go", lambda: self.cluster.get(JOB) is None)
        self.uninstall(WEBHOOK)
        self.nothing_is_left()

    def test_raw_manifests_install_and_inject(self):
        """As `kubectl apply` has it: each object is applied, twice, since people do."""
        plural = {"MutatingWebhookConfiguration": "mutatingwebhookconfigurations", "PodDisruptionBudget": "poddisruptionbudgets"}
        paths = []
        for document in yaml.safe_load_all((ROOT / "deploy/manifests/nodens.yaml").read_text()):
            version, kind, meta = document["apiVersion"], document["kind"], document["metadata"]
            where = f"/namespaces/{meta['namespace']}" if "namespace" in meta else ""
            kinds = plural.get(kind, f"{kind.lower()}s")
            paths.append((f"/{'apis' if '/' in version else 'api'}/{version}{where}/{kinds}/{meta['name']}", document))
        self.addCleanup(lambda: [self.cluster.call("DELETE", path) for path, _ in reversed(paths)])
        for path, document in paths + paths:
            status, answer = self.cluster.call("PATCH", f"{path}?fieldManager=kubectl&fieldValidation=Strict", document, "application/apply-patch+yaml")
            self.assertIn(status, (200, 201), answer)
        self.run_webhook()
        self.namespace("shop-raw", **{"node-local-dns-injection": "enabled"})
        self.expect_seed(self.injected("shop-raw"), "shop-raw")


if __name__ == "__main__":
    unittest.main()
