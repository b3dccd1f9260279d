"""What Hydra says about a command line, in one line: the value, what was expected, what to do."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any, get_args, get_type_hints

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from fetchlab import schema
from fetchlab.config import CONFIGS
from fetchlab.conform import unknown_key
from fetchlab.errors import ConfigError, require

_UNKNOWN = re.compile(r"Could not (?:override|delete from config\.) '([^']+)'")
_APPEND = re.compile(r"use \+\S+?=(.*)", re.DOTALL)
_TAKEN = re.compile(
    r"An item is already at '([^']+)'.*Either remove \+ prefix: '(.*?)'\n", re.DOTALL
)
_SWEPT = re.compile(
    r"(?:Ambiguous value for argument|Sweep parameters) '(.*?)'(?:\n| requires)", re.DOTALL
)
_UNNAMED = "Config group override must be a string or a list"
_GROUP = re.compile(r"\+{0,2}\w")  # not a flag, nor a group to leave out
_LEXER = "LexerNoViableAltException: "
_CARET = re.compile(r"\n( *)\^\n")


def one_line(error: Exception, known: Sequence[str] = ()) -> str:
    """The error of a composition as one line, in the form of `ConfigError`.

    Hydra's own advice for a key that it does not know, to add it with ``+``, is left out: nothing
    would read it.

    Args:
        error: Hydra's, OmegaConf's or the YAML reader's.
        known: the keys that can be given, the command's own first; none: those of a whole run.
    """
    text = str(error).partition("Config search path")[0]
    return " ".join(_rewritten(error, text, known).split())


def literal(args: Sequence[str], keys: Sequence[str]) -> list[str]:
    """A command line whose values of ``keys`` Hydra reads as they are: paths have any character.

    Not in a sweep, where a comma means something; and ``null`` and a quoted value are left alone.
    """
    if are_several(args):
        return [*args]
    given = [arg.partition("=") for arg in args]
    return [
        f"{key}={_literal(value)}" if key in keys and equals else arg
        for arg, (key, equals, value) in zip(args, given, strict=True)
    ]


def _literal(value: str) -> str:
    if value == "null" or (len(value) > 1 and value[0] == value[-1] and value[0] in "'\""):
        return value
    for special, escaped in ((r"\$\{", r"\1\1\\${"), ("'", r"\1\1\\'"), ("$", r"\1\1")):
        value = re.sub(rf"(\\*){special}", escaped, value)
    return f"'{value}'"


def _rewritten(error: Exception, text: str, known: Sequence[str]) -> str:
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override, text)
    if isinstance(error, UnicodeDecodeError):  # Python does not know of which file
        line = error.object[: error.end].splitlines()[-1]
        return f"a YAML file is not UTF-8: in its line {line!r}; save it as UTF-8"
    if unknown := _UNKNOWN.search(text):
        asked = _APPEND.search(text)
        if known:
            first, *more = known
            says = f"only {', '.join(more[:-1])} and {more[-1]} beside {first}"
            value = asked[1] if asked else None
            return str(ConfigError(unknown[1], value, says, "correct it; --help has examples"))
        return str(unknown_key(*_unread(error, unknown[1], asked and asked[1]), schema.Run))
    if taken := _TAKEN.search(text):
        key, instead = taken[1], f"write {taken[2]}"
        return str(ConfigError(f"+{key}", None, "a key that does not exist yet", instead))
    if swept := _SWEPT.search(text):
        name, _, value = swept[1].partition("=")
        remedy = f"{_quote(name, value)}, write a list as {name}=[a,b], or sweep with -m"
        return str(ConfigError(name, value, "one value", remedy))
    if text.startswith(_UNNAMED) and (unnamed := _unnamed(sys.argv[1:])):
        return str(unnamed)
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        remedy = "restore what is missing, or give this key a value"
        return f"{error.full_key}: {text.splitlines()[0]}; {remedy}"
    return text


def _unread(error: Exception, key: str, text: str | None) -> tuple[str, Any]:
    """What an override sets that nothing reads, and to what: its key, or one of its mapping's."""
    inner: str = getattr(error.__cause__, "full_key", None) or key
    if text is None or not inner.startswith(f"{key}."):
        return key, text
    value: Any = OverridesParser.create().parse_override(f"{key}={text}").value()
    for name in inner.removeprefix(f"{key}.").split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return inner, value


def _unnamed(args: Sequence[str]) -> ConfigError | None:
    """The first group of a command line that is given no name; Hydra does not say which it is."""
    for arg in args:
        if "=" not in arg or not _GROUP.match(arg):
            continue
        given = OverridesParser.create().parse_override(arg)
        group, value = given.key_or_group, given.value()
        for one in getattr(value, "list", [value]):  # of a sweep, its choices
            if (CONFIGS / group).is_dir() and (one is None or isinstance(one, int | float)):
                return ConfigError(group, one, f"a name of configs/{group}", _instead(group))
    return None


def _instead(group: str) -> str:
    """What to write for none of a group's files, where there can be none."""
    if (CONFIGS / group / "none.yaml").is_file():
        return f"write {group}=none"
    defaults = yaml.safe_load((CONFIGS / "train.yaml").read_text())["defaults"]
    if {group: []} in defaults:
        return f"write {group}=[]"
    without = NoneType in get_args(get_type_hints(schema.Run).get(group))
    return f"write '~{group}' for none" if without else "leave it out, or give one of them"


def are_several(args: Sequence[str]) -> bool:
    """Whether a command line asks for several runs."""
    return bool({"-m", "--multirun", "hydra.mode=MULTIRUN"} & {*args})


def refuse_lone_sweep(args: Sequence[str]) -> None:
    """Refuse ``sweep=NAME`` where ``-m`` is not given: nothing would read that file.

    Raises:
        ConfigError: with the command that was meant.
    """
    several = are_several(args) or "hydra.mode=RUN" in args  # as a sweep starts each of its runs
    for sweep in (arg.partition("=")[2] for arg in args if arg.startswith("sweep=")):
        alone = not several and sweep != "null"
        command = f"python src/train.py -m sweep={sweep}"
        require(not alone, "sweep", sweep, "-m before it, since it is several runs", command)


def _unreadable(override: str, text: str) -> str:
    """Where Hydra's grammar stops, and the quoted form where quoting helps."""
    key, equals, value = override.partition("=")
    at = len(key)  # of a value's own error, Hydra tells the part but not the place
    where = text.partition("\nSee https")[0].rpartition("\n")[2].partition(" expecting")[0]
    if caret := _CARET.search(text):
        at = len(caret[1]) - len(_LEXER)
        where = f"{override[at]!r} at position {at + 1} cannot be read"
    if not equals or at < len(key):
        return str(ConfigError("override", override, "KEY=VALUE", where))
    close = "close the bracket, or " if value[:1] in ("[", "{") else ""
    remedy = f"{where}; {close}{_quote(key, value)}"
    return str(ConfigError(key, value, "a value that Hydra can read", remedy))


def _quote(key: str, value: str) -> str:
    """Hydra's own quotes inside of the shell's, which the shell takes away."""
    quoted = '"' + value.replace('"', '\\"') + '"'
    return f"quote the value: {shlex.quote(f'{key}={quoted}')}"
