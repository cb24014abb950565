"""What the pages say: their links lead somewhere, Chinese pages are in step with the English ones, what they name exists, and no heading of the
original README is left unanswered. The commands that they show are in test_commands.py. Links to other sites are not followed."""

import re
import subprocess
import tempfile
import unittest

import yaml

import pages
import schemas
from support import ROOT, find, helm, program

PAGES = pages.all_pages()
# Chinese page to the English one.
CHINESE = {page: "README.md" if page.endswith("README.md") else page.replace("/zh/", "/") for page in PAGES if page.startswith("docs/zh/")}

SEED_PARAMETERS = [
    "env.upstream_ip", "env.cluster_domain", "env.enable_log", "controller.enabled", "controller.image", "controller.imageTag", "controller.replicas",
    "nodelocaldns.image.repository", "nodelocaldns.image.tag", "nodelocaldns.init_image.repository", "nodelocaldns.init_image.tag",
]
# Each heading of the original README: the English page and heading that answer it, the Chinese page and heading, and what both answers have to speak of.
SEED_HEADINGS = {
    "限制": ("docs/install.md", "What it needs, and what it does not do", "docs/zh/install.md", "限制与要求", ["Terway", "ASK", "ECI", "`hosts`", "`rewrite`", "privatezone.md", "terway.md"]),
    "简介": ("docs/install.md", "Installation", "docs/zh/install.md", "安装与使用", ["DaemonSet", "Deployment", "169.254.20.10", "nodelocaldns", "node-local-upstream", "┌──"]),
    "安装": ("docs/install.md", "With Helm", "docs/zh/install.md", "使用 Helm 安装", ["helm install node-local-dns", "env.upstream_ip", "rollout status daemonset/node-local-dns"]),
    "参数说明": ("docs/parameters.md", "Parameters", "docs/zh/parameters.md", "参数说明", [*(f"`{name}`" for name in SEED_PARAMETERS), "`node-local-upstream`"]),
    "使用方式": ("docs/install.md", "Three ways to use it", "docs/zh/install.md", "使用方式", ["169.254.20.10", "172.21.0.10"]),
    "方式一：配置 DNSConfig 自动注入": ("docs/install.md", "1. Automatic injection (recommended)", "docs/zh/install.md", "方式一：自动注入（推荐）",
                           ["kubectl label namespace default node-local-dns-injection=enabled", "node-local-dns-injection=disabled", "dnsConfig", "dnsPolicy: None"]),
    "未注入 DNSConfig 问题排查": ("docs/troubleshooting.md", "A Pod was not injected", "docs/zh/troubleshooting.md", "未注入 DNSConfig",
                          ["`kube-system`", "`kube-public`", "node-local-dns-injection=enabled", "virtual-node-affinity-injection", "`eci`", "alibabacloud.com/eci",
                           "node-local-dns-injection=disabled", "`ClusterFirstWithHostNet`", "`ClusterFirst`"]),
    "方式二：手动指定 DNSConfig": ("docs/install.md", "2. By hand", "docs/zh/install.md", "方式二：手动指定 DNSConfig", ["dnsPolicy: None", "nameservers", "searches", "ndots", "attempts", "timeout"]),
    "方式三：配置 kubelet 启动参数": ("docs/install.md", "3. By the kubelet (not recommended)", "docs/zh/install.md", "方式三：kubelet 参数（不推荐，变更风险高）",
                           ["--cluster-dns 169.254.20.10 --cluster-dns 172.21.0.10 --cluster-domain cluster.local", "10-kubeadm.conf", "systemctl daemon-reload", "systemctl restart"]),
    "卸载": ("docs/uninstall.md", "Removal", "docs/zh/uninstall.md", "卸载", ["helm uninstall node-local-dns", "helm delete --purge"]),
    "存量升级": ("docs/migrate-from-ack.md", "From older versions: three cases", "docs/zh/migrate-from-ack.md", "从更早的版本：三种情况",
             ["`local_dns_ip`", "`high_availability`", "169.254.20.10", "kubectl label namespace default node-local-dns-injection-"]),
    "PrivateZone 兼容性说明": ("docs/privatezone.md", "PrivateZone, and other resolvers that do not speak TCP", "docs/zh/privatezone.md", "PrivateZone 兼容性说明（以及其他不支持 TCP 的解析服务）",
                        ["TCP", "coredns", "forward . /etc/resolv.conf", "prefer_udp"]),
    "其他": ("README.md", "Documents", "docs/zh/README.md", "文档", ["metrics.md", "admission.md", "differences.md"]),
}


