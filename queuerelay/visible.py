"""Foreign text as anybody may look at it: nothing in it that a terminal or a log would obey."""


def visible(text: str) -> str:
    r"""`text` with everything that would be obeyed, or not shown, as ``\x1b``: controls, ends of
    lines of any kind, marks that turn the direction of writing, and halves of characters.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
