"""What tests of the chart against a real kube-apiserver share: the release, the admission server under its own rights, Namespaces and Pods, and the uninstall.

There are no controllers: the Job of the uninstall hook and the EndpointSlice of the webhook's Service are carried out here.
"""

import subprocess
import threading
import unittest
import urllib.request

import helm_python

from support import container, free_port, helm, program, skip
from cluster import ADMIN, Cluster, assets, own_address, wait

NAMESPACE = "kube-system"
ADMISSION = "node-local-dns-admission-controller"
WEBHOOK = f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{ADMISSION}"
POLICIES = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolic"
DAEMONSET = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/node-local-dns"
DEPLOYMENT = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{ADMISSION}"
UPSTREAM = f"/api/v1/namespaces/{NAMESPACE}/services/node-local-upstream"
SERVICE = f"/api/v1/namespaces/{NAMESPACE}/services/{ADMISSION}"
SECRET = f"/api/v1/namespaces/{NAMESPACE}/secrets/{ADMISSION}-cert"
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


class ClusterCase(unittest.TestCase):
    """One API server for all tests of a class; each installs, and leaves nothing."""

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

    def install(self, values=None, chart=helm.CHART):
        return self.config.install(chart, helm.RELEASE, values or {}, namespace=NAMESPACE, timeout=120)

    def upgrade(self, values=None, chart=helm.CHART):
        return self.config.upgrade(chart, helm.RELEASE, values or {}, namespace=NAMESPACE, timeout=120)

    def uninstall(self, injector):
        jobs = JobController(self.cluster, self.admission, injector)
        jobs.start()
        self.config.uninstall(helm.RELEASE, timeout=120)
        jobs.join(timeout=120)
        return jobs.seen

    def run_admission(self, *more):
        """The Deployment's command, with the rights of its service account; a Pod's kubeconfig and addresses are put behind its flags."""
        live = self.cluster.get(DEPLOYMENT)
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
        return process

    def run_webhook(self):
        """The server, and the EndpointSlice by which the chart's Service leads to it."""
        port = free_port(self.address)
        process = self.run_admission(f"--listen={self.address}:{port}")
        service = self.cluster.get(SERVICE)
        slices = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
        self.cluster.call("DELETE", f"{slices}/{ADMISSION}")
        self.addCleanup(self.cluster.call, "DELETE", f"{slices}/{ADMISSION}")
        self.cluster.create(slices, {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": ADMISSION, "labels": {"kubernetes.io/service-name": ADMISSION}},
            "endpoints": [{"addresses": [self.address], "conditions": {"ready": True, "serving": True}}],
            "ports": [{"name": service["spec"]["ports"][0]["name"], "port": port, "protocol": "TCP"}]})
        return process

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

    def names(self):
        """The release's objects and Helm's records of it."""
        paths = (f"/api/v1/namespaces/{NAMESPACE}/configmaps", f"/api/v1/namespaces/{NAMESPACE}/secrets", f"/api/v1/namespaces/{NAMESPACE}/services",
                 f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets", f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments",
                 f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/roles",
                 f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/rolebindings", "/apis/rbac.authorization.k8s.io/v1/clusterroles",
                 "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", f"/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets",
                 "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations", f"{POLICIES}ies", f"{POLICIES}ybindings")
        found = {f"{path}/{item['metadata']['name']}" for path in paths for item in self.cluster.get(path)["items"]}
        return {path for path in found if "node-local" in path}

    def nothing_is_left(self):
        self.assertEqual(self.names(), set())