def clicks(page):
    """How many links lead from this page to each other one."""
    found, edge = {page: 0}, [page]
    while edge:
        here = edge.pop(0)
        for other, _ in pages.links(here):
            if other in PAGES and other not in found:
                found[other] = found[here] + 1
                edge.append(other)
    return found


def shown_yaml(page, first):
    """The YAML block that begins with these words."""
    block, = (block for block in pages.blocks(page) if block.language == "yaml" and block.text.startswith(first))
    return yaml.safe_load(block.text)


class Links(unittest.TestCase):
    def test_they_lead_somewhere(self):
        count = 0
        for page in PAGES:
            for other, fragment in pages.links(page):
                with self.subTest(f"{page}: {other}#{fragment}"):
                    self.assertTrue((ROOT / other).exists())
                    if fragment:
                        self.assertIn(fragment, [pages.anchor(heading) for heading in pages.headings(other)])
                count += 1
        self.assertGreater(count, 120)

    def test_every_page_for_users_is_two_clicks_from_the_readme(self):
        """Evidence is behind a folder, which is a page of GitHub's own."""
        away = clicks("README.md")
        far = [page for page in PAGES if page.startswith("docs/") and not page.startswith("docs/evidence/") and away.get(page, 9) > 2]
        self.assertEqual(far, [])


class Seed(unittest.TestCase):
    def test_every_heading_of_the_original_is_answered_in_both_languages_two_clicks_away(self):
        self.assertEqual(len(SEED_HEADINGS), 13)
        for readme, page, heading in (("README.md", 0, 1), ("docs/zh/README.md", 2, 3)):
            away = clicks(readme)
            for question, answer in SEED_HEADINGS.items():
                with self.subTest(f"{question}: {answer[page]}"):
                    self.assertLessEqual(away.get(answer[page], 9), 2)
                    text = " ".join(pages.section(answer[page], answer[heading]).split())
                    self.assertEqual([word for word in answer[4] if word not in text], [])


class Languages(unittest.TestCase):
    """A Chinese page has the headings, blocks and tables of the English one, and names the same commands, files and parameters."""

    def test_there_are_those_that_the_originals_readers_need(self):
        self.assertLessEqual({"README", "install", "parameters", "troubleshooting"}, {page[len("docs/zh/"):-len(".md")] for page in CHINESE})

    def test_they_are_in_step(self):
        def levels(page):
            return [len(level) for level in re.findall(r"^(#+) ", pages.prose(page), re.M)]

        def blocks(page):
            """Comments and the words of diagrams are a language's own."""
            return [(block.language, block.marks, None if "┌──" in block.text else block.text if block.language == "console" else re.sub(r"#.*", "", block.text))
                    for block in pages.blocks(page)]

        def rows(page):
            return [line.count(" | ") for line in pages.prose(page).splitlines() if line.startswith("| ")]

        def code(page):
            """Each piece of code in the text; what a page says twice, the other one may say once."""
            return set(re.findall(r"`([^`]+)`", " ".join(pages.prose(page).split())))

        for chinese, english in CHINESE.items():
            for what in (levels, blocks, rows, code):
                with self.subTest(f"{chinese}: {what.__name__}"):
                    self.assertEqual(what(chinese), what(english))


