"""The TypeScript client is made from the document of today, which lints, and its compiler and its own tests agree."""

import subprocess
from pathlib import Path

import pytest

from clients import generate


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate.write_document(tmp_path_factory.mktemp("document") / "openapi.json")


def passes(done: "subprocess.CompletedProcess[str]") -> str:
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def test_the_document_lints_without_a_warning(document):
    said = passes(
        generate.run_tool("redocly", "lint", document, "--config", generate.HERE / "redocly.yaml", "--format=stylish")
    )
    assert "warning" not in said
    assert "is valid" in said


def test_the_linter_finds_what_is_wrong(tmp_path):
    wrong = tmp_path / "openapi.json"
    wrong.write_text('{"openapi": "3.1.0", "info": {"title": "x", "version": "1"}, "paths": {}}')
    linted = generate.run_tool("redocly", "lint", wrong, "--config", generate.HERE / "redocly.yaml")
    assert linted.returncode == 1, "a licence, servers and security are missing"


def test_the_committed_types_are_made_from_the_routes_of_today(document, tmp_path):
    generate.write_types(document, tmp_path / "schema.ts")
    made = (tmp_path / "schema.ts").read_bytes()
    assert made == generate.SCHEMA.read_bytes(), "the client is stale: make clients, and commit what it changes"


def test_the_client_and_its_tests_are_strictly_typed():
    passes(generate.run_tool("tsc"))


@pytest.mark.parametrize("what", ["sending", "following"])
def test_the_client_does_as_it_says(what):
    passes(generate.run_node("--test", "--test-reporter=spec", f"tests/{what}.test.ts"))
