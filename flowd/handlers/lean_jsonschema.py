"""What is needed of jsonschema, without the grammar of addresses that it would compile.

It does so as it is imported, which takes a second, wherever what its checks of formats need is
installed too: beside Jupyter, say. Here that waits until somebody checks such an address.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

_GRAMMAR = "rfc3987_syntax"


class _Later(ModuleType):
    @staticmethod
    def is_valid_syntax(term: str, value: str) -> bool:
        return bool(import_module(_GRAMMAR).is_valid_syntax(term, value))


@contextmanager
def _grammar_put_off() -> Iterator[None]:
    if _GRAMMAR in sys.modules or find_spec(_GRAMMAR) is None:
        yield
        return
    sys.modules[_GRAMMAR] = _Later(_GRAMMAR)
    try:
        yield
    finally:
        del sys.modules[_GRAMMAR]


with _grammar_put_off():
    from jsonschema import Draft202012Validator as Draft202012Validator
    from jsonschema.exceptions import SchemaError as SchemaError
    from jsonschema.exceptions import ValidationError as ValidationError
    from jsonschema.exceptions import best_match as best_match
    from jsonschema.validators import validator_for as validator_for
