"""From a release of the original chart to this one and back again, against a real kube-apiserver with the real Helm.

`older-release` stands for the original: its names, labels, selectors and oddities, with the webhook raised to v1 and made valid for it. What Helm 3 keeps of such
a release differs from what the Helm here writes in two ways, and both decide how the way back goes: `as_helm_3_kept_it`.
"""

import base64
import copy
import gzip
import json
import subprocess
import unittest

import helm_python
from helm_python import _native

from support import ROOT, helm
from cluster import wait
from cluster_case import ADMISSION, DAEMONSET, DEPLOYMENT, NAMESPACE, SECRET, SERVICE, UPSTREAM, WEBHOOK, ClusterCase

OLDER = ROOT / "deploy/tests/older-release"
RECORD = "sh.helm.release.v1."
RBAC = "/apis/rbac.authorization.k8s.io/v1"
OBJECTS = (DAEMONSET, DEPLOYMENT, UPSTREAM, SERVICE, WEBHOOK, f"{RBAC}/clusterroles/{ADMISSION}-role", f"{RBAC}/clusterrolebindings/{ADMISSION}-role-binding",
           f"/api/v1/namespaces/{NAMESPACE}/configmaps/node-local-dns", f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/node-local-dns",
           f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{ADMISSION}")
# What v1 wants of a webhook; v1beta1, and with it the original chart, does without.
NEEDED_BY_V1 = ("admissionReviewVersions: [v1beta1]", "sideEffects: None")
VALUES = {"env": {"upstream_ip": "10.96.0.20"}}


def uncounted(found):
    """An object without what Kubernetes counts or picks by itself: all that is left has to come back, the UID too."""
    kept = copy.deepcopy(found)
    kept.pop("status", None)
    for field in ("resourceVersion", "generation", "managedFields"):
        kept["metadata"].pop(field, None)
    kept["metadata"].get("annotations", {}).pop("deprecated.daemonset.template.generation", None)
    for port in kept.get("spec", {}).get("ports", []):
        port.pop("nodePort", None)
    return kept


class AnOlderRelease(ClusterCase):
    """One API server for all; each test installs the older release, and leaves nothing."""

    def install_older(self):
        self.older = VALUES | {"caBundle": self.some_authority()}
        self.install(self.older, OLDER)
        self.pair = self.cluster.get(SECRET)["data"]

    def some_authority(self):
        """A certificate that nobody trusts any more, as `caBundle` wants it."""
        key, certificate = self.cluster.folder / "old.key", self.cluster.folder / "old.crt"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=old", "-keyout", key, "-out", certificate], check=True, capture_output=True)
        return base64.b64encode(certificate.read_bytes()).decode()

    def as_helm_3_kept_it(self, without=()):
        """Rewrites Helm's record of the first revision: not applied by the server, so that Helm patches as Helm 3 does, and `without` lines of its manifest."""
        path = f"/api/v1/namespaces/{NAMESPACE}/secrets/{RECORD}{helm.RELEASE}.v1"
        packed = base64.b64decode(self.cluster.get(path)["data"]["release"])
        record = json.loads(gzip.decompress(base64.b64decode(packed)))
        self.assertEqual(record.pop("apply_method"), "ssa")
        lines = record["manifest"].split("\n")
        kept = [line for line in lines if line.strip() not in without]
        self.assertEqual(len(kept), len(lines) - len(without))
        packed = base64.b64encode(gzip.compress(json.dumps(record | {"manifest": "\n".join(kept)}).encode()))
        status, answer = self.cluster.call("PATCH", path, {"data": {"release": base64.b64encode(packed).decode()}}, "application/merge-patch+json")
        self.assertEqual(status, 200, answer)

    def look(self):
        names = {name for name in self.names() if RECORD not in name}
        return {path: uncounted(self.cluster.get(path)) for path in OBJECTS} | {"names": names, "the Secret": self.cluster.get(SECRET)["metadata"]["uid"]}

    def rollback(self, **options):
        """To the revision before. The Python module does not hand on every option that the library below it has."""
        _native.call_status("helm_rollback", self.config._raw(), helm.RELEASE, json.dumps({"timeout_seconds": 120} | options))

    def switch(self):
        """To this chart, whose server makes itself trusted."""
        self.upgrade(VALUES)
        self.server = self.run_webhook()
        self.assertNotEqual(self.bundle(), self.older["caBundle"])

    def bundle(self):
        return self.cluster.get(WEBHOOK)["webhooks"][0]["clientConfig"].get("caBundle")

    def expect_older(self, before):
        after = self.look()
        for part in before:
            self.assertEqual(after[part], before[part], f"{part} is as it was")
        self.assertEqual(self.bundle(), self.older["caBundle"])
        self.assertEqual(self.cluster.get(UPSTREAM)["spec"]["clusterIP"], VALUES["env"]["upstream_ip"])
        service = self.cluster.get(SERVICE)["spec"]
        self.assertEqual(service["type"], "NodePort")
        self.assertGreater(service["ports"][0]["nodePort"], 0)
        # The older server's pair is back. What this chart's server wrote beside it may stay; nobody trusts it.
        self.assertEqual({key: value for key, value in self.cluster.get(SECRET)["data"].items() if key.startswith("tls.")}, self.pair)

    def here_again(self, namespace):
        """Once more to this chart, and nothing is left of either at the end."""
        self.server.kill()
        self.switch()
        self.namespace(namespace, **{"node-local-dns-injection": "enabled"})
        self.expect_seed(self.injected(namespace), namespace)
        self.uninstall(WEBHOOK)
        self.nothing_is_left()

    def test_it_is_upgraded_in_place(self):
        self.install_older()
        before = {path: self.cluster.get(path)["metadata"]["uid"] for path in OBJECTS}
        self.upgrade(VALUES)
        self.assertEqual({path: self.cluster.get(path)["metadata"]["uid"] for path in OBJECTS}, before, "the same objects")
        pod = self.cluster.get(DAEMONSET)["spec"]["template"]["spec"]
        self.assertNotIn("initContainers", pod)
        self.assertEqual((pod["tolerations"], pod["nodeSelector"]), ([{"operator": "Exists"}], {"kubernetes.io/os": "linux"}))
        self.assertEqual([c["name"] for c in pod["containers"]], ["node-cache"])
        self.assertNotIn("SYS_ADMIN", pod["containers"][0]["securityContext"]["capabilities"]["add"])
        self.assertNotIn("data", self.cluster.get(SECRET), "the key of the old chart is gone")
        self.assertEqual(self.cluster.get(SERVICE)["spec"]["type"], "ClusterIP")
        self.assertIsNone(self.bundle())
        self.run_webhook()
        self.namespace("shop-older", **{"node-local-dns-injection": "enabled"})
        self.expect_seed(self.injected("shop-older"), "shop-older")
        self.uninstall(WEBHOOK)
        self.nothing_is_left()

    def test_a_rollback_brings_every_object_back(self):
        self.install_older()
        self.as_helm_3_kept_it()
        before = self.look()
        self.switch()
        self.assertGreater(self.look()["names"], before["names"], "this chart has objects that the older one has not")
        self.rollback()
        self.expect_older(before)
        self.namespace("shop-between", **{"node-local-dns-injection": "enabled"})
        wait("Pods to be created as they are", lambda: "dnsConfig" not in self.pod("shop-between"))
        # The server of this chart runs until the older one's Pods are ready. It has lost its rights, and leaves caBundle and Secret alone.
        wait("the server's next look", lambda: "may not be used" in self.server.log.read_text(), self.server)
        self.expect_older(before)
        self.here_again("shop-again")

    def test_a_rollback_to_what_mapkubeapis_wrote_is_refused_and_the_mended_chart_goes_back(self):
        self.install_older()
        self.as_helm_3_kept_it(without=NEEDED_BY_V1)
        before = self.look()
        self.switch()
        with self.assertRaises(helm_python.HelmError) as caught:
            self.rollback()
        for field in ("sideEffects", "admissionReviewVersions"):
            self.assertIn(f"{field}: Required value", str(caught.exception))
        # Half of it is back, so first all of this chart again; then the original with its webhook mended.
        self.upgrade(VALUES)
        self.upgrade(self.older, OLDER)
        self.expect_older(before)
        self.here_again("shop-mended")

    def test_where_the_server_applies_a_rollback_has_to_be_forced(self):
        """A release that Helm 4 installed: there `caBundle` belongs to the admission server, and Helm asks before it takes it away."""
        self.install_older()
        before = self.look()
        self.switch()
        with self.assertRaises(helm_python.HelmError) as caught:
            self.rollback()
        self.assertIn('conflict with "nodens-admission"', str(caught.exception))
        self.upgrade(VALUES)
        self.rollback(version=1, force_conflicts=True)
        self.expect_older(before)
        self.here_again("shop-forced")


if __name__ == "__main__":
    unittest.main()
