#!/usr/bin/env python3
"""The decision table once more, in another language and another style, written from the table and not from the server's code.

Reads cases, one JSON object per line:

    {"settings": {...}, "kubeDns": ["172.21.0.10"], "namespace": {"labels": {...}, "annotations": {...}} or null, "review": {...}}

and writes for each what has to happen:

    {"reason": "injected", "dnsConfig": {...}}

Nothing but the standard library, so that it runs wherever Python does.
"""
import ipaddress
import json
import re
import sys

SEED = {
    "nodeLocal": ["169.254.20.10"], "includeKubeDns": True, "clusterDomain": "cluster.local",
    "ndots": 3, "attempts": 2, "timeoutS": 1, "extraSearches": [], "merge": "merge",
    "exemptNamespaces": [], "virtualNodeKeys": [], "softPlacement": "skip",
    "hostNetPolicyWithoutHostNetwork": False, "dualStack": "both-backups",
    "defaultEnabled": False, "podOptIn": False, "rolloutPercent": 100,
}
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
RELAXED = re.compile(r"[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?(\.[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?)*\Z")
MASK = (1 << 64) - 1


class NotAPod(Exception):
    """Row 2."""


def typed(value, kind):
    """The value, or an empty one where there is none. A wrong type is no Pod."""
    if value is None:
        return kind()
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise NotAPod
    return value


def strings(value):
    """A map of strings."""
    value = typed(value, dict)
    return {key: typed(text, str) for key, text in value.items()}


def address(text):
    """The address in a form that compares, or None."""
    try:
        if "%" in text:
            return None
        parsed = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed


def written(text):
    """The canonical text of an address."""
    parsed = ipaddress.ip_address(text)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return f"::ffff:{mapped}" if mapped else str(parsed)


def first_share(text, percent):
    """Whether this owner is among the first `percent` percent."""
    state = 0xCBF29CE484222325
    for byte in text.encode():
        state = ((state ^ byte) * 0x100000001B3) & MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return (state ^ (state >> 31)) % 100 < percent


def whole(text, low, high):
    text = text.strip()
    return int(text) if re.fullmatch(r"[0-9]+", text) and low <= int(text) <= high else None


def domains(text):
    found = [d.strip().rstrip(".").lower() for d in text.split(",")]
    found = [d for d in found if d]
    return found if len(found) <= 6 and all(len(d) <= 253 and SUBDOMAIN.match(d) for d in found) else None


def flag(text):
    return {"true": True, "false": False}.get(text.strip())


