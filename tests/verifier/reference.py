"""
I-JSON read character by character from the grammar of RFC 8259 and the restrictions of RFC 7493: slow, and obviously
right. The verifier's readers are compared with it.
"""

import unicodedata
from typing import Any


class Refused(ValueError):
    pass


def read(text: bytes) -> dict[str, Any]:
    """The object that `text` writes, with at most 100 levels; raises Refused."""
    try:
        reader = _Reader(text.decode("utf-8", errors="strict"))
    except UnicodeDecodeError:
        raise Refused("not UTF-8") from None
    reader.skip_blanks()
    value = reader.value(depth=0)
    reader.skip_blanks()
    if reader.peek():
        raise Refused("more than one value")
    if not isinstance(value, dict):
        raise Refused("not an object")
    return value


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def take(self) -> str:
        character = self.peek()
        if not character:
            raise Refused("ends too early")
        self.at += 1
        return character

    def expect(self, literal: str) -> None:
        for character in literal:
            if self.take() != character:
                raise Refused(f"not {literal}")

    def skip_blanks(self) -> None:
        while self.peek() and self.peek() in " \t\n\r":
            self.at += 1

    def value(self, depth: int) -> Any:
        match self.peek():
            case "{":
                return self.object(depth + 1)
            case "[":
                return self.array(depth + 1)
            case '"':
                return self.string()
            case "t" | "f" | "n" as first:
                literal = {"t": "true", "f": "false", "n": "null"}[first]
                self.expect(literal)
                return {"true": True, "false": False, "null": None}[literal]
            case _:
                return self.integer()

    def object(self, depth: int) -> dict[str, Any]:
        if depth > 100:
            raise Refused("too deep")
        members: dict[str, Any] = {}
        self.expect("{")
        self.skip_blanks()
        if self.peek() == "}":
            self.take()
            return members
        while True:
            self.skip_blanks()
            key = self.string()
            if key in members:
                raise Refused("duplicate key")
            self.skip_blanks()
            self.expect(":")
            self.skip_blanks()
            members[key] = self.value(depth)
            self.skip_blanks()
            match self.take():
                case ",":
                    continue
                case "}":
                    return members
                case _:
                    raise Refused("neither , nor }")

    def array(self, depth: int) -> list[Any]:
        if depth > 100:
            raise Refused("too deep")
        items: list[Any] = []
        self.expect("[")
        self.skip_blanks()
        if self.peek() == "]":
            self.take()
            return items
        while True:
            self.skip_blanks()
            items.append(self.value(depth))
            self.skip_blanks()
            match self.take():
                case ",":
                    continue
                case "]":
                    return items
                case _:
                    raise Refused("neither , nor ]")

    def string(self) -> str:
        self.expect('"')
        units: list[int] = []  # UTF-16, in which escapes are written
        while (character := self.take()) != '"':
            if character == "\\":
                units.append(self.escape())
            elif ord(character) < 0x20:
                raise Refused("control character")
            else:
                encoded = character.encode("utf-16-be")
                units += (int.from_bytes(encoded[k : k + 2], "big") for k in range(0, len(encoded), 2))
        try:
            text = b"".join(unit.to_bytes(2, "big") for unit in units).decode("utf-16-be")
        except UnicodeDecodeError:
            raise Refused("surrogate") from None
        for character in text:
            # The noncharacters are the unassigned code points that stay so: U+FDD0..FDEF, and the last two of a plane.
            if 0xFDD0 <= ord(character) <= 0xFDEF or ord(character) & 0xFFFE == 0xFFFE:
                assert unicodedata.category(character) == "Cn"
                raise Refused("noncharacter")
        return text

    def escape(self) -> int:
        character = self.take()
        if character == "u":
            digits = "".join(self.take() for _ in range(4))
            if any(digit not in "0123456789abcdefABCDEF" for digit in digits):
                raise Refused("not hex")
            return int(digits, 16)
        if character not in '"\\/bfnrt':
            raise Refused("no such escape")
        return ord(dict(zip('"\\/bfnrt', '"\\/\b\f\n\r\t', strict=True))[character])

    def integer(self) -> int:
        start = self.at
        if self.peek() == "-":
            self.take()
        first = self.take()
        if first not in "0123456789":
            raise Refused("no value")
        while first != "0" and self.peek() and self.peek() in "0123456789":
            self.take()
        digits = self.text[start : self.at]
        if self.peek() and self.peek() in ".eE":
            raise Refused("float")
        if len(digits) > 20 or abs(int(digits)) >= 2**53:
            raise Refused("out of range")
        return int(digits)
