"""Reads YAML files that people write, and refuses what YAML understands in another way than people do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from catalogs.errors import InputError

_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_OCTAL = re.compile(r"[-+]?0[0-7_]+")


def read_yaml(path: Path, *, as_text: bool = False) -> Any:
    """Read a YAML file, and refuse what YAML reads differently than people mean.

    These are: a key that appears twice in a mapping, of which YAML keeps the last; ``1:10``, which YAML 1.1
    reads as a number to base 60, 70; ``010``, which it reads as 8; and ``no:``, which it reads as the key
    false. Other keys that look like numbers or dates are names, and stay as they are written.

    Parameters
    ----------
    path
        Path of the file.
    as_text
        Read every scalar as a string, so that ``12:00:00`` is a time and is not refused.

    Returns
    -------
    Any
        Content of the file; None if it is empty.

    Raises
    ------
    InputError
        If the file cannot be read; the message names the file and the line.
    """
    loader = yaml.BaseLoader if as_text else yaml.SafeLoader
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, loader)
        if node is not None:
            for line, what in _misread(node, as_text):
                raise InputError(f"{path}, line {line}: {what}.")
            _keep_names(node)
        return None if node is None else _construct(loader, node)
    except InputError:  # a ValueError, too
        raise
    except RecursionError as error:
        raise InputError(f"{path} is nested too deeply to be read.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, ValueError) as error:  # also text that is not UTF-8, and dates such as 2026-02-31
        place = getattr(error, "problem_mark", None)
        where = f" in line {place.line + 1}" if place else ""
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise InputError(f"{path} is not valid YAML{where}: {reason}.") from error


def _keep_names(root: yaml.Node) -> None:
    """Let keys be the words that stand there: a class may be called 1914, 12.10 or 2024-05-15."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    key.tag = "tag:yaml.org,2002:str"
                waiting += [key, value]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def _construct(loader: type[yaml.BaseLoader] | type[yaml.SafeLoader], node: yaml.Node) -> Any:
    made = loader("")
    try:
        return made.construct_document(node)
    finally:
        made.dispose()


def _misread(root: yaml.Node, as_text: bool) -> Iterator[tuple[int, str]]:
    """Find what people mean differently: the line and the problem."""
    seen: set[int] = set()  # an anchor may be used many times
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield from _keys(node)
            # keys that look like numbers are names
            waiting += [
                part
                for pair in node.value[::-1]
                for part in pair[::-1]
                if part is pair[1] or not isinstance(part, yaml.ScalarNode)
            ]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value[::-1]
        elif isinstance(node, yaml.ScalarNode) and not as_text and node.tag in _NUMBERS:
            yield from _number(node)


def _keys(node: yaml.MappingNode) -> Iterator[tuple[int, str]]:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        line = key.start_mark.line + 1
        if key.value in lines:
            yield (
                line,
                f"the key {key.value} is already in line {lines[key.value]}; merge both, or remove one",
            )
        lines[key.value] = line
        if key.tag == "tag:yaml.org,2002:bool":
            truth = key.value.lower() in ("yes", "true", "on")
            yield line, f"YAML reads the key {key.value} as {str(truth).lower()}; write it as '{key.value}'"


def _number(node: yaml.ScalarNode) -> Iterator[tuple[int, str]]:
    line = node.start_mark.line + 1
    if ":" in node.value:
        number = yaml.safe_load(node.value)
        yield (
            line,
            f"YAML reads {node.value} as the number {number:g}; write {number:g}, or '{node.value}' for text",
        )
    elif _OCTAL.fullmatch(node.value):
        number = yaml.safe_load(node.value)
        plain = node.value.lstrip("0_") or "0"
        yield line, f"YAML reads {node.value} as the octal number {number}; write {plain} or {number}"
