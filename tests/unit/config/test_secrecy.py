"""Secrets stay out of what people are shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from jupiter.config import ClusterConfig
from jupiter.config.loading import load_cluster
from jupiter.config.secrecy import without_secrets
from jupiter.errors import ConfigError

SECRET = "rediss://:hush@10.0.0.1"
SECRETS = [("s3", "secret_key"), ("nats", "nkey_seed"), ("controller", "api_keys"), ("curator", "redis_url")]


@pytest.mark.parametrize(("section", "key"), SECRETS)
def test_a_secret_is_shown_as_set_and_nowhere_in_clear(section: str, key: str) -> None:
    config = ClusterConfig.model_validate({section: {key: SECRET}})
    shown = without_secrets(config)
    assert shown[section][key] == "(set)"
    assert "hush" not in repr(config)
    assert shown == without_secrets(ClusterConfig()) | {section: shown[section]}


def test_what_is_not_set_and_what_is_no_secret_is_shown_as_it_is() -> None:
    assert without_secrets(ClusterConfig()) == ClusterConfig().model_dump(mode="json")


@pytest.mark.parametrize("wrong", [12345, ["hush"], {"hush": 1}, True])
@pytest.mark.parametrize(("section", "key"), SECRETS)
def test_an_error_does_not_repeat_a_secret(tmp_path: Path, section: str, key: str, wrong: Any) -> None:
    said = _error(tmp_path, {section: {key: wrong}})
    assert f"{section}.{key}: Input should be a valid string" in said
    assert not any(text in said for text in ("hush", "12345", "it is"))


def test_an_error_does_not_repeat_a_section_which_may_hold_one(tmp_path: Path) -> None:
    said = _error(tmp_path, {"s3": [{"secret_key": "hush"}]})
    assert "s3: Input should be a valid dictionary" in said
    assert "hush" not in said


def _error(directory: Path, values: dict[str, Any]) -> str:
    path = directory / "f.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError) as caught:
        load_cluster([path], {}, base=directory / "absent.yaml")
    return str(caught.value)
