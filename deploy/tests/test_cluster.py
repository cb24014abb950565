"""The chart against a real kube-apiserver, with the real Helm and the real admission server under the chart's own rights: install, inject, upgrade, uninstall."""

import base64
import subprocess
import threading
import unittest
import urllib.request

import helm_python
import yaml

from support import ROOT, container, helm, program, skip
from cluster import ADMIN, Cluster, assets, free_port, own_address, wait

NAMESPACE = "kube-system"
ADMISSION = "node-local-dns-admission-controller"
WEBHOOK = f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{ADMISSION}"
POLICIES = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolic"
DAEMONSET = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/node-local-dns"
UPSTREAM = f"/api/v1/namespaces/{NAMESPACE}/services/node-local-upstream"
JOB = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/node-local-dns-uninstall"
KUBE_DNS = "10.96.0.10"


class JobController(threading.Thread):
    """Runs the uninstall hook's command when Helm has made its Job, with the Job's service account, and writes down what was there before and after."""

    def __init__(self, cluster, admission, injector):
        super().__init__(daemon=True)
        self.cluster, self.admission, self.injector, self.seen = cluster, admission, injector, {}

    def run(self):
        job = wait("the uninstall Job", lambda: self.cluster.get(JOB))
        pod = job["spec"]["template"]["spec"]
        self.seen["before"] = [bool(self.cluster.get(path)) for path in (self.injector, DAEMONSET)]
        args = pod["containers"][0]["args"]
        kubeconfig = self.cluster.kubeconfig(pod["serviceAccountName"])
        done = subprocess.run([self.admission, *args, f"--kubeconfig={kubeconfig}"], capture_output=True, text=True, timeout=120)
        self.seen["said"] = done.stdout + done.stderr
        self.seen["after"] = [bool(self.cluster.get(path)) for path in (self.injector, DAEMONSET)]
        now = "2026-01-01T00:00:00Z"
        kinds = ["SuccessCriteriaMet", "Complete"] if done.returncode == 0 else ["FailureTarget", "Failed"]
        conditions = [{"type": kind, "status": "True", "lastTransitionTime": now, "lastProbeTime": now, "reason": "Ran", "message": "ran"} for kind in kinds]
        status = {"conditions": conditions, "startTime": now}
        status |= {"succeeded": 1, "completionTime": now} if done.returncode == 0 else {"failed": 1}
        self.seen["status"] = self.cluster.call("PATCH", f"{JOB}/status", {"status": status}, "application/merge-patch+json")


