"""Check that commands, policies, names and links in the documentation match the template and the code."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, get_args

import pytest

from meibo.archive.outcomes import OutcomeCode
from meibo.providers import provider
from meibo_local.template import ROOT
from tests.support.template import Template

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md"), *(ROOT / ".github").glob("**/*.md")])
# The Japanese page of each English page, and the sections of the English page that it contains; none means all.
JAPANESE: dict[str, tuple[str, tuple[str, ...]]] = {
    "README.md": ("README.ja.md", ()),
    "docs/deploy.md": ("docs/ja/deploy.md", ()),
    "docs/operations.md": (
        "docs/ja/operations.md",
        ("Operations", "Alarms", "Repair a run", "Errors and how to fix them"),
    ),
    "docs/restore.md": ("docs/ja/restore.md", ()),
    "docs/upgrading.md": ("docs/ja/upgrading.md", ()),
}
OPERATIONS = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "layers/meibo/meibo"
PREFIXES_IN_THE_BUCKET = frozenset({"parts/", "runs/", "reports/", "verifications/"})
KEY = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"


def _blocks(text: str, *languages: str) -> list[str]:
    """Return the blocks of a page in one of these languages, without their indentation in a list."""
    found = re.findall(rf"^( *)```(?:{'|'.join(languages)})\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def _commands(text: str) -> list[str]:
    """Return the commands of a page's bash blocks, with continuation lines joined and without comments."""
    joined = "\n".join(_blocks(text, "bash")).replace("\\\n", " ")
    return [command for line in joined.splitlines() if (command := re.sub(r"(^|\s{2,})#.*$", "", line).strip())]


def _sections(text: str, titles: tuple[str, ...]) -> str:
    """Return the sections of a page with these titles, or the whole page if there are no titles."""
    parts = re.split(r"^(?=##? )", text, flags=re.MULTILINE)
    return "".join(part for part in parts if not titles or part.partition("\n")[0].lstrip("# ") in titles)


def _statement(sid: str) -> dict[str, Any]:
    """Return a policy statement of the operations page."""
    blocks = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", OPERATIONS, re.DOTALL)]
    (block,) = (block for block in blocks if block.get("Sid") == sid)
    statement: dict[str, Any] = block
    return statement


def test_documented_datasets_of_auth0_are_those_of_the_code() -> None:
    page = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z_]+)` \| ([^|]+) \| [^|]+ \| `[a-z]+:", page, re.MULTILINE)

    assert {name: tuple(re.findall(r"`(\w+)`", formats)) for name, formats in rows} == {
        dataset.name: dataset.formats for dataset in provider("auth0").datasets
    }


def test_documented_codes_of_rejected_changes_are_those_of_the_code() -> None:
    page = (ROOT / "docs/changes.md").read_text(encoding="utf-8")
    table = page.partition("| code | meaning |")[2].partition("\n\n")[0]

    codes = [
        code for row in re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE) for code in re.findall(r"`(\w+)`", row)
    ]

    assert sorted(codes) == sorted(get_args(OutcomeCode))


def test_documented_invocations_disable_the_read_timeout() -> None:
    # By default the AWS CLI times out after 60 seconds and invokes the function again:
    # https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-options.html
    invocations = {
        (page.name, command)
        for page in PAGES
        for command in _commands(page.read_text(encoding="utf-8"))
        if command.startswith("aws lambda invoke ")
    }

    assert {page for page, _ in invocations} >= {"README.md", "README.ja.md", "deploy.md", "operations.md"}
    assert [command for _, command in invocations if "--cli-read-timeout 0 " not in command] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_documented_command_can_be_copied(page: Any) -> None:
    text = page.read_text(encoding="utf-8")

    assert text.count("aws lambda invoke") == sum("aws lambda invoke" in command for command in _commands(text))
    # Commands have no prompt, and every block states its language.
    assert re.findall(r"^ *\$ .*$", text, re.MULTILINE) == []
    fences = re.findall(r"^ *```(.*)$", text, re.MULTILINE)
    assert [language for language in fences[::2] if not language or language == "console"] == []


@pytest.mark.parametrize("page", JAPANESE)
def test_japanese_pages_show_the_same_commands(page: str) -> None:
    translated, titles = JAPANESE[page]
    english = _sections((ROOT / page).read_text(encoding="utf-8"), titles)
    japanese = (ROOT / translated).read_text(encoding="utf-8")

    assert _commands(japanese) == _commands(english)
    assert _blocks(japanese, "json", "csv", "text") == _blocks(english, "json", "csv", "text")


