"""Templates: the text around an example, with ``{mask}`` where the label word belongs."""

from __future__ import annotations

from dataclasses import dataclass
from string import Formatter

from bbtune.errors import TaskError, did_you_mean

FIELDS = {"single": ("text",), "pair": ("text_a", "text_b")}


@dataclass(frozen=True)
class Template:
    """A parsed template: literal texts alternate with field names.

    Args:
        text: such as ``"{text} . It was {mask} ."``; braces are doubled to stand for themselves.
        kind: ``"single"`` (field ``text``) or ``"pair"`` (fields ``text_a``, ``text_b``).

    Raises:
        TaskError: for an unknown or missing field, a field with a format, or more than one ``{mask}``.
    """

    text: str
    kind: str = "single"

    def __post_init__(self) -> None:
        known = [*FIELDS[self.kind], "mask"]
        names = self.fields
        for name in names:
            if name not in known:
                raise TaskError(
                    f"template has the unknown field {{{name}}}, expected {_listed(known)}{did_you_mean(name, known)}"
                )
        missing = [name for name in FIELDS[self.kind] if name not in names]
        if missing:
            raise TaskError(f"template lacks {_listed(missing)}, got {self.text!r}")
        if names.count("mask") > 1:
            raise TaskError(f"template has {names.count('mask')} {{mask}}, expected one, got {self.text!r}")

    @property
    def parts(self) -> list[tuple[str, str | None]]:
        """Pairs of literal text and the field that follows it (None at the end)."""
        try:
            pieces = list(Formatter().parse(self.text))
        except ValueError as error:
            raise TaskError(
                f"template cannot be read ({error}), got {self.text!r}; double braces that are text"
            ) from error
        if formatted := [field for _, field, form, conversion in pieces if form or conversion]:
            raise TaskError(
                f"template fields take no format or conversion, got one at {{{formatted[0]}}} in {self.text!r}"
            )
        return [(literal, field) for literal, field, _, _ in pieces]

    @property
    def fields(self) -> list[str]:
        """Names of the fields in order."""
        return [field for _, field in self.parts if field is not None]

    @property
    def has_mask(self) -> bool:
        """Whether the template says where the label word belongs."""
        return "mask" in self.fields

    @property
    def mask_follows_space(self) -> bool:
        """Whether a space stands directly before ``{mask}`` (label words then begin with it)."""
        before = next((literal for literal, field in self.parts if field == "mask"), "")
        return before.endswith(" ")

    @property
    def word_follows_space(self) -> bool:
        """Whether label words begin with a space: behind one, or at the end of a template without ``{mask}``."""
        return self.mask_follows_space or not self.has_mask

    @property
    def fields_behind_mask(self) -> list[str]:
        """Fields that a left-to-right model cannot see when it predicts the label word."""
        fields = self.fields
        return fields[fields.index("mask") + 1 :] if self.has_mask else []

    @property
    def ending(self) -> str:
        """The text behind the last field and before ``{mask}``, less the one space that belongs to the label word."""
        text = ""
        for literal, field in self.parts:
            text += literal
            if field == "mask":
                break
            if field is not None:
                text = ""
        return text.removesuffix(" ")

    def render(self, values: dict[str, str], mask: str | None) -> str:
        """The text for one example.

        Args:
            values: text of each field.
            mask: what stands for ``{mask}``; None cuts the text there. One space before it goes too: it belongs
                to the label word.
        """
        text = ""
        for literal, field in self.parts:
            text += literal
            if field == "mask":
                if mask is None:
                    return text.removesuffix(" ")
                text += mask
            elif field is not None:
                text += values[field]
        return text if self.has_mask else text.removesuffix(" ")


def _listed(names: list[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)
