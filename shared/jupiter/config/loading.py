"""From YAML files, environment and command line to one validated configuration.

Owns: the order of layers, where each value came from, and error messages that name file, key and remedy.
Does not know: what a setting means (`sections`).
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from jupiter.config import ClusterConfig, DomainConfig
from jupiter.config.request_size import check_request_size
from jupiter.config.secrecy import may_be_repeated
from jupiter.errors import ConfigError

__all__ = [
    "CLUSTER_FILE",
    "DOMAINS_DIRECTORY",
    "assigned",
    "cluster_from",
    "config_from_arguments",
    "load_cluster",
    "load_domain",
    "load_domain_of",
    "settings_as_environment",
]

CLUSTER_FILE = Path("config/cluster.yaml")
DOMAINS_DIRECTORY = Path("config/domains")
_PREFIX = "JUPITER_"
_FILE = "_file"
# No settings: variables of the crash tests (`crashpoints`), and the key with which a person calls the API.
_NOT_SETTINGS = frozenset({"JUPITER_CRASH_AFTER", "JUPITER_CRASH_MARKER", "JUPITER_API_KEY"})

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class _Layer:
    """Values from one place, and what to call it in a message."""

    source: str
    values: Mapping[str, Any]


def load_cluster(
    paths: Sequence[Path] = (),
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    base: Path = CLUSTER_FILE,
) -> ClusterConfig:
    """Return the configuration; later layers win: `base` (if it exists), `paths`, `environ`, `overrides`.

    `environ` defaults to the process's; `overrides` maps dotted keys (`trainer.seed`) to values. Raises ConfigError.
    """
    layers = [_read(path) for path in ([base] if base.exists() else []) + list(paths)]
    layers += _from_environment(os.environ if environ is None else environ)
    layers += [_Layer("the command line", _nested(key.split("."), value)) for key, value in (overrides or {}).items()]
    return _validated(ClusterConfig, layers)


def cluster_from(values: Mapping[str, Any], source: str) -> ClusterConfig:
    """Return the configuration of `values` over the defaults; messages call it `source`. Raises ConfigError."""
    return _validated(ClusterConfig, [_Layer(source, values)])


def load_domain_of(config: ClusterConfig, directory: Path = DOMAINS_DIRECTORY) -> DomainConfig:
    """Return the domain that the deployment works on. Raises ConfigError, also where the two do not fit together."""
    domain = load_domain(config.domain, directory)
    check_request_size(config, domain)
    return domain


def load_domain(name: str, directory: Path = DOMAINS_DIRECTORY) -> DomainConfig:
    """Return `<directory>/<name>.yaml`. Raises ConfigError, naming the domains that there are."""
    path = directory / f"{name}.yaml"
    if not path.exists():
        known = sorted(found.stem for found in directory.glob("*.yaml"))
        raise ConfigError(
            f"there is no domain {name!r}: {path} does not exist"
            + _suggestion(name, known)
            + f" ({', '.join(known) or 'no domain'} in {directory}; `jupiter new-domain {name}` makes one)"
        )
    layer = _read(path)
    layer = _Layer(layer.source, {"name": name, **layer.values})
    config = _validated(DomainConfig, [layer])
    if config.name != name:
        raise ConfigError(f"{path}: name is {config.name!r}, the file's name says {name!r}; make them the same")
    return config


def settings_as_environment(config: ClusterConfig) -> dict[str, str]:
    """Return the environment with which `load_cluster` yields this very configuration in a child process."""

    def leaves(values: Mapping[str, Any], name: str) -> Iterator[tuple[str, str]]:
        for key, value in values.items():
            variable = f"{name}{key.upper()}"
            if isinstance(value, dict):
                yield from leaves(value, f"{variable}__")
            else:
                yield variable, value if isinstance(value, str) else json.dumps(value)

    return dict(leaves(config.model_dump(mode="json"), _PREFIX))


def assigned(assignments: Sequence[str]) -> dict[str, str | None]:
    """Return key to value of `--set KEY=VALUE`, the last of a key wins. Raises ConfigError for one without a value."""
    for assignment in assignments:
        if "=" not in assignment:
            raise ConfigError(
                f"--set {assignment}: no value; write --set {assignment}=VALUE (nothing after = is empty)"
            )
    parts = (assignment.partition("=") for assignment in assignments)
    return {key.strip(): _value(text) for key, _, text in parts}


def config_from_arguments(program: str, arguments: Sequence[str] | None = None) -> ClusterConfig:
    """Parse a service's command line (`--config FILE … --set KEY=VALUE …`); a wrong setting is one line and exit 2."""
    parser = argparse.ArgumentParser(prog=program, description=f"The {program} service of Jupiter.")
    parser.add_argument(
        "--config",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help=f"overlay on {CLUSTER_FILE}; repeatable",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="one setting, e.g. trainer.seed=1; repeatable"
    )
    parsed = parser.parse_args(arguments)
    try:
        return load_cluster(parsed.config, overrides=assigned(parsed.set))
    except ConfigError as error:
        parser.error(str(error))


