"""Reads and writes reports."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from bot.errors import ConfigurationError
from bot.load.report import page, texts
from bot.load.report.model import Report

JSON, HTML, JUNIT, SUMMARY = "report.json", "report.html", "junit.xml", "summary.md"


def check_writable(directory: Path, option: str) -> None:
    """See that reports can be written before an hour of measuring is. Raises ConfigurationError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigurationError(f"{option} {directory}: {error.strerror}") from error


def write(report: Report, directory: Path) -> list[Path]:
    """Write all forms of it to ``directory``, made where it is missing; each is there whole or not at all."""
    directory.mkdir(parents=True, exist_ok=True)
    contents = {
        JSON: (report.model_dump_json(indent=1) + "\n").encode(),
        HTML: page.render(report).encode(),
        JUNIT: texts.junit(report),
        SUMMARY: texts.markdown(report).encode(),
    }
    return [_write(directory / name, content) for name, content in contents.items()]


def _write(path: Path, content: bytes) -> Path:
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    return part.replace(path)


def read(path: Path) -> Report:
    """The report of a ``report.json``, or of the directory that holds it. Raises ConfigurationError."""
    file = path / JSON if path.is_dir() else path
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"{file} is no report: {error}") from error
    if isinstance(data, dict) and data.get("schema_version") != 1:
        raise ConfigurationError(f"{file} is no report of version 1, but of {data.get('schema_version')!r}")
    try:
        return Report.model_validate(data)
    except ValidationError as error:
        item = error.errors()[0]
        place = ".".join(map(str, item["loc"]))
        raise ConfigurationError(f"{file} is no report: {place}: {item['msg']}") from error
