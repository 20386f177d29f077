"""What of an ELF file is needed: symbols of a library, and what a cubin says of its kernels."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

_SYMBOLS, _FUNCTION = 2, 2
#: Attributes in a kernel's section ``.nv.info``; cuobjdump -elf shows them by name.
_KPARAM_INFO, _MAX_THREADS = 0x17, 0x05
_HAS_BYTES = 4
#: The size of a file's header.
HEADER = 64
#: The bytes that a cubin for sm_90 or later adds to a kernel's shared memory for the driver. They
#: are not part of what a block may have.
_RESERVED = 1024


class Section(NamedTuple):
    name: str
    kind: int
    content: bytes
    #: The number of the section that holds the names of a table of symbols.
    link: int
    #: In bytes, also where the file has no content.
    size: int


class Kernel(NamedTuple):
    """What the driver learns of a kernel."""

    #: In bytes, of each parameter.
    sizes: tuple[int, ...]
    #: What __launch_bounds__ allows in a block.
    max_threads: int
    #: The bytes of its static shared memory.
    static_shared: int


def sections(file: bytes) -> list[Section]:
    """Of a 64-bit little-endian file."""
    (start,) = struct.unpack_from("<Q", file, 0x28)
    count, of_names = struct.unpack_from("<HH", file, 0x3C)
    headers = [struct.unpack_from("<IIQQQQIIQQ", file, start + 64 * i) for i in range(count)]
    contents = [file[at : at + size] for _, _, _, _, at, size, *_ in headers]
    return [
        Section(_name(contents[of_names], header[0]), header[1], content, header[6], header[5])
        for header, content in zip(headers, contents)
    ]


def size(header: bytes) -> int:
    """Of the whole file, by its first HEADER bytes: its tables of contents end it."""
    programs, sections = struct.unpack_from("<QQ", header, 0x20)
    program_size, program_count, section_size, section_count = struct.unpack_from(
        "<HHHH", header, 0x36
    )
    return max(programs + program_size * program_count, sections + section_size * section_count)


def _name(names: bytes, start: int) -> str:
    return names[start : names.index(b"\0", start)].decode()


def functions(file: bytes) -> dict[str, int]:
    """The functions that a library defines, local ones too, and how far from its base they lie."""
    all_sections = sections(file)
    found = {}
    for table in all_sections:
        if table.kind == _SYMBOLS:
            names = all_sections[table.link].content
            for name, info, _, section, at, _ in struct.iter_unpack("<IBBHQQ", table.content):
                if info & 15 == _FUNCTION and section:
                    found[_name(names, name)] = at
    return found


def architecture(cubin: bytes) -> int:
    """90 for sm_90."""
    abi = cubin[8]
    (flags,) = struct.unpack_from("<I", cubin, 0x30)
    return flags >> 8 & 0xFF if abi >= 8 else flags & 0xFF


def kernels(cubin: bytes) -> dict[str, Kernel]:
    """The kernels of a cubin."""
    prefix = ".nv.info."
    found = {}
    all_sections = sections(cubin)
    reserved = _RESERVED if architecture(cubin) >= 90 else 0
    sizes_of = {section.name: section.size for section in all_sections}
    for section in all_sections:
        if section.name.startswith(prefix):
            attributes = list(_attributes(section.content))
            parameters = [struct.unpack("<IHHI", x) for a, x in attributes if a == _KPARAM_INFO]
            sizes = {ordinal: flags >> 18 for _, ordinal, _, flags in parameters}
            bounds = [struct.unpack("<III", x) for a, x in attributes if a == _MAX_THREADS]
            most = min([x * y * z for x, y, z in bounds], default=1024)
            name = section.name[len(prefix) :]
            found[name] = Kernel(
                tuple(sizes[i] for i in range(len(sizes))),
                most,
                max(0, sizes_of.get(f".nv.shared.{name}", 0) - reserved),
            )
    return found


def _attributes(content: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(content):
        form, attribute, size = struct.unpack_from("<BBH", content, at)
        at += 4
        size = size if form == _HAS_BYTES else 0
        yield attribute, content[at : at + size]
        at += size
