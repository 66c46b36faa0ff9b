# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""An OpenDRIVE file as a tree of elements: any encoding, no namespaces, bounded in size and depth.

`carla.Map` does not get the file but what `geometry_text` writes of the tree. So both read the
same, and what roads and lanes do not need (signals, objects, controllers, geographic references)
cannot end the process.
"""

from __future__ import annotations

import codecs
import re
from xml.etree import ElementTree
from xml.parsers import expat

from td3_driver.roads.elements import cut
from td3_driver.roads.errors import RoadMapError

# CARLA's largest town has about 30 MB. A tree takes up to fifteen times the size of its text.
LARGEST_BYTES = 64 << 20
_MOST_ELEMENTS = 2_000_000
_DEEPEST = 64

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    # No mark, but the first character is `<`.
    (b"<\0\0\0", "utf-32-le"),
    (b"\0\0\0<", "utf-32-be"),
    (b"<\0", "utf-16-le"),
    (b"\0<", "utf-16-be"),
)
_DECLARED = re.compile(rb"""^\s*<\?xml[^>]*?\bencoding\s*=\s*["']([A-Za-z0-9._:-]+)["']""")
SHAPES = ("line", "arc", "spiral", "poly3", "paramPoly3")
_NEEDED = {
    *("header", "road", "link", "predecessor", "successor", "planView", "geometry", *SHAPES),
    *("elevationProfile", "elevation", "lateralProfile", "superelevation", "crossfall", "shape"),
    *("lanes", "laneOffset", "laneSection", "left", "center", "right", "lane", "width"),
    *("roadMark", "junction", "connection", "laneLink"),
}


def decode(name: str, data: bytes) -> str:
    """Return a file's text by its byte order mark, or by the encoding that it declares.

    Raises RoadMapError, as all here do, if it is too large or not text in that encoding.
    """
    _check_size(name, len(data))
    encoding = next((e for mark, e in _BYTE_ORDER_MARKS if data.startswith(mark)), None)
    if encoding is None:
        declared = _DECLARED.match(data)
        encoding = declared[1].decode("ascii").lower() if declared else "utf-8"
        if re.fullmatch(r"(utf|ucs|iso-10646-ucs)[-_]?(2|4|16|32).*", encoding):
            # Whoever declared it then saved it as bytes that ASCII covers.
            encoding = "utf-8"
    try:
        return data.decode(encoding)
    except LookupError:
        raise RoadMapError(
            f"map {name!r} is not OpenDRIVE that can be read: it declares "
            f"encoding={cut(encoding)!r}, which Python does not know; save it as UTF-8"
        ) from None
    except UnicodeError as error:
        raise RoadMapError(
            f"map {name!r} is not OpenDRIVE: it is not text in {encoding} ({error}); "
            "save it as UTF-8"
        ) from None


def parse(name: str, text: str) -> ElementTree.Element:
    """Return the root element of a document."""
    _check_size(name, len(text))
    text = text.lstrip("\ufeff \t\r\n")
    if "<" not in text:
        raise RoadMapError(
            f"map {name!r} is not OpenDRIVE: it is not XML, or not text in its encoding; "
            "there is no '<' in it"
        )
    builder = _Builder(name)
    try:
        root = builder.parse(text.encode())
    except UnicodeEncodeError as error:
        raise RoadMapError(f"map {name!r} is not OpenDRIVE: it is not text ({error})") from None
    except expat.ExpatError as error:
        raise RoadMapError(f"map {name!r} is not OpenDRIVE: it is not XML ({error})") from None
    if root.tag != "OpenDRIVE":
        raise RoadMapError(f"map {name!r} is not OpenDRIVE: its root element is <{cut(root.tag)}>")
    if root.find("header") is None:
        raise RoadMapError(f"map {name!r} is not OpenDRIVE: it has no <header>")
    _tidy(root)
    return root


def geometry_text(root: ElementTree.Element) -> str:
    """Return the document that `carla.Map` gets."""
    needed = _needed(root)
    header = needed.find("header")
    assert header is not None  # `parse` has looked
    # Without one the library prints a warning for every map.
    ElementTree.SubElement(header, "geoReference").text = "+proj=tmerc +lat_0=0 +lon_0=0"
    return ElementTree.tostring(needed, encoding="unicode")


def _needed(element: ElementTree.Element) -> ElementTree.Element:
    """Return a copy of what `carla.Map` makes roads and lanes of."""
    copy = ElementTree.Element(element.tag, element.attrib)
    copy.extend(_needed(child) for child in element if child.tag in _NEEDED)
    return copy


def _check_size(name: str, size: int) -> None:
    if size > LARGEST_BYTES:
        raise RoadMapError(
            f"map {name!r} has {size / 2**20:.0f} MiB, more than the {LARGEST_BYTES >> 20} that "
            "are read; cut it into smaller maps, or leave out what cars do not drive on"
        )


class _Builder:
    """Builds a tree of local names while it bounds what a document may cost."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tree = ElementTree.TreeBuilder()
        self._open: list[str] = []
        self._count = 0
        self._parser = expat.ParserCreate("utf-8", "}")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text
        self._parser.EntityDeclHandler = self._entity

    def parse(self, data: bytes) -> ElementTree.Element:
        self._parser.Parse(data, True)
        return self._tree.close()

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._open.append(_local(tag))
        self._count += 1
        if len(self._open) > _DEEPEST:
            raise self._refusal(f"elements nested more than {_DEEPEST} deep")
        if self._count > _MOST_ELEMENTS:
            raise self._refusal(f"more than {_MOST_ELEMENTS:,} elements")
        # An attribute of another namespace is no attribute of OpenDRIVE.
        own = {key: value for key, value in attributes.items() if "}" not in key}
        self._tree.start(self._open[-1], own)

    def _end(self, _: str) -> None:
        self._tree.end(self._open.pop())

    def _text(self, text: str) -> None:
        if self._open[-1] == "geoReference":
            self._tree.data(text)

    def _entity(self, entity: str, *_: object) -> None:
        raise self._refusal(f"an entity of its own, <!ENTITY {cut(entity)}>; write it out")

    def _refusal(self, what: str) -> RoadMapError:
        line = self._parser.CurrentLineNumber
        return RoadMapError(f"map {self._name!r} is not OpenDRIVE: line {line} has {what}")


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _tidy(root: ElementTree.Element) -> None:
    """Leave of each geometry its shape alone, and no geometry of length 0 where others are."""
    for plan in root.iterfind("road/planView"):
        for geometry in plan.findall("geometry"):
            shape = next((child for child in geometry if child.tag in SHAPES), None)
            geometry[:] = [] if shape is None else [shape]
        empty = [geometry for geometry in plan.findall("geometry") if _has_no_length(geometry)]
        if len(empty) < len(plan):
            for geometry in empty:
                plan.remove(geometry)


def _has_no_length(geometry: ElementTree.Element) -> bool:
    try:
        return float(geometry.get("length", "")) == 0.0
    except ValueError:
        return False