class Case:
    """One case, with what the table asks for by name."""

    def __init__(self, case):
        self.settings = {**SEED, **case.get("settings", {})}
        self.kube_dns = case.get("kubeDns", [])
        self.request = case["review"]["request"]
        self.namespace = case.get("namespace")
        self.ns_labels = (self.namespace or {}).get("labels") or {}
        self.ns_notes = (self.namespace or {}).get("annotations") or {}

    def read_pod(self):
        """Takes the Pod apart. Raises NotAPod."""
        pod = self.request.get("object")
        if not isinstance(pod, dict) or not isinstance(pod.get("metadata"), dict) or not isinstance(pod.get("spec"), dict):
            raise NotAPod
        meta, self.spec = pod["metadata"], pod["spec"]
        self.labels = strings(meta.get("labels"))
        self.notes = strings(meta.get("annotations"))
        self.owners = [typed(owner, dict) for owner in typed(meta.get("ownerReferences"), list)]
        self.name = typed(meta.get("name"), str) or (
            typed(meta.get("generateName"), str) + "*" if meta.get("generateName") is not None else "")
        self.host_network = typed(self.spec.get("hostNetwork"), bool)
        self.policy = typed(self.spec.get("dnsPolicy"), str) or "ClusterFirst"
        self.own = typed(self.spec.get("dnsConfig"), dict)
        for key in ("nameservers", "searches"):
            for text in typed(self.own.get(key), list):
                if not isinstance(text, str):
                    raise NotAPod
        for option in typed(self.own.get("options"), list):
            typed(typed(option, dict).get("name"), str)
        self.own_servers = self.own.get("nameservers") or []
        self.own_searches = self.own.get("searches") or []
        self.own_options = self.own.get("options") or []

    def override(self, name, parse):
        for notes in (self.notes, self.ns_notes):
            if "node-local-dns/" + name in notes:
                value = parse(notes["node-local-dns/" + name])
                if value is not None:
                    return value
        return None

    def affinity(self, part):
        affinity = self.spec.get("affinity") or {}
        required = (affinity.get("nodeAffinity") or {}).get("requiredDuringSchedulingIgnoredDuringExecution") or {}
        for term in required.get("nodeSelectorTerms") or []:
            for condition in term.get(part) or []:
                if condition.get("operator") == "In":
                    for value in condition.get("values") or []:
                        yield condition.get("key"), value

    def single(self):
        return self.override("single-nameserver", flag) or False

    def wants_backup(self):
        return self.settings["includeKubeDns"] and not self.single()

    def result(self):
        """The dnsConfig, or None where it would break a limit."""
        s = self.settings
        keep = s["merge"] != "overwrite"
        if keep:
            if not acceptable(self.own_servers, self.own_searches, self.own_options):
                return None
        backups = self.kube_dns if self.wants_backup() else []
        local = list(s["nodeLocal"])
        if len(local) == 2 and self.kube_dns and ipaddress.ip_address(self.kube_dns[0]).version != ipaddress.ip_address(local[0]).version:
            local.reverse()
        if s["dualStack"] == "both-backups":
            local = local[:1]
        servers = []
        for text in (local + backups)[:] + (self.own_servers if keep else []):
            if all(address(text) != address(known) for known in servers):
                servers.append(written(text))
        servers = servers[:3]
        namespace, domain = self.request["namespace"], s["clusterDomain"]
        searches = []
        wanted = [f"{namespace}.svc.{domain}", f"svc.{domain}", domain] + s["extraSearches"]
        wanted += self.override("searches", domains) or []
        wanted += self.own_searches if keep else []
        seen = set()
        for search in wanted:
            plain = (search[:-1] if search.endswith(".") else search).lower()
            if plain not in seen:
                seen.add(plain)
                searches.append(search)
        options = list(self.own_options) if keep else []
        bounds = {"ndots": (0, 15), "attempts": (1, 5), "timeout": (1, 30)}
        for name, setting in (("ndots", "ndots"), ("attempts", "attempts"), ("timeout", "timeoutS")):
            if all((option.get("name") or "") != name for option in (self.own_options if keep else [])):
                chosen = self.override(name, lambda text, b=bounds[name]: whole(text, *b))
                options.append({"name": name, "value": str(s[setting] if chosen is None else chosen)})
        if not servers or not acceptable(servers, searches, options):
            return None
        unknown = {k: v for k, v in self.own.items() if keep and k not in ("nameservers", "searches", "options")}
        return {**unknown, "nameservers": servers, "searches": searches, "options": options}

    def decide(self):
        """The table, first match wins. Returns the reason and the dnsConfig."""
        s, request = self.settings, self.request
        resource = request.get("resource") or {}
        pods = (resource.get("group") or "", resource.get("version"), resource.get("resource")) == ("", "v1", "pods")
        if request.get("operation") != "CREATE" or not pods or request.get("subResource") or not request.get("namespace"):
            return "not-pod-create", None
        try:
            self.read_pod()
        except NotAPod:
            return "undecodable", None
        label = "node-local-dns-injection"
        if request["namespace"] in ["kube-system", "kube-public"] + s["exemptNamespaces"]:
            return "namespace-exempt", None
        pod_keys = {"eci", "alibabacloud.com/eci", *s["virtualNodeKeys"]}
        if self.namespace is not None:
            if self.ns_labels.keys() & (pod_keys | {"virtual-node-affinity-injection"}):
                return "namespace-virtual-node", None
            enabled = self.ns_labels.get(label) == "enabled"
            if s["defaultEnabled"]:
                enabled = self.ns_labels.get(label) != "disabled"
            if s["podOptIn"] and self.labels.get(label) == "enabled":
                enabled = True
            if not enabled:
                return "namespace-not-enabled", None
        if self.labels.get(label) == "disabled":
            return "pod-opt-out", None
        if self.labels.keys() & pod_keys:
            return "pod-virtual-node", None
        if "kubernetes.io/config.mirror" in self.notes:
            return "mirror-pod", None
        selector = self.spec.get("nodeSelector") or {}
        os_keys = ("kubernetes.io/os", "beta.kubernetes.io/os")
        expressions = set(self.affinity("matchExpressions"))
        if (self.spec.get("os") or {}).get("name") == "windows" \
                or any(selector.get(key) == "windows" or (key, "windows") in expressions for key in os_keys):
            return "windows", None
        node_names = [value for key, value in self.affinity("matchFields") if key == "metadata.name"]
        node_names.append(self.spec.get("nodeName") or "")
        if any(name.startswith("virtual-kubelet-") for name in node_names) or selector.get("type") == "virtual-kubelet" \
                or ("type", "virtual-kubelet") in expressions \
                or self.notes.get("alibabacloud.com/burst-resource") in ("eci", "eci_only"):
            return "virtual-node-placement", None
        tolerated = [toleration.get("key") for toleration in self.spec.get("tolerations") or []]
        if "virtual-kubelet.io/provider" in tolerated and s["softPlacement"] == "skip":
            return "virtual-node-possible", None
        lenient = s["hostNetPolicyWithoutHostNetwork"]
        dns = {
            ("ClusterFirst", False): None,
            ("ClusterFirst", True): "host-network-cluster-first",
            ("ClusterFirstWithHostNet", True): None,
            ("ClusterFirstWithHostNet", False):
                None if lenient else "cluster-first-with-host-net-without-host-network",
            ("Default", False): "dns-policy-default", ("Default", True): "dns-policy-default",
            ("None", False): "dns-policy-none", ("None", True): "dns-policy-none",
        }.get((self.policy, self.host_network), "dns-policy-unknown")
        if dns:
            return dns, None
        if {address(text) for text in s["nodeLocal"]} & {address(text) for text in self.own_servers}:
            return "already-configured", None
        if self.wants_backup() and not self.kube_dns:
            return "upstream-unknown", None
        lists = ("nameservers", "searches", "options")
        if s["merge"] == "skip" and any(value or key not in lists for key, value in self.own.items()):
            return "user-dns-config", None
        result = self.result()
        if result is None:
            return "limits-exceeded", None
        percent = whole(self.ns_notes.get("node-local-dns/rollout", ""), 0, 100)
        percent = s["rolloutPercent"] if percent is None else percent
        owners = [o for o in self.owners if o.get("controller")] + self.owners
        uid = owners[0].get("uid") if owners else None
        if not first_share(uid if uid is not None else f"{request['namespace']}/{self.name}", percent):
            return "rollout", None
        return "injected", result


def acceptable(servers, searches, options):
    """What the API server takes."""
    return (
        len(servers) <= 3 and all(address(text) is not None for text in servers)
        and len(searches) <= 32 and len(" ".join(searches)) <= 2048
        and all(s == "." or (len(s.removesuffix(".")) <= 253 and RELAXED.match(s.removesuffix("."))) for s in searches)
        and all(option.get("name") for option in options)
    )


def main():
    out = sys.stdout
    for line in sys.stdin:
        reason, config = Case(json.loads(line)).decide()
        out.write(json.dumps({"reason": reason, "dnsConfig": config}, separators=(",", ":")))
        out.write("\n")


if __name__ == "__main__":
    main()
