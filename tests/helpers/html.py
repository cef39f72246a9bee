"""HTML as a tree: which elements and attributes there are."""

import xml.etree.ElementTree as ET

#: Attributes whose values are texts of others, or made of them.
FREE = {"data-key", "title", "aria-label", "value", "action", "formaction", "datetime"}


def shape(tree: ET.Element) -> list[tuple[str, list[tuple[str, str]]]]:
    """Elements with their attributes, in the order of the document."""
    return [
        (str(one.tag), sorted((k, "" if k in FREE else v) for k, v in one.attrib.items()))
        for one in tree.iter()
    ]
