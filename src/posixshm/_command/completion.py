"""`posixshm completion`: scripts for shells, generated from the parser."""

from __future__ import annotations

import argparse
import re
from typing import NamedTuple

from posixshm._command.docs import topics
from posixshm._command.parser import make_parser


class Option(NamedTuple):
    flags: list[str]
    help: str
    choices: list[str]  # of its value
    value: bool  # whether it takes one


class Command(NamedTuple):
    name: str
    help: str
    options: list[Option]
    completes: str  # what its arguments are: "names", "files", "both", "words" or ""
    words: list[str]


def commands() -> list[Command]:
    """Return all commands of the parser."""
    (choices,) = (
        action
        for action in make_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    helps = {each.dest: each.help or "" for each in choices._choices_actions}
    return [_command(name, helps[name], parser) for name, parser in choices.choices.items()]


def _command(name: str, text: str, parser: argparse.ArgumentParser) -> Command:
    options, kinds, words = [], set(), []
    for action in parser._actions:
        values = [str(choice) for choice in action.choices or ()]
        if action.option_strings:
            takes = action.nargs != 0
            options.append(Option(list(action.option_strings), action.help or "", values, takes))
        elif values:
            words = values
        elif action.metavar == "FILE":
            kinds.add("files")
        elif action.metavar == "TOPIC":
            words = topics()
        elif action.metavar in ("NAME", "GLOB", "NEW"):
            kinds.add("names")
    completes = "words" if words else "both" if len(kinds) == 2 else "".join(kinds)
    return Command(name, text, options, completes, words)


def completion(args: argparse.Namespace) -> int:
    makers = {"bash": _bash, "zsh": _zsh, "fish": _fish}
    print(makers[args.shell](commands()), end="")
    return 0


def _flags(command: Command) -> str:
    return " ".join(flag for option in command.options for flag in option.flags)


def _quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


_BASH = """\
# Completion of posixshm for bash.
_posixshm() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}}
    local IFS=$'\\n' words='' names='' files='' name
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        words={commands}
    else
        case ${{COMP_WORDS[1]}},$previous in
{values}
        *)
            case ${{COMP_WORDS[1]}},$current in
{options}
            esac
            if [ -z "$words" ]; then
                case ${{COMP_WORDS[1]}} in
{arguments}
                esac
            fi ;;
        esac
    fi
    if [ -n "$words" ]; then
        COMPREPLY=($(compgen -W "$words" -- "$current"))
    fi
    if [ -n "$names" ]; then
        # Not by compgen -W, which would run commands that a name contains.
        while IFS= read -r -d '' name; do
            if [ "${{name:0:${{#current}}}}" = "$current" ]; then
                printf -v name %q "$name"
                COMPREPLY+=("$name")
            fi
        done < <(posixshm ls -q -0 2>/dev/null)
    fi
    if [ -n "$files" ]; then
        compopt -o filenames 2>/dev/null
        COMPREPLY+=($(compgen -f -- "$current"))
    fi
}}
complete -F _posixshm posixshm
"""


def _lines(words: list[str]) -> str:
    return "$'" + "\\n".join(words) + "'"


def _bash(found: list[Command]) -> str:
    values, options, arguments = [], [], []
    settings = {"names": "names=1", "files": "files=1", "both": "names=1 files=1"}
    for command in found:
        for option in command.options:
            if option.value:
                cases = "|".join(f"{command.name},{flag}" for flag in option.flags)
                words = f"words={_lines(option.choices)}" if option.choices else ":"
                values.append(f"        {cases}) {words} ;;")
        flags = _lines(_flags(command).split())
        options.append(f"            {command.name},-*) words={flags} ;;")
        if command.completes == "words":
            arguments.append(f"                {command.name}) words={_lines(command.words)} ;;")
        elif command.completes:
            arguments.append(f"                {command.name}) {settings[command.completes]} ;;")
    return _BASH.format(
        commands=_lines([command.name for command in found]),
        values="\n".join(values),
        options="\n".join(options),
        arguments="\n".join(arguments),
    )


_ZSH = """\
#compdef posixshm
# Completion of posixshm for zsh.
_posixshm_names() {{
    local -a names
    names=("${{(@0)$(posixshm ls -q -0 2>/dev/null)}}")
    compadd -a names
}}
_posixshm_both() {{
    _posixshm_names
    _files
}}
_posixshm() {{
    local -a commands
    commands=(
{commands}
    )
    if (( CURRENT == 2 )); then
        _describe command commands
        return
    fi
    local command=$words[2]
    shift words
    (( CURRENT-- ))
    case $command in
{cases}
    esac
}}
if [ "$funcstack[1]" = _posixshm ]; then
    _posixshm "$@"
else
    compdef _posixshm posixshm
fi
"""


def _zsh_text(text: str) -> str:
    return re.sub(r"([\[\]:\\])", r"\\\1", text)


def _zsh(found: list[Command]) -> str:
    actions = {"names": "_posixshm_names", "files": "_files", "both": "_posixshm_both"}
    lines, cases = [], []
    for command in found:
        lines.append("        " + _quote(f"{command.name}:{_zsh_text(command.help)}"))
        specs = []
        for option in command.options:
            value = ""
            if option.value:
                value = f":value:({' '.join(option.choices)})" if option.choices else ":value: "
            specs += [_quote(f"{flag}[{_zsh_text(option.help)}]{value}") for flag in option.flags]
        if command.completes == "words":
            specs.append(_quote(f"*:word:({' '.join(command.words)})"))
        elif command.completes:
            specs.append(_quote(f"*:name:{actions[command.completes]}"))
        cases.append(f"    {command.name}) _arguments {' '.join(specs)} ;;")
    return _ZSH.format(commands="\n".join(lines), cases="\n".join(cases))


def _fish(found: list[Command]) -> str:
    lines = ["# Completion of posixshm for fish.", "complete -c posixshm -f"]
    for command in found:
        seen = f"-n '__fish_seen_subcommand_from {command.name}'"
        lines.append(
            "complete -c posixshm -n __fish_use_subcommand "
            f"-a {command.name} -d {_quote(command.help)}"
        )
        for option in command.options:
            flags = " ".join(
                f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
                for flag in option.flags
            )
            value = " -x" if option.value else ""
            if option.choices:
                value += f" -a {_quote(' '.join(option.choices))}"
            lines.append(f"complete -c posixshm {seen} {flags}{value} -d {_quote(option.help)}")
        if command.completes in ("names", "both"):
            names = _quote("(posixshm ls -q 2>/dev/null)")
            lines.append(f"complete -c posixshm {seen} -a {names}")
        if command.completes in ("files", "both"):
            lines.append(f"complete -c posixshm {seen} -F")
        if command.completes == "words":
            lines.append(f"complete -c posixshm {seen} -a {_quote(' '.join(command.words))}")
    return "\n".join(lines) + "\n"
