"""Texts of a given form, as annotations of `str`: the document shows the pattern, a refusal says it in words."""

import re
import unicodedata
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True, slots=True)
class Matching:
    """The whole text matches the pattern, or is refused as what `words` say it must be."""

    pattern: str
    words: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        pattern = re.compile(self.pattern, re.ASCII)

        def check(text: str) -> str:
            if not pattern.fullmatch(text):
                raise ValueError(self.words)
            return text

        return core_schema.no_info_after_validator_function(check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(schema) | {"pattern": f"^{self.pattern}$"}


# Unicode's general categories of control characters and surrogates.
_UNPRINTABLE = frozenset({"Cc", "Cs"})

WITHOUT_CONTROLS = Matching(r"[^\x00-\x1f]*", "must not hold control characters")


def no_controls(text: str) -> str:
    """The text, for a field's validation; raises ValueError for control characters and lone surrogates."""
    if any(unicodedata.category(character) in _UNPRINTABLE for character in text):
        raise ValueError("must not hold control characters or lone surrogates")
    return text
