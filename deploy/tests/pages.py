"""The repository's pages as data: headings, links, fenced blocks, and the marks that say what a test does with a block.

Marks stand behind the language in a block's first line, where GitHub does not show them:

    console run         its commands (`$ …`) are run, and what is shown below one is what it prints; `…` stands for anything
    console start       the same, but its last command goes on: it has to say what is shown, and is ended with Ctrl-C after the page's last block
    LANGUAGE file=NAME  is written to the folder where the page's commands run
    yaml values         values that the chart takes

What needs a cluster, a registry or an hour has no mark.
"""

import re
import shlex
import subprocess
from dataclasses import dataclass

from support import ROOT

# Of the rest of a line, and of any number of lines where it is all that a line has.
ANYTHING = "…"


@dataclass
class Block:
    page: str
    line: int
    language: str
    marks: list
    text: str

    def __str__(self):
        return f"{self.page}:{self.line}"

    def commands(self):
        """Each command with the lines shown below it. A command goes on behind a backslash."""
        found = []
        for line in self.text.splitlines():
            if found and not found[-1][1] and found[-1][0].endswith("\\"):
                found[-1] = (f"{found[-1][0]}\n{line}", [])
            elif line.startswith("$ "):
                found.append((line[2:], []))
            elif found:
                found[-1][1].append(line)
            else:
                raise ValueError(f"{self}: `{line}` stands before the first command")
        return found


def all_pages():
    """Paths below the repository's root of all that is committed, or about to be."""
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True)
    return [path for path in listed.stdout.splitlines() if (ROOT / path).exists()]


def text(page):
    return (ROOT / page).read_text()


def blocks(page, content=None):
    found, opened = [], None
    for number, line in enumerate((content or text(page)).splitlines(), 1):
        assert not line[:1].isspace() or not line.lstrip().startswith("```"), f"{page}:{number}: a block that is indented is not seen here"
        if not line.startswith("```"):
            if opened:
                opened.text += line + "\n"
        elif opened:
            found.append(opened)
            opened = None
        else:
            language, *marks = line[3:].split() or [""]
            opened = Block(page, number, language, marks, "")
    assert opened is None, f"{opened}: this block has no end"
    return found


def prose(page):
    """Without fenced blocks."""
    return re.sub(r"^```.*?^```", "", text(page), flags=re.M | re.S)


def headings(page, level="#+"):
    return re.findall(rf"^{level} (.+)$", prose(page), re.M)


def anchor(heading):
    """As GitHub makes them."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def links(page):
    """Targets of links, those to other sites left out, as (page or file, fragment); a page that is linked to is named from the root."""
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        other = (ROOT / page).parent.joinpath(path).resolve() if path else ROOT / page
        found.append((str(other.relative_to(ROOT)), fragment))
    return found


def section(page, heading):
    """What stands below a heading, up to the next one of its level or above."""
    level, below, fenced = 0, [], False
    for line in text(page).splitlines():
        fenced ^= line.startswith("```")
        match = None if fenced else re.match(r"(#+) (.+)", line)
        if match and level and len(match[1]) <= level:
            break
        if match and match[2] == heading:
            level = len(match[1])
        elif level:
            below.append(line)
    assert level, f"{page} has no heading `{heading}`"
    return "\n".join(below)


def simple_commands(line):
    """A shell's line as the words of each command in it."""
    lexer = shlex.shlex(line.replace("\\\n", " "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found, words = [], []
    for word in [*lexer, ";"]:
        if set(word) <= set("();<>|&"):
            found.append(words)
            words = []
        else:
            words.append(word)
    return [words for words in found if words]


def told(page, *programs):
    """(place, words) of each command of these programs, in blocks and in the text; a program's name alone, or with `…` alone, is none."""
    lines = [(str(block), command) for block in blocks(page) if block.language == "console" for command, _ in block.commands()]
    lines += [(page, " ".join(span.split())) for span in re.findall(r"`([^`]+)`", prose(page)) if re.match(r"(?:nodens|nodens-admission|kubectl|helm) [a-z-]", span)]
    for place, line in lines:
        for words in simple_commands(line):
            # What a container is told to run is a command of its own.
            parts = [words[:words.index("--")], words[words.index("--") + 1:]] if "--" in words else [words]
            for part in parts:
                part = [word for word in part if word != ANYTHING]
                if len(part) > 1 and part[0].rpartition("/")[2] in programs:
                    yield place, part


def shown(lines, said, so_far=False):
    """Whether what was said is what a page shows; blanks count as one, however many. `so_far`: more may come."""
    wanted = ""
    for line in lines:
        if line.strip() == ANYTHING:
            wanted += r"(?:.*\n)*?"
        else:
            words = re.sub(r"\s+", " ", line).rstrip()
            wanted += ".*".join(re.escape(part) for part in words.split(ANYTHING)) + r"\n"
    said = "".join(re.sub(r"\s+", " ", line).rstrip() + "\n" for line in said.splitlines())
    return bool((re.match if so_far else re.fullmatch)(wanted, said))
