"""Suggestions for commands and options that are misspelt."""

import dataclasses
import difflib
from collections.abc import Iterator, Mapping, Sequence

#: Names that other tools give to options of ``mmvae``.
SYNONYMS = {
    "--lr": "--learning-rate",
    "--steps": "--num-steps",
    "--epochs": "--num-epochs",
    "--output": "--out",
    "--random-state": "--seed",
    "--likelihoods": "--likelihood",
    "--transform": "--preprocess",
}


def suggest(args: Sequence[str], commands: Mapping[str, type]) -> str | None:
    """Returns a hint at the first misspelt command or option; None without a likely one.

    Args:
      args: words after ``mmvae``.
      commands: dataclass of each command.

    >>> from mmvae_jax.cli.commands import COMMANDS
    >>> suggest(["trian", "data.npz"], COMMANDS)
    "did you mean 'train'?"
    >>> suggest(["train", "data.npz", "--lr", "0.1"], COMMANDS)
    "did you mean '--learning-rate'?"
    >>> suggest(["train", "data.npz", "--steps", "5"], COMMANDS)
    "did you mean '--num-steps'?"
    """
    if not args:
        return None
    if args[0] not in commands:
        return _closest(args[0], list(commands))
    known = [f"--{name.replace('_', '-')}" for name in option_names(commands[args[0]])]
    for word in args[1:]:
        option = word.partition("=")[0]
        if option.startswith("--") and option.replace("--no-", "--") not in known:
            synonym = SYNONYMS.get(option)
            return _closest(synonym if synonym in known else option, known)
    return None


def option_names(command: type) -> Iterator[str]:
    """Yields the names of a command's fields, those of its settings among them."""
    for field in dataclasses.fields(command):
        factory = field.default_factory
        if isinstance(factory, type) and dataclasses.is_dataclass(factory):
            yield from option_names(factory)
        else:
            yield field.name


def _closest(word: str, known: Sequence[str]) -> str | None:
    found = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {found[0]!r}?" if found else None
