"""Shell completion of command names, options and choices, as one static script made from the `Options` dataclasses."""

from __future__ import annotations

from mvretrieval.cli.commands import COMMANDS, SUBCOMMANDS, UsageError, command_module, command_names
from mvretrieval.cli.parsing import SHARED_FLAGS, command_options

SHELLS = ("bash", "zsh")

_SCRIPT = """\
_mvr() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}}
  local command=${{COMP_WORDS[1]}} flags="" choices=""
  COMPREPLY=()
  if [[ $COMP_CWORD -eq 1 ]]; then
    COMPREPLY=($(compgen -W "{commands} help --help --version" -- "$current"))
    return
  fi
  if [[ $command == help ]]; then
    [[ $COMP_CWORD -eq 2 ]] && COMPREPLY=($(compgen -W "{commands}" -- "$current"))
    return
  fi
  case "$command ${{COMP_WORDS[2]}}" in
{subcommands}
  esac
  case "$command" in
{options}
  esac
  case "$command $previous" in
{choices}
  esac
  if [[ -n $choices ]]; then
    COMPREPLY=($(compgen -W "$choices" -- "$current"))
  elif [[ $current == -* ]]; then
    COMPREPLY=($(compgen -W "$flags {shared}" -- "$current"))
  elif [[ $COMP_CWORD -eq 2 ]]; then
    case "$command" in
{second_words}
    esac
  fi
}}
complete -o default -F _mvr mvr"""
_ZSH = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"


def completion_script(shell: str = "") -> str:
    """The script of one shell. What it does not complete itself falls back to file names.

    Raises:
        UsageError: there is no script for the shell.
    """
    if shell not in SHELLS:
        raise UsageError(f"--print-completion takes {' or '.join(SHELLS)}, not '{shell}'.")
    options, choices = [], []
    for name in command_names():
        accepted = [option for option in command_options(command_module(name).Options) if option.flags]
        options.append(f'    "{name}") flags="{" ".join(flag for option in accepted for flag in option.flags)}" ;;')
        for option in accepted:
            if option.choices:
                pattern = "|".join(f'"{name} {flag}"' for flag in option.flags)
                choices.append(f'    {pattern}) choices="{" ".join(option.choices)}" ;;')
    script = _SCRIPT.format(
        commands=" ".join(COMMANDS),
        subcommands="\n".join(
            f'    "{name} {second}") command="{name} {second}" ;;'
            for name, more in SUBCOMMANDS.items()
            for second in more
        ),
        options="\n".join(options),
        choices="\n".join(choices),
        shared=" ".join(SHARED_FLAGS),
        second_words="\n".join(
            f'      "{name}") COMPREPLY=($(compgen -W "{" ".join(more)}" -- "$current") $(compgen -f -- "$current")) ;;'
            for name, more in SUBCOMMANDS.items()
        ),
    )
    return (_ZSH if shell == "zsh" else "") + script