class OnACluster(unittest.TestCase):
    """One API server for all; each test installs, and leaves nothing."""

    cluster = None

    @classmethod
    def tearDownClass(cls):
        if cls.cluster is not None:
            cls.cluster.close()

    def setUp(self):
        folder = assets()
        if folder is None:
            skip(self, "there is no kube-apiserver with etcd (KUBEBUILDER_ASSETS)", unobtainable=True)
        self.address = own_address()
        if self.address is None:
            skip(self, "this machine has no address but the loopback", unobtainable=True)
        self.admission = program(self, "NODENS_ADMISSION_BIN", "nodens-admission")
        if self.cluster is None:
            type(self).cluster = Cluster(folder)
            self.make_kube_dns()
        self.config = helm_python.Config(kube_apiserver=self.cluster.url, kube_token=ADMIN, kube_insecure_skip_tls_verify=True, namespace=NAMESPACE)
        self.addCleanup(self.config.close)

    def make_kube_dns(self):
        ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
        self.cluster.create(f"/api/v1/namespaces/{NAMESPACE}/services", {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "kube-dns", "labels": {"k8s-app": "kube-dns"}},
            "spec": {"clusterIP": KUBE_DNS, "selector": {"k8s-app": "kube-dns"}, "ports": ports}})

    def install(self, values=None):
        return self.config.install(helm.CHART, helm.RELEASE, values or {}, namespace=NAMESPACE, timeout=120)

    def upgrade(self, values=None):
        return self.config.upgrade(helm.CHART, helm.RELEASE, values or {}, namespace=NAMESPACE, timeout=120)

    def uninstall(self, injector):
        jobs = JobController(self.cluster, self.admission, injector)
        jobs.start()
        self.config.uninstall(helm.RELEASE, timeout=120)
        jobs.join(timeout=120)
        return jobs.seen

    def run_admission(self, *more):
        """The Deployment's command, with the rights of its service account; a Pod's kubeconfig and addresses are put behind its flags."""
        live = self.cluster.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{ADMISSION}")
        kubeconfig, http = self.cluster.kubeconfig(live["spec"]["template"]["spec"]["serviceAccountName"]), free_port()
        process = self.cluster.start("admission", self.admission, *container(live)["args"], f"--kubeconfig={kubeconfig}", f"--http-listen=127.0.0.1:{http}", *more)

        def ready():
            try:
                return urllib.request.urlopen(f"http://127.0.0.1:{http}/readyz", timeout=5).status == 200
            except OSError:
                return False

        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        wait("the admission server to be ready", ready, process)

    def run_webhook(self):
        """The server, and the EndpointSlice by which the chart's Service leads to it."""
        port = free_port(self.address)
        self.run_admission(f"--listen={self.address}:{port}")
        service = self.cluster.get(f"/api/v1/namespaces/{NAMESPACE}/services/{ADMISSION}")
        slices = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
        self.addCleanup(self.cluster.call, "DELETE", f"{slices}/{ADMISSION}")
        self.cluster.create(slices, {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": ADMISSION, "labels": {"kubernetes.io/service-name": ADMISSION}},
            "endpoints": [{"addresses": [self.address], "conditions": {"ready": True, "serving": True}}],
            "ports": [{"name": service["spec"]["ports"][0]["name"], "port": port, "protocol": "TCP"}]})

    def namespace(self, name, **labels):
        self.addCleanup(self.remove_pods, name)
        self.cluster.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})

    def pod(self, namespace):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "p-"}, "spec": {"containers": [{"name": "c", "image": "example.org/c"}]}}
        return self.cluster.create(f"/api/v1/namespaces/{namespace}/pods", pod)["spec"]

    def remove_pods(self, namespace):
        self.cluster.call("DELETE", f"/api/v1/namespaces/{namespace}/pods?gracePeriodSeconds=0")

    def injected(self, namespace):
        """A Pod's dnsConfig once the API server has taken notice of everything."""
        return wait(f"a Pod of {namespace} to be injected", lambda: self.pod(namespace).get("dnsConfig"))

    def never_injected(self, namespace):
        spec = self.pod(namespace)
        self.assertEqual((spec["dnsPolicy"], spec.get("dnsConfig")), ("ClusterFirst", None))

    def expect_seed(self, dns, namespace, ndots="3"):
        self.assertEqual(dns, {
            "nameservers": ["169.254.20.10", KUBE_DNS],
            "searches": [f"{namespace}.svc.cluster.local", "svc.cluster.local", "cluster.local"],
            "options": [{"name": "ndots", "value": ndots}, {"name": "attempts", "value": "2"}, {"name": "timeout", "value": "1"}]})

    def nothing_is_left(self):
        for path in (f"/api/v1/namespaces/{NAMESPACE}/configmaps", f"/api/v1/namespaces/{NAMESPACE}/secrets", f"/api/v1/namespaces/{NAMESPACE}/services",
                     f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets", f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments",
                     f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/roles", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/rolebindings",
                     "/apis/rbac.authorization.k8s.io/v1/clusterroles", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
                     f"/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets", "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
                     f"{POLICIES}ies", f"{POLICIES}ybindings"):
            items = self.cluster.get(path)["items"]
            left = [item["metadata"]["name"] for item in items if "node-local" in item["metadata"]["name"]]
            self.assertEqual(left, [], path)

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
        secret = f"/api/v1/namespaces/{NAMESPACE}/secrets/{ADMISSION}-cert"
        authority = self.cluster.get(secret)["data"]

        # An upgrade changes what it says and leaves what the server wrote.
        self.upgrade({"controller": {"ndots": 2, "replicas": 3}})
        self.assertEqual(self.cluster.get(WEBHOOK)["webhooks"][0]["clientConfig"]["caBundle"], bundle)
        self.assertEqual(self.cluster.get(secret)["data"], authority)
        self.assertEqual(self.cluster.get(UPSTREAM)["spec"]["clusterIP"], upstream)
        self.assertEqual(self.cluster.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{ADMISSION}")["spec"]["replicas"], 3)
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

    def test_a_release_of_the_original_is_upgraded_in_place(self):
        older = ROOT / "deploy/tests/older-release"
        deployment = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{ADMISSION}"
        service = f"/api/v1/namespaces/{NAMESPACE}/services/{ADMISSION}"
        kept = (DAEMONSET, UPSTREAM, WEBHOOK, deployment, service)
        values = {"env": {"upstream_ip": "10.96.0.20"}}
        self.config.install(older, helm.RELEASE, values | {"caBundle": self.some_authority()}, namespace=NAMESPACE, timeout=120)
        before = {path: self.cluster.get(path)["metadata"]["uid"] for path in kept}
        self.upgrade(values)
        self.assertEqual({path: self.cluster.get(path)["metadata"]["uid"] for path in kept}, before, "the same objects")
        pod = self.cluster.get(DAEMONSET)["spec"]["template"]["spec"]
        self.assertNotIn("initContainers", pod)
        self.assertEqual((pod["tolerations"], pod["nodeSelector"]), ([{"operator": "Exists"}], {"kubernetes.io/os": "linux"}))
        self.assertEqual([c["name"] for c in pod["containers"]], ["node-cache"])
        self.assertNotIn("SYS_ADMIN", pod["containers"][0]["securityContext"]["capabilities"]["add"])
        self.assertNotIn("data", self.cluster.get(f"/api/v1/namespaces/{NAMESPACE}/secrets/{ADMISSION}-cert"), "the key of the old chart is gone")
        self.assertEqual(self.cluster.get(service)["spec"]["type"], "ClusterIP")
        self.assertNotIn("caBundle", self.cluster.get(WEBHOOK)["webhooks"][0]["clientConfig"])
        self.run_webhook()
        self.namespace("shop-older", **{"node-local-dns-injection": "enabled"})
        self.expect_seed(self.injected("shop-older"), "shop-older")
        self.uninstall(WEBHOOK)
        self.nothing_is_left()

    def some_authority(self):
        """A certificate that nobody trusts any more, as `caBundle` wants it."""
        key, certificate = self.cluster.folder / "old.key", self.cluster.folder / "old.crt"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=old", "-keyout", key, "-out", certificate], check=True, capture_output=True)
        return base64.b64encode(certificate.read_bytes()).decode()

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
