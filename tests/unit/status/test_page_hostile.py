"""Text of others' is text on the page, whatever it is: no element and no attribute comes of it.

Places that take such text are all texts of `page_scene.snapshot`. The document is read by an HTML
parser as browsers have it, and compared with that of harmless texts.
"""

import xml.etree.ElementTree as ET

import html5lib
import pytest
from twisted.internet.task import Clock

from queuerelay.status.views import page, page_text, page_view
from tests.helpers.html import shape
from tests.unit.status.page_scene import NOW, Texts, plain, snapshot

PAYLOADS = {
    "script": "<script>alert(1)</script>",
    "double": '"><img src=x onerror=alert(1)>',
    "single": "' onmouseover='alert(1)' x='",
    "unquoted": " onfocus=alert(1) autofocus ",
    "closing": "</pre></td></table></main></title></style></textarea><svg onload=alert(1)>",
    "comment": "--><!-- ]]> <!",
    "entity": "&lt;script&gt;&#60;b&#62;&quot;&amp;",
    "template": "{{ 7*7 }}{% for x in y %}{# #}${7*7}",
    "controls": "\x00\x08\x0b\x0c\r\x1b[2J\x7f\x9b\u202e\u2028\ufeff",
    "surrogates": "\ud800x\udfff<b>",
    "address": "javascript:alert(1)//../..?x#y",
    "long": "<b a='b'>" * 30,
}


def written(made: page_view.View) -> bytes:
    """The document, slice by slice."""
    clock, found = Clock(), list[bytes]()
    page.written(made, clock).addCallback(found.append)
    while clock.getDelayedCalls():
        clock.advance(0)
    (document,) = found
    return document


def parsed(texts: Texts, *, writable: bool) -> ET.Element:
    """The document's tree."""
    made = page_view.view(snapshot(texts), now=NOW, writable=writable, said=texts("Done."))
    document = written(made)
    parser = html5lib.HTMLParser(namespaceHTMLElements=False)
    tree: ET.Element = parser.parse(document, transport_encoding="utf-8")
    assert parser.errors == [], parser.errors[:3]
    return tree


def everything(tree: ET.Element) -> str:
    return "".join(tree.itertext()) + "".join(v for one in tree.iter() for v in one.attrib.values())


@pytest.mark.parametrize("writable", [False, True], ids=["read-only", "writable"])
@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_no_element_and_no_attribute_comes_of_others_text(payload: str, writable: bool) -> None:
    benign = parsed(lambda text: text + "harmless", writable=writable)
    hostile = parsed(lambda text: text + payload, writable=writable)
    assert shape(hostile) == shape(benign)
    # It is all there to be read, though, as it is.
    assert everything(hostile).count(page_text.fit(payload)) > 40


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_forms_go_to_this_listener_alone(payload: str) -> None:
    tree = parsed(lambda text: payload + text, writable=True)
    targets, harmless = (
        [
            value
            for one in each.iter()
            for name, value in one.attrib.items()
            if name in ("action", "formaction")
        ]
        for each in (tree, parsed(plain, writable=True))
    )
    # A name is one segment, whatever is in it.
    assert [one.count("/") for one in targets] == [one.count("/") for one in harmless]
    assert len(targets) > 8
    for target in targets:
        assert target.split("/")[0] in ("queues", "failed", "pools", "jobs"), target
        assert target.isascii()
        assert not set(target) & set("?#\\:"), target
    links = [one.attrib["href"] for one in tree.iter("a")]
    assert not [link for link in links if ":" in link or payload in link]
    assert [one.attrib["src"] for one in tree.iter() if "src" in one.attrib] == [
        f"page.js?{page.BUILD}"
    ]


def test_a_page_of_harmless_texts_has_no_inline_script_or_style() -> None:
    tree = parsed(plain, writable=True)
    for one in tree.iter():
        assert one.tag != "style"
        assert "style" not in one.attrib
        assert not [name for name in one.attrib if name.startswith("on")]
        if one.tag == "script":
            assert not one.text