class _StrictLoader(yaml.SafeLoader):
    """YAML in which the same key twice is an error: the second would win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                raise yaml.MarkedYAMLError(
                    problem=f"{key!r} stands here twice", problem_mark=node.value[index][0].start_mark
                )
        return super().construct_mapping(node, deep=deep)


def _read(path: Path) -> _Layer:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)  # noqa: S506 — a SafeLoader
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{where}: {getattr(error, 'problem', None) or error}") from error
    if values is None:
        return _Layer(str(path), {})
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected `key: value` lines, found {type(values).__name__}")
    return _Layer(str(path), values)


def _from_environment(environ: Mapping[str, str]) -> list[_Layer]:
    """Return one layer per `JUPITER_*` variable; `__` separates section and key, `…_FILE` names a file of the value."""
    layers = []
    known = dict(_keys(ClusterConfig))
    for variable, text in sorted(environ.items()):
        if variable.startswith(_PREFIX) and variable not in _NOT_SETTINGS:
            keys = variable.removeprefix(_PREFIX).lower().split("__")
            setting = ".".join(keys)
            if setting not in known and setting.removesuffix(_FILE) in known and setting.endswith(_FILE):
                layers.append(_from_named_file(variable, text, setting.removesuffix(_FILE)))
                continue
            layers.append(_Layer(f"environment variable {variable}", _nested(keys, _value(text))))
    return layers


def _value(text: str) -> str | None:
    """Return what stands in a variable or after `--set`: an unset setting is written as JSON and YAML do."""
    return None if text == "null" else text


def _from_named_file(variable: str, path: str, setting: str) -> _Layer:
    """Return what the file that a `JUPITER_…_FILE` variable names says of one setting: how secrets are mounted."""
    try:
        value = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"environment variable {variable} names {path}, which cannot be read: {error}") from error
    return _Layer(f"{path} (environment variable {variable})", _nested(setting.split("."), value))


def _nested(keys: Sequence[str], value: Any) -> dict[str, Any]:
    for key in reversed(keys):
        value = {key: value}
    return dict(value)


def _validated(model: type[M], layers: Sequence[_Layer]) -> M:
    sources: dict[str, str] = {}
    merged: dict[str, Any] = {}
    known = dict(_keys(model))
    for layer in layers:
        values = _with_sections(layer.values, known)
        for key in _dotted(values, known):
            if key not in known:
                raise ConfigError(f"{layer.source}: unknown key {key}{_suggestion(key, list(known))}")
            sources[key] = layer.source
        merged = _merge(merged, values)
    try:
        return model.model_validate(merged)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(item, sources, model) for item in _causes(error))) from error


def _causes(error: ValidationError) -> list[Any]:
    """Return the problems, without those of a whole that only follow from a problem of its part."""
    items = error.errors(include_url=False)
    wholes = {item["loc"][:length] for item in items for length in range(len(item["loc"]))}
    return [item for item in items if item["loc"] not in wholes]


def _explain(item: Any, sources: Mapping[str, str], model: type[BaseModel]) -> str:
    names = [str(part) for part in item["loc"]]
    key = ".".join(names)
    source = next(
        (sources[".".join(names[:n])] for n in range(len(names), 0, -1) if ".".join(names[:n]) in sources),
        next((source for name, source in sources.items() if name.startswith(f"{key}.")), "the configuration"),
    )
    shown = item["type"] != "missing" and may_be_repeated(model, item["loc"])
    seen = f" (it is {item['input']!r})" if shown else ""
    return f"{source}: {key}: {item['msg'].removeprefix('Value error, ')}{seen}"


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Yield every dotted key of the model, and whether it is a section."""
    for name, info in model.model_fields.items():
        section = isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)
        yield f"{prefix}{name}", section
        if section and isinstance(info.annotation, type):
            yield from _keys(info.annotation, f"{prefix}{name}.")


def _with_sections(values: Mapping[str, Any], known: Mapping[str, bool], prefix: str = "") -> dict[str, Any]:
    """Return the values with `{}` for a section under which nothing stands: YAML reads that as null."""
    filled = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if known.get(key, False) and (value is None or isinstance(value, dict)):
            filled[name] = _with_sections(value or {}, known, f"{key}.")
        else:
            filled[name] = value
    return filled


def _dotted(values: Mapping[str, Any], known: Mapping[str, bool], prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of nested values, entering sections only."""
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and known.get(key, False):
            yield from _dotted(value, known, f"{key}.")
        else:
            yield key


def _merge(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(lower)
    for name, value in upper.items():
        below = merged.get(name)
        merged[name] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _suggestion(key: str, known: Sequence[str]) -> str:
    """Return the nearest known key: of the same section, else one with the same last part."""
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    last = {name.rsplit(".", 1)[-1]: name for name in known}
    close = close or [last[name] for name in difflib.get_close_matches(key.rsplit(".", 1)[-1], list(last), n=1)]
    return f"; did you mean {close[0]}?" if close else ""
