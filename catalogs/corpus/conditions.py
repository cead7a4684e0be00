"""Conditions on the table of samples, such as ``dose < 100 and split == 'train'``.

A condition may come from another person's file, so it is parsed and evaluated, but never run as Python code.
It may contain comparisons, ``and or not in``, arithmetic, numbers, text, columns, a few functions of numbers
and three of text, with the same meaning as in pandas' ``eval``, which could run any Python code.
"""

from __future__ import annotations

import ast
import io
import math
import operator
import re
import tokenize
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from catalogs.console import nearest
from catalogs.errors import InputError

_LONGEST = 10_000  # characters
_MAY = (
    "a condition may hold comparisons, and, or, not, in, arithmetic, numbers, text, columns and "
    "COLUMN.str.contains('text')"
)
_ARITHMETIC: Mapping[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_COMPARISONS: Mapping[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_FUNCTIONS: Mapping[str, Callable[[Any], Any]] = {
    "abs": np.abs, "sqrt": np.sqrt, "exp": np.exp, "log": np.log, "log10": np.log10, "floor": np.floor,
    "ceil": np.ceil, "sin": np.sin, "cos": np.cos, "tan": np.tan,
}  # fmt: skip
_OF_TEXT = ("contains", "startswith", "endswith")
_REPEATS = 3  # repeats of a pattern; more of them may take forever


class _Refused(Exception):
    """A condition that contains something forbidden, or does not fit together."""


def rows_where(samples: pd.DataFrame, where: str) -> pd.Series[bool]:
    """Find the rows of a table for which a condition holds.

    Parameters
    ----------
    samples
        The table; the index's name counts as a column.
    where
        The condition.

    Returns
    -------
    pandas.Series of bool
        One value a row.

    Raises
    ------
    InputError
        If the condition is wrong; the message names the nearest column.
    """
    shown = where if len(where) <= 200 else f"{where[:200]}..."
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # division by zero is no match; unusual escapes in text
            chosen = _Walk(samples, where).value(_parsed(where))
    except InputError:
        raise
    except _Refused as error:
        raise InputError(f"the selection {shown!r} cannot be understood ({error})") from None
    except (SyntaxError, ValueError, RecursionError, MemoryError, TypeError, ArithmeticError) as error:
        said = error.msg if isinstance(error, SyntaxError) else str(error)
        raise InputError(f"the selection {shown!r} cannot be understood ({said})") from error
    if not _is_condition(chosen):
        raise InputError(f"the selection {shown!r} is not a condition; write one such as dose < 100")
    return pd.Series(chosen.to_numpy(bool), index=samples.index)


def _parsed(where: str) -> ast.expr:
    if len(where) > _LONGEST:
        raise _Refused(f"it has {len(where)} characters, more than {_LONGEST}")
    text = re.sub(r"`([A-Za-z_]\w*)`", r"\1", where.strip())
    return ast.parse(_with_words(text), mode="eval").body


def _with_words(text: str) -> str:
    """Replace ``&`` and ``|`` by ``and`` and ``or``, because they bind more weakly here than in Python."""
    words = {"&": "and", "|": "or"}
    try:
        tokens = [
            (tokenize.NAME, words[token.string]) if token.string in words else (token.type, token.string)
            for token in tokenize.generate_tokens(io.StringIO(text).readline)
        ]
    except (tokenize.TokenError, IndentationError) as error:
        raise _Refused(str(error.args[0])) from error
    return tokenize.untokenize(tokens).strip()


class _Walk:
    """One condition over one table."""

    def __init__(self, samples: pd.DataFrame, where: str) -> None:
        self._samples, self._where = samples, where

    def value(self, node: ast.expr) -> Any:
        """Evaluate a node: a column, one value, or a list of values."""
        match node:
            case ast.Constant(value=bool() | str() as constant):
                return constant
            case ast.Constant(value=int() | float() as constant):
                return _number(constant)
            case ast.Name():
                return self._column(node.id)
            case ast.List() | ast.Tuple() | ast.Set():
                return [self._listed(element) for element in node.elts]
            case ast.BoolOp():
                return self._joined(node)
            case ast.UnaryOp():
                return self._signed(node)
            case ast.BinOp() if type(node.op) in _ARITHMETIC:
                return self._calculated(node)
            case ast.Compare():
                return self._compared(node)
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in _FUNCTIONS:
                return _FUNCTIONS[name](_numeric(self.value(argument)))
            case ast.Call(
                func=ast.Attribute(value=ast.Attribute(value=column, attr="str"), attr=name),
                args=[ast.Constant(value=str() as text)],
                keywords=[],
            ) if name in _OF_TEXT:
                return _of_text(self.value(column), name, text)
        raise _Refused(f"{_shown(node)} is not allowed: {_MAY}")

    def _column(self, name: str) -> Any:
        samples = self._samples
        if name in samples.columns:
            return samples[name]
        if name in (samples.index.name, "index"):
            return samples.index.to_series()
        near = nearest(name, map(str, samples.columns))
        raise InputError(
            f"the selection {self._where!r} names {name!r}, which is not a column of the corpus{near}"
        )

    def _listed(self, node: ast.expr) -> Any:
        value = self.value(node)
        if isinstance(value, pd.Series | list):
            raise _Refused(f"{_shown(node)} is not a single value")
        return value

    def _joined(self, node: ast.BoolOp) -> Any:
        parts = [_condition(self.value(part), part) for part in node.values]
        both = operator.and_ if isinstance(node.op, ast.And) else operator.or_
        joined = parts[0]
        for part in parts[1:]:
            joined = both(joined, part)
        return joined

    def _signed(self, node: ast.UnaryOp) -> Any:
        value = self.value(node.operand)
        if isinstance(node.op, ast.Not | ast.Invert):
            value = _condition(value, node.operand)
            return not value if isinstance(value, bool) else ~value
        return -_numeric(value) if isinstance(node.op, ast.USub) else +_numeric(value)

    def _calculated(self, node: ast.BinOp) -> Any:
        left, right = self.value(node.left), self.value(node.right)
        if isinstance(node.op, ast.Add) and _is_text(left) and _is_text(right):
            return left + right
        left, right = _numeric(left), _numeric(right)
        if isinstance(node.op, ast.Pow):  # with whole numbers, the result could fill the memory
            left, right = _as_float(left), _as_float(right)
        with np.errstate(all="ignore"):
            return _ARITHMETIC[type(node.op)](left, right)

    def _compared(self, node: ast.Compare) -> Any:
        values = [self.value(part) for part in (node.left, *node.comparators)]
        result: Any = True
        for left, sign, right in zip(values, node.ops, values[1:], strict=False):
            result = result & _compare(left, sign, right)
        return result


def _compare(left: Any, sign: ast.cmpop, right: Any) -> Any:
    if isinstance(left, list):
        raise _Refused("a list may only stand to the right, after in, not in, == or !=")
    within = isinstance(sign, ast.In | ast.NotIn)
    if isinstance(right, list):
        if not within and not isinstance(sign, ast.Eq | ast.NotEq):
            raise _Refused("a list may only stand after in, not in, == or !=")
        inside = left.isin(right) if isinstance(left, pd.Series) else left in right
        wanted = isinstance(sign, ast.In | ast.Eq)
        return inside if wanted else (~inside if isinstance(inside, pd.Series) else not inside)
    if within:
        raise _Refused("in needs a list, such as split in ['train', 'val']")
    if type(sign) not in _COMPARISONS:
        raise _Refused(f"is and is not are not allowed; write == or !=: {_MAY}")
    return _COMPARISONS[type(sign)](left, right)


def _of_text(column: Any, name: str, text: str) -> Any:
    if isinstance(column, pd.Series) and column.empty:
        return column.astype(bool)
    if not isinstance(column, pd.Series) or not _is_text(column):
        raise _Refused(f".str.{name} is for columns that hold text")
    if name == "contains":
        repeats = re.findall(r"(?<!\\)[*+?{]", text)
        if len(repeats) > _REPEATS or re.search(r"\)[*+?{]", text):
            raise _Refused("the pattern has too many repeats; write a simpler one")
        try:
            re.compile(text)
        except re.error as error:
            raise _Refused(f"{text!r} is not a pattern: {error}") from error
        return column.str.contains(text, regex=True).fillna(False).astype(bool)
    return getattr(column.str, name)(text).fillna(False).astype(bool)


def _number(value: float) -> Any:
    """Limit whole numbers to those of NumPy, so that nothing grows without bounds."""
    if isinstance(value, int) and abs(value) < 2**53:
        return np.int64(value)
    try:
        return np.float64(value)
    except OverflowError:
        return np.float64(math.inf)


def _numeric(value: Any) -> Any:
    if isinstance(value, list | str) or (isinstance(value, pd.Series) and _is_text(value)):
        raise _Refused("text and lists cannot be calculated with")
    return value


def _as_float(value: Any) -> Any:
    return value.astype(np.float64) if isinstance(value, pd.Series) else np.float64(value)


def _is_text(value: Any) -> bool:
    if isinstance(value, pd.Series):
        # in an empty corpus, columns have no type
        return (
            bool(len(value))
            and bool(pd.api.types.is_string_dtype(value))
            and not pd.api.types.is_numeric_dtype(value)
        )
    return isinstance(value, str)


def _is_condition(value: Any) -> bool:
    return isinstance(value, pd.Series) and value.dtype == bool


def _condition(value: Any, node: ast.expr) -> Any:
    if _is_condition(value):
        return value
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise _Refused(f"{_shown(node)} is not a condition")


def _shown(node: ast.AST) -> str:
    text = ast.unparse(node)
    return text if len(text) <= 60 else f"{text[:57]}..."
