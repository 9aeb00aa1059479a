"""What mkdocs does not do by itself: README.md is the first page, and links to the code lead out of the site.

A link to a file that is no page becomes a link into ``repo_url`` where mkdocs.yml names one, else plain text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
DOCS = "docs/"
LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")
FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
"""A block of code, in which nothing is a link."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add README.md as the first page."""
    files.append(File.generated(config, "index.md", content=(ROOT / "README.md").read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links that hold in the repository into links that hold on the site."""
    source = page.file.src_uri
    folder = "" if source == "index.md" else posixpath.dirname(DOCS + source)

    def translated(match: re.Match[str]) -> str:
        text, target = match.groups()
        path, hash_sign, anchor = target.partition("#")
        if "://" in target or not path:
            return match.group()
        in_repository = posixpath.normpath(posixpath.join(folder, path))
        on_site = "index.md" if in_repository == "README.md" else in_repository.removeprefix(DOCS)
        if files.get_file_from_path(on_site) and (in_repository.startswith(DOCS) or on_site == "index.md"):
            return f"[{text}]({posixpath.relpath(on_site, posixpath.dirname(source) or '.')}{hash_sign}{anchor})"
        if not (ROOT / in_repository).exists():
            return match.group()  # broken: mkdocs says so, and --strict fails
        return f"[{text}]({config.repo_url.rstrip('/')}/blob/HEAD/{in_repository})" if config.repo_url else text

    parts = FENCE.split(markdown)  # text and code by turns
    return "".join(part if number % 2 else LINK.sub(translated, part) for number, part in enumerate(parts))
