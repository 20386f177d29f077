"""A reader of ELF files: the functions of a library, and the kernels of a cubin."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

# SHT_SYMTAB and STT_FUNC.
_SYMBOLS, _FUNCTION = 2, 2
#: Attributes in a kernel's section ``.nv.info``; cuobjdump -elf shows their names.
_KPARAM_INFO, _MAX_THREADS = 0x17, 0x05
#: The format of an attribute with a value.
_HAS_BYTES = 4
#: The size of a file's header.
HEADER = 64
#: The bytes of shared memory that a cubin for sm_90 or later adds to each kernel for the driver.
#: They do not count for the limit of a block.
_RESERVED = 1024


class Section(NamedTuple):
    name: str
    kind: int
    content: bytes
    #: The number of the section that holds the names of a table of symbols.
    link: int
    #: The bytes in memory; a section without content in the file has a size, too.
    size: int


class Kernel(NamedTuple):
    """The properties of a kernel in a cubin."""

    #: The bytes of each parameter.
    sizes: tuple[int, ...]
    #: The maximum number of threads of a block: see __launch_bounds__.
    max_threads: int
    #: The bytes of static shared memory.
    static_shared: int


def sections(file: bytes) -> list[Section]:
    """Return the sections of a 64-bit little-endian file."""
    (start,) = struct.unpack_from("<Q", file, 0x28)
    count, names = struct.unpack_from("<HH", file, 0x3C)
    headers = [struct.unpack_from("<IIQQQQIIQQ", file, start + 64 * i) for i in range(count)]
    contents = [file[at : at + size] for _, _, _, _, at, size, *_ in headers]
    return [
        Section(_name(contents[names], header[0]), header[1], content, header[6], header[5])
        for header, content in zip(headers, contents)
    ]


def size(header: bytes) -> int:
    """Return the size of a file, which ends with a table, from its first HEADER bytes."""
    programs, sections = struct.unpack_from("<QQ", header, 0x20)
    program_size, program_count, section_size, section_count = struct.unpack_from(
        "<HHHH", header, 0x36
    )
    return max(programs + program_size * program_count, sections + section_size * section_count)


def _name(names: bytes, start: int) -> str:
    return names[start : names.index(b"\0", start)].decode()


def functions(file: bytes) -> dict[str, int]:
    """Return {function: offset from the base} of a library, including local functions."""
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
    """Return the architecture of a cubin: 90 for sm_90."""
    abi = cubin[8]
    (flags,) = struct.unpack_from("<I", cubin, 0x30)
    return flags >> 8 & 0xFF if abi >= 8 else flags & 0xFF


def kernels(cubin: bytes) -> dict[str, Kernel]:
    """Return the kernels of a cubin by name."""
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
            max_threads = min([x * y * z for x, y, z in bounds], default=1024)
            name = section.name[len(prefix) :]
            found[name] = Kernel(
                tuple(sizes[i] for i in range(len(sizes))),
                max_threads,
                max(0, sizes_of.get(f".nv.shared.{name}", 0) - reserved),
            )
    return found


def _attributes(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the attributes of a section ``.nv.info``, and their values."""
    at = 0
    while at < len(content):
        format_, attribute, size = struct.unpack_from("<BBH", content, at)
        at += 4
        size = size if format_ == _HAS_BYTES else 0
        yield attribute, content[at : at + size]
        at += size