def test_documented_key_policy_covers_the_grants_of_the_roles(translate: Callable[..., Template]) -> None:
    template = translate(CustomerKeyArn=KEY)
    granted = [
        statement
        for role in template.of_type("AWS::IAM::Role")
        for statement in template.statements(role)
        if any(action.startswith("kms:") for action in statement["Action"])
    ]
    services = [statement["Condition"]["StringEquals"]["kms:ViaService"] for statement in granted]

    documented = _statement("MeiboThroughS3AndSecretsManager")

    assert set(documented["Action"]) == {action for statement in granted for action in statement["Action"]}
    assert {service.replace("ap-northeast-1", "eu-central-1") for service in _via(documented)} == {
        service for value in services for service in ([value] if isinstance(value, str) else value)
    }


def _via(statement: dict[str, Any]) -> list[str]:
    services: list[str] = statement["Condition"]["StringEquals"]["kms:ViaService"]
    return services


def test_documented_log_bucket_policy_covers_the_prefix_of_the_stack(
    translate: Callable[..., Template],
) -> None:
    logging = translate(AccessLogBucket="access-log-bucket").properties("ArchiveBucket")["LoggingConfiguration"]

    documented = _statement("S3ServerAccessLogs")

    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/enable-server-access-logging.html
    assert documented["Principal"] == {"Service": "logging.s3.amazonaws.com"}
    assert documented["Action"] == "s3:PutObject"
    assert (
        documented["Resource"].lower() == f"arn:aws:s3:::{logging['DestinationBucketName']}/{logging['LogFilePrefix']}*"
    )


def test_names_in_the_deployment_checklist_exist_in_the_template(source: dict[str, Any]) -> None:
    checklist = OPERATIONS.partition("## First deployment checklist")[2].partition("\n## ")[0]
    steps = re.findall(r"^\d+\. \*\*(.+?)\*\*", checklist, re.MULTILINE)

    assert steps[0] == "Copy a file larger than 5 MiB into a bucket that is less than one day old."
    known = {*source["Parameters"], *source["Resources"], *source["Outputs"]}
    named = set(re.findall(r"`([A-Z][a-z0-9]+(?:[A-Z][A-Za-z0-9]*)+)(?:=[^`]*)?`", checklist))
    # Error names of AWS and Meibo, which the template does not contain.
    assert named - known == {"AccessDenied", "LocationRefusedError", "SecretError"}


@pytest.mark.parametrize("page", ["docs/architecture.md", "docs/glossary.md", "CONTRIBUTING.md"])
def test_every_path_in_the_documentation_exists(page: str) -> None:
    paths = _paths((ROOT / page).read_text(encoding="utf-8"))

    missing = [path for path in paths if not any(any(folder.glob(_pattern(path))) for folder in (ROOT, PACKAGE))]

    assert len(paths) > 10
    assert missing == []


@pytest.mark.parametrize("path", ["exports/nothing.py", "src/nothing/", "tests/nothing", "functions/<name>/nothing.py"])
def test_missing_path_is_reported(path: str) -> None:
    assert _paths(f"Open `{path}` and `meibo ls`, not `parts/` of the bucket.") == [path]
    assert not any(any(folder.glob(_pattern(path))) for folder in (ROOT, PACKAGE))


def _paths(text: str) -> list[str]:
    """Return the files and folders of the repository that a page names in backticks.

    These are names with a slash at the end, a known suffix, or a known folder at the beginning. They are relative to
    the repository or to the package `meibo`, for which a page may also write `…/`.
    """
    path = r"(?:[a-z0-9_<>-]+/)*[a-z0-9][a-z0-9_.-]*\.(?:py|json|yaml|in|txt|md)|(?:…/)?(?:[a-z0-9_<>-]+/)+"
    below = r"(?:docs|events|functions|layers|requirements|scripts|src|statemachines|tests)/[a-z0-9_/.-]+"
    return [match for match in re.findall(rf"`({path}|{below})`", text) if match not in PREFIXES_IN_THE_BUCKET]


def _pattern(path: str) -> str:
    return re.sub(r"<\w+>", "*", path.removeprefix("…/")).rstrip("/")


def test_links_between_pages_are_not_broken() -> None:
    def anchors(text: str) -> set[str]:
        titles = re.findall(
            r"^#+ (.+)$", re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE
        )
        return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}

    broken = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r'<img src="([^"]+)"', text)]:
            path, _, anchor = target.partition("#")
            if "://" in target:
                continue
            linked = (page.parent / path) if path else page
            if not linked.exists() or (anchor and anchor not in anchors(linked.read_text(encoding="utf-8"))):
                broken.append(f"{page.name}: {target}")

    assert broken == []


def test_every_decision_is_in_the_index() -> None:
    text = (ROOT / "docs/decisions.md").read_text(encoding="utf-8")
    titles = re.findall(r"^## \S+ · (.+)$", text, re.MULTILINE)
    indexed = re.findall(r"^- \[(.+)\]\(#", text, re.MULTILINE)

    assert sorted(indexed) == sorted(titles)
