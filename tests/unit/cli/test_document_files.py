"""Files become documents, and what is not one is named with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupiter.cli.document_files import FILE_BYTES_MAX, Refused, Skipped, read_documents
from jupiter.records import DOCUMENT_CHARS_MAX, PublishedDocument


def read(*paths: Path, **defaults: str) -> tuple[list[PublishedDocument], list[Refused], list[Skipped]]:
    outcomes = list(read_documents(paths, defaults=dict(defaults)))
    return (
        [outcome for outcome in outcomes if isinstance(outcome, PublishedDocument)],
        [outcome for outcome in outcomes if isinstance(outcome, Refused)],
        [outcome for outcome in outcomes if isinstance(outcome, Skipped)],
    )


def test_text_markdown_and_python_are_one_document_each_with_their_path_as_source(tmp_path: Path) -> None:
    for name in ("b.md", "a.txt", "deep/c.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"the text of {name}")
    documents, refused, skipped = read(tmp_path)
    assert [document.source for document in documents] == [
        str(tmp_path / name) for name in ("a.txt", "b.md", "deep/c.py")
    ]
    assert documents[0].text == "the text of a.txt"
    assert not refused
    assert not skipped


@pytest.mark.parametrize(
    ("name", "text", "title"),
    [
        ("pods.md", "# Pods\n\nA Pod is ...", "Pods"),
        ("pods.md", "Intro.\n\n## The *life* of a [`Pod`](pod.md) ##\n", "The life of a Pod"),
        ("pods.md", '---\ntitle: "Pod overview"\nweight: 3\n---\n\n# Pods\n', "Pod overview"),
        ("pods.md", "---\nweight: 3\n---\n\n# Pods {#pods}\n", "Pods"),
        ("pods.md", "```sh\n# a comment\n```\n\nPods\n====\n", "Pods"),
        ("pods.rst", "====\nPods\n====\n\nA Pod is ...", "Pods"),
        ("pods.rst", ".. _label:\n\nAll about Pods\n~~~~~~~~~~~~~~\n", "All about Pods"),
        ("a_word-on-pods.md", "One paragraph\nand its end\n---\nanother.", "a word on pods"),
        ("pods.md", "# " + "far too long " * 30, "pods"),
        ("pod_life.txt", "# not a heading in plain text", "pod life"),
        ("pod_life.py", "# a comment\n", "pod life"),
    ],
)
def test_a_file_has_the_title_that_it_gives_itself(tmp_path: Path, name: str, text: str, title: str) -> None:
    (tmp_path / name).write_text(text)
    (document,), _, _ = read(tmp_path)
    assert document.title == title
    assert document.kind == "text"
    (document,), _, _ = read(tmp_path, title="given")
    assert document.title == "given"


def test_a_jsonl_file_holds_a_document_per_line_and_bad_lines_are_named(tmp_path: Path) -> None:
    lines = [
        '{"text": "one", "source": "urn:1", "kind": "api", "title": "json.dumps"}',
        "",
        '{"text": "two"}',
        "{nonsense",
        "[1]",
        '{"text": "three", "colour": "red"}',
        '{"text": "  "}',
    ]
    path = tmp_path / "many.jsonl"
    path.write_text("\n".join(lines))
    documents, refused, _ = read(path, license="MIT")
    assert [(document.text, document.source) for document in documents] == [("one", "urn:1"), ("two", f"{path}:3")]
    assert {document.license for document in documents} == {"MIT"}
    assert [outcome.where for outcome in refused] == [f"{path}:{number}" for number in (4, 5, 6, 7)]
    assert "not JSON" in refused[0].reason
    assert "list" in refused[1].reason
    assert "colour" in refused[2].reason
    assert "no text" in refused[3].reason


def test_what_is_hidden_or_of_another_kind_is_not_read(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config.txt").write_text("secret")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    documents, refused, skipped = read(tmp_path)
    assert not documents
    assert not refused
    assert [outcome.where for outcome in skipped] == [str(tmp_path / "picture.png")]


def test_a_file_of_another_kind_that_was_named_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"\x89PNG")
    assert "unknown kind '.png'" in read(path)[1][0].reason


def test_a_file_that_is_not_utf_8_empty_or_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    (tmp_path / "b.txt").write_text("\n")
    (tmp_path / "c.txt").write_text("x" * (DOCUMENT_CHARS_MAX + 1))
    with (tmp_path / "d.txt").open("wb") as stream:
        stream.truncate(FILE_BYTES_MAX + 1)
    _, refused, _ = read(tmp_path)
    reasons = [outcome.reason for outcome in refused]
    assert "not UTF-8: byte 3" in reasons[0]
    assert "no text" in reasons[1]
    assert "at most 1000000 characters" in reasons[2]
    assert "split it" in reasons[3]


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert read(tmp_path / "absent.txt")[1][0].reason == "No such file or directory"


def test_a_byte_order_mark_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfhello")
    assert read(tmp_path)[0][0].text == "hello"
