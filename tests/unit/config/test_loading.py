"""Settings: layers, and errors that name file, key and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupiter.config import ClusterConfig, DomainConfig
from jupiter.config.loading import (
    assigned,
    config_from_arguments,
    load_cluster,
    load_domain,
    settings_as_environment,
)
from jupiter.config.reference import cluster_yaml
from jupiter.errors import ConfigError
from tests.unit.config.reading import settings_of, settings_read

ROOT = Path(__file__).parents[3]
NOWHERE = Path("/nonexistent/cluster.yaml")


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_without_layers_there_are_the_defaults() -> None:
    assert load_cluster(environ={}, base=NOWHERE) == ClusterConfig()


def test_later_layers_win(tmp_path: Path) -> None:
    base = write(tmp_path / "cluster.yaml", "trainer: {seed: 1, learning_rate: 1e-4, warmup_steps: 7}\n")
    overlay = write(tmp_path / "demo.yaml", "trainer: {seed: 2}\ncontroller: {sampling: {temperature: 0.5}}\n")
    config = load_cluster(
        [overlay], {"JUPITER_TRAINER__SEED": "3", "PATH": "/bin"}, {"trainer.learning_rate": "2e-4"}, base=base
    )
    assert (config.trainer.seed, config.trainer.learning_rate, config.trainer.warmup_steps) == (3, 2e-4, 7)
    assert config.controller.sampling.temperature == 0.5
    assert config.controller.sampling.top_p == 0.95


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainer: {learning_rat: 1}", "f.yaml: unknown key trainer.learning_rat; did you mean trainer.learning_rate?"),
        ("learning_rate: 1", "f.yaml: unknown key learning_rate; did you mean trainer.learning_rate?"),
        ("trainers: {seed: 1}", "f.yaml: unknown key trainers; did you mean trainer?"),
        ("xyzzy: 1", "f.yaml: unknown key xyzzy"),
        ("controller: {sampling: {temprature: 1}}", "did you mean controller.sampling.temperature?"),
        ("trainer: {learning_rate: -1}", "f.yaml: trainer.learning_rate: Input should be greater than 0 (it is -1)"),
        ("trainer: {run: ''}", "f.yaml: trainer.run: String should match pattern"),
        ("trainer: {run: a/b}", "f.yaml: trainer.run: String should match pattern"),
        ("trainer: 3", "f.yaml: trainer: Input should be"),
        ("self_improvement: {eval_every_steps: true}", "eval_every_steps: a number was expected, not yes or no (it is"),
        ("self_improvement: {improvement_threshold: yes}", "improvement_threshold: a number was expected, not yes or"),
        ("local: {source_entries_max: on}", "local.source_entries_max: a number was expected, not yes or no (it is"),
        ("trainer: {learning_rate: .inf}", "trainer.learning_rate: Input should be a finite number (it is inf)"),
        ("trainer: {learning_rate: .nan}", "trainer.learning_rate: Input should be a finite number (it is nan)"),
        ("trainer: {device: gpu}", "f.yaml: trainer.device: String should match pattern"),
        ("evaluator: {device: gpu}", "f.yaml: evaluator.device: String should match pattern"),
        ("generator: {device: 'cuda:x'}", "f.yaml: generator.device: String should match pattern"),
        ("s3: {endpoint: 'http://minio:9000'}", "s3.endpoint: expected host:port without a scheme; `s3.secure: true`"),
        ("s3: {endpoint: 'minio:9000/bucket'}", "s3.endpoint: expected host:port without a scheme"),
        ("trainer: {seed: 1}\ntrainer: {seed: 2}", "f.yaml, line 2: 'trainer' stands here twice"),
        ("trainer: {seed: 1", "f.yaml, line 1"),
        ("- a", "f.yaml: expected `key: value` lines, found list"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_cluster([write(tmp_path / "f.yaml", text)], {}, base=NOWHERE)
    assert message in str(caught.value)


@pytest.mark.parametrize("endpoint", ["minio:9000", "s3.example.org", "10.0.0.1:9000", "[::1]:9000"])
def test_an_endpoint_is_a_host_with_or_without_a_port(endpoint: str) -> None:
    assert load_cluster(environ={"JUPITER_S3__ENDPOINT": endpoint}, base=NOWHERE).s3.endpoint == endpoint


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1", "mps"])
def test_a_device_is_one_that_torch_can_compute_on(device: str) -> None:
    assert load_cluster(environ={"JUPITER_TRAINER__DEVICE": device}, base=NOWHERE).trainer.device == device


def test_a_section_of_which_nothing_is_left_changes_nothing(tmp_path: Path) -> None:
    base = write(tmp_path / "cluster.yaml", "trainer: {seed: 3}\ncontroller:\n  sampling:\n")
    overlay = write(tmp_path / "demo.yaml", "trainer:\ns3:\n")
    config = load_cluster([overlay], {}, base=base)
    assert config == ClusterConfig.model_validate({"trainer": {"seed": 3}})


def test_null_unsets_a_setting_wherever_it_stands(tmp_path: Path) -> None:
    base = write(tmp_path / "cluster.yaml", "local: {source_entries_max: 50}\n")
    overlay = write(tmp_path / "all.yaml", "local: {source_entries_max: null}\n")
    for config in (
        load_cluster([overlay], {}, base=base),
        load_cluster((), {"JUPITER_LOCAL__SOURCE_ENTRIES_MAX": "null"}, base=base),
        load_cluster((), {}, assigned(["local.source_entries_max=null"]), base=base),
    ):
        assert config.local.source_entries_max is None


def test_a_wrong_variable_is_explained() -> None:
    with pytest.raises(ConfigError, match=r"environment variable JUPITER_TRAINER__SEDE.*did you mean trainer.seed"):
        load_cluster(environ={"JUPITER_TRAINER__SEDE": "1"}, base=NOWHERE)
    with pytest.raises(ConfigError, match=r"environment variable JUPITER_TRAINER__SEED: trainer.seed"):
        load_cluster(environ={"JUPITER_TRAINER__SEED": "one"}, base=NOWHERE)
    with pytest.raises(ConfigError, match=r"the command line: unknown key trainer.sede"):
        load_cluster(environ={}, overrides={"trainer.sede": 1}, base=NOWHERE)


def test_a_missing_overlay_is_explained() -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_cluster([Path("/nonexistent/demo.yaml")], {}, base=NOWHERE)


def test_the_variables_of_crash_tests_are_no_settings() -> None:
    assert load_cluster(environ={"JUPITER_CRASH_AFTER": "event"}, base=NOWHERE) == ClusterConfig()


def test_a_configuration_goes_through_the_environment() -> None:
    config = ClusterConfig.model_validate(
        {
            "instance": "one",
            "data_dir": "/some where",
            "trainer": {"learning_rate": 3e-5, "control": "shuffled"},
            "s3": {"access_key": "123", "secret_key": "true"},
            "self_improvement": {"always_keep_base_generator": False},
        }
    )
    assert load_cluster(environ=settings_as_environment(config), base=NOWHERE) == config


def test_a_service_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overlay = write(tmp_path / "demo.yaml", "trainer: {seed: 5}\n")
    config = config_from_arguments("trainer", ["--config", str(overlay), "--set", "trainer.run=other"])
    assert (config.trainer.seed, config.trainer.run) == (5, "other")
    with pytest.raises(SystemExit) as caught:
        config_from_arguments("trainer", ["--set", "trainer.rum=other"])
    assert caught.value.code == 2
    assert "did you mean trainer.run?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        config_from_arguments("trainer", ["--set", "trainer.run"])
    assert "--set trainer.run: no value; write --set trainer.run=VALUE" in capsys.readouterr().err


def test_a_domain(tmp_path: Path) -> None:
    write(tmp_path / "birds.yaml", "description: Birds.\ntasks: [{task: question_answer}]\n")
    assert load_domain("birds", tmp_path).tasks[0].weight == 1.0
    with pytest.raises(ConfigError, match=r"no domain 'brids'.*did you mean birds\?"):
        load_domain("brids", tmp_path)
    write(tmp_path / "fish.yaml", "name: fishes\ndescription: Fish.\ntasks: [{task: question_answer}]\n")
    with pytest.raises(ConfigError, match="make them the same"):
        load_domain("fish", tmp_path)
    write(tmp_path / "fish.yaml", "descripton: Fish.\n")
    with pytest.raises(ConfigError, match=r"unknown key descripton; did you mean description\?"):
        load_domain("fish", tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("audiences: []", "fish.yaml: audiences: Tuple should have at least 1 item"),
        ("difficulties: []", "fish.yaml: difficulties: Tuple should have at least 1 item"),
        ("tasks: []", "fish.yaml: tasks: Tuple should have at least 1 item"),
        ("tasks: [{task: rewrite, weight: .inf}]", "fish.yaml: tasks.0.weight: Input should be a finite number"),
        ("tasks: [{task: rewrite, weight: yes}]", "fish.yaml: tasks.0.weight: a number was expected, not yes or no"),
    ],
)
def test_a_domain_from_which_nothing_can_be_drawn_is_refused_with_one_reason(
    tmp_path: Path, line: str, message: str
) -> None:
    tasks = "" if line.startswith("tasks") else "tasks: [{task: rewrite}]\n"
    write(tmp_path / "fish.yaml", f"description: Fish.\n{tasks}{line}\n")
    with pytest.raises(ConfigError) as caught:
        load_domain("fish", tmp_path)
    assert message in str(caught.value)
    assert "; " not in str(caught.value)


def test_every_domain_of_the_repository_is_valid() -> None:
    directory = ROOT / "config" / "domains"
    for path in directory.glob("*.yaml"):
        assert load_domain(path.stem, directory).name == path.stem


def test_the_file_in_the_repository_holds_every_default() -> None:
    path = ROOT / "config" / "cluster.yaml"
    assert path.read_text() == cluster_yaml(), "run `make docs`"
    assert load_cluster(environ={}, base=path) == ClusterConfig()


def test_every_setting_is_read_from_its_own_section() -> None:
    files = [path for root in ("shared", "services") for path in (ROOT / root).rglob("*.py")]
    assert settings_of(ClusterConfig, DomainConfig) - settings_read(files) == set()


def test_a_setting_that_only_shares_its_name_with_one_that_is_read_is_not_read(tmp_path: Path) -> None:
    code = write(
        tmp_path / "code.py",
        """
        class Deps:
            config: ClusterConfig
            mixed: DomainConfig

        def seeds(deps: Deps, settings: GeneratorSection, document: Document) -> None:
            trainer = deps.config.trainer
            print(trainer.seed, settings.vllm.max_model_len, document.license)
            print([mix.weight for mix in deps.mixed.tasks])
        """.replace("\n        ", "\n"),
    )
    assert settings_read([code]) & settings_of(ClusterConfig, DomainConfig) == {
        ("TrainerSection", "seed"),
        ("VllmSection", "max_model_len"),
        ("TaskMix", "weight"),
    }


def test_a_variable_that_ends_in_file_names_a_file_with_the_value(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret", "of the file\n")
    config = load_cluster(environ={"JUPITER_S3__SECRET_KEY_FILE": str(secret)}, base=NOWHERE)
    assert config.s3.secret_key == "of the file"
    # A setting whose own name ends so is no such variable.
    config = load_cluster(environ={"JUPITER_CONTROLLER__STATE_FILE": "there.json"}, base=NOWHERE)
    assert config.controller.state_file == Path("there.json")
    with pytest.raises(ConfigError, match="JUPITER_S3__SECRET_KEY_FILE names /nonexistent/x, which cannot be read"):
        load_cluster(environ={"JUPITER_S3__SECRET_KEY_FILE": "/nonexistent/x"}, base=NOWHERE)
