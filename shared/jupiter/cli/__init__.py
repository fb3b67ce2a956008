"""The command line `jupiter`.

Owns: the list of commands, the options that all of them share, and how an error reads.
Does not know: what a command does (its module's `command`), and imports none before it is called: `--help`
answers in less than half a second. Nor which services there are: one that has a package `jupiter.<service>.commands`
with a dict COMMANDS adds those.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

import jupiter

__all__ = ["Settings", "cli", "main"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the options before the command said."""

    overlays: tuple[Path, ...]
    """Configuration files over `config/cluster.yaml`, later ones win."""
    assignments: tuple[str, ...]
    """Single settings, `trainer.seed=1`; they win over everything."""


# name -> (module under jupiter.cli.commands, its one-line help). The help stands here so that the list of commands
# needs no import; a test compares it with the command's own.
COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("up", "Run everything on this machine: the servers and the five services."),
    "demo": ("demo", "Run the whole self-improvement cycle for real, with a report."),
    "run": ("run", "Run one service in this process, as in a cluster."),
    "status": ("status", "Show what every part of the cycle is doing."),
    "publish": ("publish", "Publish documents of yours to a domain."),
    "samples": ("samples", "Show the newest samples, and why others were rejected."),
    "evaluations": ("evaluations", "List the evaluations and their verdicts."),
    "benchmark": ("benchmark", "Show how far the benchmark is spent, or renew it."),
    "promote": ("promote", "Make an evaluated checkpoint the generator."),
    "rollback": ("rollback", "Make an earlier version the generator again."),
    "lineage": ("lineage", "Show what a version was made from, or what came from a document."),
    "forget": ("forget", "Recall a document, and list all that came from it."),
    "history": ("history", "Show which version was the generator, when and why."),
    "plot": ("plot", "Draw the scores, the threshold and the promotions as PNG."),
    "dead-letters": ("dead_letters", "List, replay or drop messages that nobody could handle."),
    "new-domain": ("new_domain", "Write the configuration of a new domain."),
    "check": ("check", "Validate the configuration and show it as resolved."),
    "doctor": ("doctor", "Find out whether this machine can run Jupiter."),
    "docs": ("docs", "Write the reference of these commands, docs/cli.md."),
}


_HOMES = dict.fromkeys(COMMANDS, "jupiter.cli.commands")
"""name -> the package that its module is in."""


def _add_commands_of_services() -> None:
    """Found by looking at folders: importing what is not called would make `--help` slow."""
    for root in sorted({str(path) for path in jupiter.__path__}):
        for package in sorted(Path(root).glob("*/commands/__init__.py")):
            home = f"jupiter.{package.parent.parent.name}.commands"
            if home == "jupiter.cli.commands" or home in _HOMES.values():
                continue
            offered: dict[str, tuple[str, str]] = importlib.import_module(home).COMMANDS
            taken = sorted(set(offered) & set(COMMANDS))
            if taken:
                raise ImportError(f"{home} offers {taken[0]!r}, which {_HOMES[taken[0]]} has already")
            COMMANDS.update(offered)
            _HOMES.update(dict.fromkeys(offered, home))


_add_commands_of_services()


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"{_HOMES[name]}.{COMMANDS[name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean `jupiter {near[0]}`?" if near else "`jupiter --help` lists the commands"
            raise click.UsageError(f"there is no command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "overlays",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A file over config/cluster.yaml; may be given several times, later ones win.",
)
@click.option(
    "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="One setting, e.g. trainer.seed=1; repeatable."
)
@click.version_option(package_name="jupiter-cycle", prog_name="jupiter")
@click.pass_context
def cli(ctx: click.Context, overlays: tuple[Path, ...], assignments: tuple[str, ...]) -> None:
    """Jupiter: a model that generates its training data, learns from it, and takes over when it is better.

    Start with `jupiter up`. Settings come from config/cluster.yaml, files given by --config, JUPITER_*
    variables, and --set.
    """
    ctx.obj = Settings(overlays=overlays, assignments=assignments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; every error that a user can cause is one line on stderr, and no traceback."""
    code = run(sys.argv[1:] if arguments is None else list(arguments))
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Return the exit code: 0 done, 1 it failed, 2 the command or the configuration is wrong, 130 Ctrl-C."""
    from jupiter.errors import ConfigError, JupiterError

    try:
        outcome: Any = cli.main(arguments, prog_name="jupiter", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.UsageError as error:
        _complain(error.format_message())
        return 2
    except click.ClickException as error:
        _complain(error.format_message())
        return 1
    except (click.Abort, KeyboardInterrupt):
        return 130
    except ConfigError as error:
        _complain(str(error))
        return 2
    except JupiterError as error:
        _complain(str(error))
        return 1
    except BrokenPipeError:
        # Whoever read our output (`| head`) has enough. Without this, Python complains at exit.
        sys.stdout = None
        return 0
    except OSError as error:
        _complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return 1
    return outcome if isinstance(outcome, int) else 0


def _complain(text: str) -> None:
    click.echo(f"jupiter: {text}", err=True)
