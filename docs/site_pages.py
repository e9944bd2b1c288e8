"""A hook of MkDocs: pages of the repository that are outside of `docs/` join the site, and links to them are kept."""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
#: The page in the repository -> the page in the site.
OUTSIDE = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "ARCHITECTURE.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "SECURITY.md": "SECURITY.md",
    "conformance/README.md": "conformance/README.md",
    "runtimes/cpp/README.md": "runtimes/cpp/README.md",
    "runtimes/web/README.md": "runtimes/web/README.md",
}
_LINK = re.compile(r"\[([^\[\]]*)\]\((?!https?:|#)([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are outside of `docs/`."""
    for path, uri in OUTSIDE.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Points links at the pages of the site; a link to a file that is not a page of it becomes its text."""
    uri = page.file.src_uri
    source = next((path for path, name in OUTSIDE.items() if name == uri), f"docs/{uri}")

    def link(match: re.Match[str]) -> str:
        text, target, anchor = match.groups()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if not (ROOT / path).exists():
            return match[0]  # MkDocs reports it.
        found = OUTSIDE.get(path, path.removeprefix("docs/"))
        if files.get_file_from_path(found) is None:
            return text
        return f"[{text}]({os.path.relpath(found, posixpath.dirname(uri) or '.')}{anchor or ''})"

    return _LINK.sub(link, markdown)
