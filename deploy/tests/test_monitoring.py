"""Alerts and dashboard ask for metrics that exist, each alert is tested and has its page."""

import json
import re
import subprocess
import unittest

import yaml

from support import MATRIX, ROOT, find, helm, program
import metrics

RULES = ROOT / "deploy/monitoring/alerts.yaml"
BOARD = ROOT / "deploy/monitoring/dashboard.json"
# What other programs measure: the API server about its webhooks, kube-state-metrics about the DaemonSet.
OTHERS = {"apiserver_admission_webhook_fail_open_count", "apiserver_admission_webhook_rejection_count",
          "kube_daemonset_status_desired_number_scheduled", "kube_daemonset_status_number_ready"}
NAME = re.compile(r"\b[a-z]+_[a-z0-9_]+\b")


def asked(expression):
    """Names of metrics in a query: words with an underscore, outside of quotes, label lists and `by (…)`, that are no functions."""
    expression = re.sub(r'"[^"]*"', '""', expression)
    expression = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(by|without)\s*\([^)]*\)", "", expression)
    return {m[0] for m in NAME.finditer(expression) if not expression[m.end():].lstrip().startswith("(")}


def rules():
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def queries():
    for panel in json.loads(BOARD.read_text())["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


class Monitoring(unittest.TestCase):
    def test_names_are_found_in_queries(self):
        self.assertEqual(asked('sum by (to, le) (rate(a_b{c="d_e"}[5m])) / label_replace(f_g, "h_i") > 0'), {"a_b", "f_g"})

    def test_the_sources_metrics_are_found(self):
        self.assertGreater(len(metrics.agent()), 50)
        self.assertGreater(len(metrics.admission()), 10)
        self.assertFalse(metrics.known("nodens_no_such_total"))

    def test_alerts_ask_for_metrics_that_exist(self):
        for rule in rules():
            with self.subTest(rule["alert"]):
                names = asked(rule["expr"])
                self.assertTrue(names)
                self.assertEqual({n for n in names if not metrics.known(n)} - OTHERS, set())

    def test_the_dashboard_asks_for_metrics_that_exist(self):
        for title, query in queries():
            with self.subTest(title):
                names = asked(query)
                self.assertTrue(names)
                self.assertEqual({n for n in names if not metrics.known(n)} - OTHERS, set())

    def test_alerts_are_about_this_release_and_not_about_every_coredns(self):
        ours = re.compile(r"\b((?:coredns|nodens|nodelocaldns)_[a-z0-9_]+)\b(\{[^}]*\})?")
        for rule in rules():
            for name, labels in ours.findall(rule["expr"]):
                job = "node-local-dns-admission" if name.startswith("nodelocaldns_") else "node-local-dns"
                self.assertIn(f'job="{job}"', labels, f"{rule['alert']}: {name}")

    def test_every_alert_has_its_page_and_is_tested(self):
        page = (ROOT / "docs/troubleshooting.md").read_text()
        tested = (ROOT / "deploy/tests/alerts.test.yaml").read_text()
        for rule in rules():
            self.assertIn(f"### {rule['alert']}\n", page)
            self.assertTrue(rule["annotations"]["runbook_url"].endswith(f"troubleshooting.md#{rule['alert'].lower()}"))
            self.assertIn(f"alertname: {rule['alert']}\n        exp_alerts:\n          - ", tested)

    def test_the_chart_ships_these_files(self):
        documents = helm.documents(MATRIX["monitoring"])
        self.assertEqual(find(documents, "PrometheusRule")["spec"], yaml.safe_load(RULES.read_text()))
        self.assertEqual(json.loads(find(documents, "ConfigMap", "node-local-dns-dashboard")["data"]["node-local-dns.json"]), json.loads(BOARD.read_text()))

    def test_jobs_are_named_as_alerts_and_dashboard_expect(self):
        jobs = {}
        for document in helm.documents(MATRIX["monitoring"]):
            endpoints = document.get("spec", {}).get("podMetricsEndpoints") or document.get("spec", {}).get("endpoints") or []
            for endpoint in endpoints:
                jobs[(document["kind"], document["metadata"]["name"])] = endpoint["relabelings"][0]
        self.assertEqual({r["replacement"] for r in jobs.values()}, {"node-local-dns", "node-local-dns-admission"})
        self.assertEqual(len(jobs), 4)
        for _, query in queries():
            self.assertTrue('job="node-local-dns"' in query or 'job="node-local-dns-admission"' in query or "kube_daemonset" in query, query)

    def test_promtool_takes_the_rules_and_they_fire_as_they_should(self):
        promtool = program(self, "PROMTOOL", "promtool")
        for command in (["check", "rules", RULES], ["test", "rules", ROOT / "deploy/tests/alerts.test.yaml"]):
            done = subprocess.run([promtool, *command], capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main()