class Contents(unittest.TestCase):
    def test_parameters_that_pages_name_exist(self):
        def exists(path):
            value = helm.defaults()
            for key in path.split("."):
                if not isinstance(value, dict) or key not in value:
                    return False
                value = value[key]
            return True

        named = 0
        for page in PAGES:
            for path in re.findall(r"`(?:--set '?)?((?:env|controller|nodelocaldns|monitoring|uninstall)\.[A-Za-z_.]+[A-Za-z_])", pages.text(page)):
                named += 1
                self.assertTrue(exists(path), f"{page}: {path}")
        self.assertGreater(named, 100)

    def test_values_that_the_text_tells_people_to_set_are_taken(self):
        settings = {setting for page in PAGES for setting in re.findall(r"`(?:--set '?)?((?:env|controller|nodelocaldns|monitoring|uninstall)\.[\w.]+=[^`']+)'?`", pages.text(page))}
        self.assertGreater(len(settings), 8)
        for setting in settings:
            with self.subTest(setting):
                helm.manifest(helm.helm_python.parse_set_string(setting))

    def test_the_way_by_hand_is_what_injection_writes(self):
        """Both languages show the fields that `inject` gives the same Pod without them, and every Kubernetes takes them."""
        by_hand = shown_yaml("docs/install.md", "apiVersion: v1\nkind: Pod")
        self.assertEqual(shown_yaml("docs/zh/install.md", "apiVersion: v1\nkind: Pod"), by_hand)
        for minor in schemas.MINORS:
            schemas.validate(by_hand, minor)
        fields = {key: by_hand["spec"].pop(key) for key in ("dnsPolicy", "dnsConfig")}
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(by_hand, file)
            file.flush()
            command = [program(self, "NODENS_ADMISSION_BIN", "nodens-admission"), "inject", "-q", "-f", file.name, "--kube-dns-ip=172.21.0.10"]
            injected = yaml.safe_load(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        self.assertEqual({key: injected["spec"][key] for key in fields}, fields)

    def test_the_kubelets_way_names_the_same_servers_in_both_spellings(self):
        for page in ("docs/install.md", "docs/zh/install.md"):
            configuration = shown_yaml(page, "# KubeletConfiguration")
            self.assertEqual(configuration, {"clusterDNS": ["169.254.20.10", "172.21.0.10"], "clusterDomain": "cluster.local"})
            self.assertEqual(re.findall(r"--cluster-dns (\S+)", pages.text(page))[:2], configuration["clusterDNS"])
            self.assertIn(f"--cluster-domain {configuration['clusterDomain']}", pages.text(page))

    def test_manifests_that_pages_show_are_ones(self):
        count = 0
        for page in PAGES:
            for block in pages.blocks(page):
                if block.language == "yaml" and "\nkind: " in block.text:
                    for minor in schemas.MINORS:
                        schemas.validate(yaml.safe_load(block.text), minor)
                    count += 1
        self.assertGreater(count, 3)

    def test_gitops_tools_are_told_of_objects_that_are_there(self):
        documents = helm.documents()
        for page in ("docs/install.md", "docs/zh/install.md"):
            webhook, secret = shown_yaml(page, "ignoreDifferences:")["ignoreDifferences"]
            self.assertEqual(webhook["jqPathExpressions"], [".webhooks[].clientConfig.caBundle"])
            configuration = find(documents, webhook["kind"])
            self.assertEqual(configuration["apiVersion"].partition("/")[0], webhook["group"])
            self.assertTrue(all("clientConfig" in each for each in configuration["webhooks"]))
            find(documents, secret["kind"], secret["name"])

    def test_the_doctor_is_told_what_the_chart_tells_the_agent(self):
        """In the pages' command for the agent's container."""
        args = find(helm.documents(), "DaemonSet")["spec"]["template"]["spec"]["containers"][0]["args"]
        agent = dict(arg.split("=", 1) for arg in args)
        agent["-conf"] = agent["-corefile"]
        count = 0
        for page in PAGES:
            for _, words in pages.told(page, "nodens"):
                if words[0] == "/nodens" and words[1] == "doctor" and len(words) > 2:
                    flags = {flag: value for flag, value in zip(words[2:], [*words[3:], ""]) if flag.startswith("-")}
                    self.assertEqual(flags, {flag: agent[flag] if flag != "-seticmpratemask" else "" for flag in flags}, page)
                    count += 1
        self.assertGreater(count, 2)

    def test_tests_that_the_comparison_names_exist(self):
        """Its second column is ours, and what it says of us is shown by a test."""
        sources = "\n".join(path.read_text() for folder in ("agent", "node", "core", "cache", "runtime", "admission", "deploy") for kind in ("*.rs", "*.py")
                            for path in (ROOT / folder).rglob(kind))
        defined = set(re.findall(r"\b(?:fn|def) (\w+)", sources))
        named = [name for name in re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+){2,})`", pages.text("docs/comparison.md"))]
        self.assertGreater(len(named), 30)
        self.assertEqual([name for name in named if name not in defined], [])


if __name__ == "__main__":
    unittest.main()
