"""The page of what never ran is current, names code that exists, and leaves out no backend that no test runs."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

from emo_models.engines.backends import TABLE

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("make_unexecuted", ROOT / "docs" / "make_unexecuted.py")
assert SPEC is not None
make_unexecuted = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(make_unexecuted)

#: Backends that test_build.py runs.
HAVE_RUN = {"openvino", "onnxruntime", "eager"}


def test_the_page_is_current() -> None:
    """If not: .venv/bin/python docs/make_unexecuted.py."""
    assert make_unexecuted.PAGE.read_text(encoding="utf-8") == make_unexecuted.page()


@pytest.mark.parametrize("path", make_unexecuted.PATHS, ids=lambda path: path.what[:30])
def test_the_code_exists(path) -> None:
    file, _, name = path.code.partition(":")
    source = (ROOT / file).read_text(encoding="utf-8")
    if name:
        nodes = ast.parse(source).body
        assert name in {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)}


def test_every_backend_has_run_or_is_listed() -> None:
    listed = {path.code for path in make_unexecuted.PATHS}
    for name, target in TABLE.items():
        module, _, kind = target.partition(":")
        file = f"{module.replace('.', '/')}.py"
        assert name in HAVE_RUN or {file, f"{file}:{kind}"} & listed, name
