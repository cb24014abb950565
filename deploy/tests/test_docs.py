"""Pages of installation and use: their links lead somewhere, their parameters exist, and no heading of the original README is left unanswered."""

import re
import subprocess
import tempfile
import unittest

import yaml

import schemas
from support import ROOT, helm, program

ENGLISH = ["install", "uninstall", "migrate-from-ack", "migrate-from-node-cache", "privatezone", "terway", "troubleshooting", "parameters", "metrics", "image", "comparison"]
CHINESE = ["README", "install", "troubleshooting", "parameters"]
PAGES = [ROOT / f"docs/{name}.md" for name in ENGLISH] + [ROOT / f"docs/zh/{name}.md" for name in CHINESE] + [ROOT / "deploy/chart/nodens/README.md"]

# Heading of the original README, and where it is answered: page and heading, in both languages.
HEADINGS = {
    "限制": ("install", "What it needs, and what it does not do", "限制"),
    "简介": ("install", "Installation", "安装与使用"),
    "安装": ("install", "With Helm", "安装"),
    "参数说明": ("parameters", "Parameters", None),
    "使用方式": ("install", "Three ways to use it", "方式一：自动注入（推荐）"),
    "方式一：配置 DNSConfig 自动注入": ("install", "1. Automatic injection (recommended)", "方式一：自动注入（推荐）"),
    "未注入 DNSConfig 问题排查": ("troubleshooting", "A Pod was not injected", None),
    "方式二：手动指定 DNSConfig": ("install", "2. By hand", "方式二：手动指定 DNSConfig"),
    "方式三：配置 kubelet 启动参数": ("install", "3. By the kubelet (not recommended)", "方式三：kubelet 参数（不推荐，变更风险高）"),
    "卸载": ("uninstall", "Removal", "卸载"),
    "存量升级": ("migrate-from-ack", "From older versions: three cases", "存量升级"),
    "PrivateZone 兼容性说明": ("privatezone", "PrivateZone, and other resolvers that do not speak TCP", "PrivateZone 兼容性"),
}


def headings(path):
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S)
    return re.findall(r"^#+ (.+)$", text, re.M)


def anchor(heading):
    """As GitHub makes them."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


class Pages(unittest.TestCase):
    def test_links_lead_somewhere(self):
        for page in PAGES:
            for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
                if target.startswith("http"):
                    continue
                path, _, fragment = target.partition("#")
                other = (page.parent / path).resolve() if path else page
                with self.subTest(f"{page.name}: {target}"):
                    self.assertTrue(other.exists())
                    if fragment:
                        self.assertIn(fragment, [anchor(h) for h in headings(other)])

    def test_every_heading_of_the_original_is_answered(self):
        for heading, (page, english, chinese) in HEADINGS.items():
            with self.subTest(heading):
                self.assertIn(english, headings(ROOT / f"docs/{page}.md"))
                if chinese:
                    self.assertIn(chinese, headings(ROOT / "docs/zh/install.md"))

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
            for path in re.findall(r"`(?:--set '?)?((?:env|controller|nodelocaldns|monitoring|uninstall)\.[A-Za-z_.]+[A-Za-z_])", page.read_text()):
                named += 1
                self.assertTrue(exists(path), f"{page.name}: {path}")
        self.assertGreater(named, 100)

    def test_the_way_by_hand_is_what_injection_writes(self):
        """Both languages show the fields that `inject` gives the same Pod without them, and every Kubernetes takes them."""
        text = re.search(r"```yaml\n(apiVersion: v1\nkind: Pod\n.*?)```", (ROOT / "docs/install.md").read_text(), re.S)[1]
        by_hand = yaml.safe_load(text)
        for minor in schemas.MINORS:
            schemas.validate(by_hand, minor)
        fields = {key: by_hand["spec"].pop(key) for key in ("dnsPolicy", "dnsConfig")}
        chinese = re.search(r"```yaml\n(dnsPolicy: None\n.*?)```", (ROOT / "docs/zh/install.md").read_text(), re.S)[1]
        self.assertEqual(yaml.safe_load(chinese), fields)
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(by_hand, file)
            file.flush()
            command = [program(self, "NODENS_ADMISSION_BIN", "nodens-admission"), "inject", "-q", "-f", file.name, "--kube-dns-ip=172.21.0.10"]
            injected = yaml.safe_load(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        self.assertEqual({key: injected["spec"][key] for key in fields}, fields)

    def test_the_kubelets_way_names_the_same_servers_in_both_spellings(self):
        for page in ("docs/install.md", "docs/zh/install.md"):
            text = (ROOT / page).read_text()
            configuration = yaml.safe_load(re.search(r"```yaml\n(# KubeletConfiguration\n.*?)```", text, re.S)[1])
            self.assertEqual(configuration, {"clusterDNS": ["169.254.20.10", "172.21.0.10"], "clusterDomain": "cluster.local"})
            self.assertEqual(re.findall(r"--cluster-dns (\S+)", text)[:2], configuration["clusterDNS"])
            self.assertIn(f"--cluster-domain {configuration['clusterDomain']}", text)

    def test_tests_that_the_comparison_names_exist(self):
        """Its second column is ours, and what it says of us is shown by a test."""
        sources = "\n".join(path.read_text() for folder in ("agent", "node", "core", "cache", "runtime", "admission", "deploy") for kind in ("*.rs", "*.py")
                            for path in (ROOT / folder).rglob(kind))
        defined = set(re.findall(r"\b(?:fn|def) (\w+)", sources))
        named = [name for name in re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+){2,})`", (ROOT / "docs/comparison.md").read_text())]
        self.assertGreater(len(named), 30)
        self.assertEqual([name for name in named if name not in defined], [])

    def test_commands_in_pages_exist(self):
        """Each `nodens-admission` command and each Make target that a page tells people to run."""
        commands = (ROOT / "admission/src/cli.rs").read_text()
        targets = (ROOT / "Makefile").read_text()
        for page in PAGES:
            text = page.read_text()
            for command in re.findall(r"(?:`|\$ )nodens-admission ([a-z-]+)", text):
                self.assertIn(f'"{command}"', commands, page.name)
            for target in re.findall(r"(?:`|\$ )make ([a-z-]+)", text):
                self.assertRegex(targets, rf"(?m)^{target}:", page.name)


if __name__ == "__main__":
    unittest.main()
