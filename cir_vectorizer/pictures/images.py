"""Safe decoding: bytes, base64 or a path become an upright RGB picture, or an error that says why not.

Only formats that Pillow decodes in this process are read, recognised by their first bytes and never by a
file's suffix. Sizes are checked in the header, before any pixel is unpacked. Thread-safe: no global setting of
Pillow is changed. Decoding takes 8 bytes a pixel (RGB from JPEG or PNG) to 24 (RGBA from JPEG 2000); the caller
decides how many pictures are decoded at once.

Pillow's own checks are not repeated here, so old versions are less safe: before Pillow 13, the repeated tags of a
TIFF or an EXIF block can take gigabytes.

Not handled here: colour profiles (CLIP was trained without them; only LAB is converted), frames after the first,
and pictures by URL.
"""

import contextlib
import importlib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import IO, cast

from PIL import ExifTags, Image, ImageChops, ImageCms, ImageFile

from cir_vectorizer.errors import ImageError
from cir_vectorizer.query import ImageRef
from cir_vectorizer.query.encoded import DEFAULT_LIMITS, Limits, check_bytes, decode_base64, read_file

_Reader = Callable[[IO[bytes], str | bytes], ImageFile.ImageFile]

_ACCEPTED = "JPEG, PNG, WebP, GIF, AVIF, TIFF, BMP, JPEG 2000 or PPM"

Image.init()  # now: Pillow would otherwise load its plugins while the first threads already decode

_PICTURES = [
    (re.compile(pattern, re.DOTALL), name)
    for pattern, name in (  # the names are keys of PIL.Image.OPEN, except HEIF
        (rb"\xff\xd8\xff", "JPEG"),
        (rb"\x89PNG\r\n\x1a\n", "PNG"),
        (rb"GIF8[79]a", "GIF"),
        (rb"RIFF....WEBP", "WEBP"),
        (rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", "BMP"),
        (rb"II[*+]\0|MM\0[*+]", "TIFF"),
        (rb"....ftyp(?:avi[fs]|m[is]f1.{0,64}avi[fs])", "AVIF"),
        (rb"....ftyp(?:hei[cxms]|hev[cxms]|m[is]f1)", "HEIF"),
        (rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "JPEG2000"),
        (rb"P[456]\s", "PPM"),
    )
]

_DOWNLOAD = "what was downloaded is not the picture, so open its address in a browser to see what it gives"
_EXPORT = "export it as PNG or JPEG"
_OTHERS = [
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), f"is {what}")
    for pattern, what in (
        (rb"<(?:!doctype\s+html|html|head|body|script|meta)\b", f"a web page (HTML); {_DOWNLOAD}"),
        (rb"(?:<.{0,2000}?)?<svg\b", f"an SVG drawing; {_EXPORT}"),
        (rb"<\?xml|<\w+[^<]*>", f"an XML text; {_DOWNLOAD}"),
        (rb"version https://git-lfs", "a Git LFS pointer; run `git lfs pull` to get the picture itself"),
        (rb"[{\[]\s*[\"{\[\]}\d]", f"a JSON text; {_DOWNLOAD}"),
        (rb"data:image/|/9j/|iVBORw0KGgo|R0lGODlh|UklGR", "base64 text; decode it first"),
        (rb"\xff\xfe|\xfe\xff", f"plain text; give a picture ({_ACCEPTED})"),
        (rb"%PDF-", f"a PDF document; {_EXPORT}"),
        (rb"%!PS|\xc5\xd0\xd3\xc6", f"a PostScript drawing; {_EXPORT}"),
        (rb"8BPS", f"a Photoshop document; {_EXPORT}"),
        (rb"\0\0[\x01\x02]\0[^\0]\0", f"a Windows icon; {_EXPORT}"),
        (rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF|\x01\0\x09\0\0\x03", f"a Windows metafile; {_EXPORT}"),
        (rb"\xff\x0a|\0\0\0\x0cJXL ", f"a JPEG XL picture, which is not read here; {_EXPORT}"),
        (rb"....ftyp|\x1a\x45\xdf\xa3|RIFF....AVI |\0\0\x01[\xb3\xba]", "a video; give one frame of it as a picture"),
        (rb"RIFF....WAVE|ID3|OggS|fLaC", "a sound; give a picture"),
        (rb"PK[\x03\x05\x07]", "a ZIP archive or an office document; unpack it and give a picture"),
        (rb"\x1f\x8b|BZh|7z\xbc\xaf|\xfd7zXZ|\x28\xb5\x2f\xfd|Rar!", "an archive; unpack it and give a picture"),
        (rb"\x80[\x02-\x05]", "a Python pickle, which is never opened here; give a picture"),
    )
]

_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]|[\xc0\xc1\xf5-\xff]")
"""Bytes that never occur in a UTF-8 text file."""

_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_SCAN = b"\xff\xda"
_MAX_SCANS = 100
_MAX_PARTS = 1000
_LAST_BLOCKS = 17
"""Rows of pixels in the last row of blocks, and the one above that is smoothed with it."""
_MOST_MISSING = 0.3
"""Largest share of a picture that may be missing at its end."""
_GIF_BLOCK = re.compile(rb"[!,;]")
_TILE_WIDTH, _TILE_LENGTH = 322, 323

_TURNS: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(source: bytes | Path, limits: Limits = DEFAULT_LIMITS) -> Image.Image:
    """Read a picture as a person sees it: upright, first frame, transparent parts on white.

    Returns:
        A picture of mode RGB, at least 1 × 1 pixel, that holds no open file and no metadata.

    Raises:
        ImageError: with reason "bytes", "pixels", "shape", "format", "truncated", "mode" or, for a path, "path".
    """
    data = read_file(source, limits) if isinstance(source, Path) else source
    check_bytes(len(data), limits)
    name, reader = _reader(data)
    try:
        _check_parts(name, data)
        try:
            upright = _decoded(reader, data, limits)
        except OSError:
            if name != "JPEG" or (whole := _with_end(data, lambda content: _decoded(reader, content, limits))) is None:
                raise
            upright = whole
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        limit = _mega(min(limits.max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or limits.max_pixels)))
        problem = f"has more pixels than the limit of {limit} megapixels; make it smaller"
        raise ImageError("pixels", problem) from error
    except MemoryError as error:
        raise ImageError("pixels", "needs more memory than is free; make it smaller") from error
    except Exception as error:  # hostile bytes make decoders raise anything, from struct.error to AttributeError
        if "MAX_TEXT" in str(error):
            problem = "carries text or a colour profile that unpacks to too much; save it again without metadata"
            raise ImageError("bytes", problem) from error
        problem = f"is a cut short, damaged or oddly coded {name} file; copy or export it again"
        raise ImageError("truncated", problem) from error
    upright.info.clear()
    return upright


def read_reference(ref: ImageRef, limits: Limits = DEFAULT_LIMITS, allow_paths: bool = False) -> bytes:
    """Read the encoded picture that a query refers to, without decoding it.

    Args:
        allow_paths: True to read local paths; never for a query that came over a network.

    Raises:
        ImageError: as in `decode_base64`; "url" for a URL, "path" for a path that cannot be read or is not allowed,
            "missing" for a reference that holds no picture (a vector or an id).
    """
    if ref.data is not None:
        return ref.data
    if ref.base64 is not None:
        return decode_base64(ref.base64, limits)
    if ref.path is not None:
        if not allow_paths:
            raise ImageError("path", "is a path, and files are not read here; send the picture as base64")
        return read_file(ref.path, limits)
    if ref.url is not None:
        raise ImageError("url", "pictures by URL are not fetched here; give the picture itself")
    kind = "a vector" if ref.vector is not None else "an object's id"
    raise ImageError("missing", f"is {kind}, which holds no picture to open; resolve it first, or give a picture")


def load_reference(ref: ImageRef, limits: Limits = DEFAULT_LIMITS, allow_paths: bool = False) -> Image.Image:
    """Open the picture that a query refers to.

    Raises:
        ImageError: as in `read_reference` and `open_image`.
    """
    return open_image(read_reference(ref, limits, allow_paths), limits)


def _reader(data: bytes) -> tuple[str, _Reader]:
    head = data[:4096]
    name = next((name for pattern, name in _PICTURES if pattern.match(head)), None)
    if name == "HEIF":
        return name, _heif_reader()
    if name in Image.OPEN:
        return name, Image.OPEN[name][0]
    if name is not None:
        raise ImageError("format", f"is a {name} picture, which the installed Pillow cannot read; export it as JPEG")
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    other = next((what for pattern, what in _OTHERS if pattern.match(start)), None)
    if other is None and not _CONTROL.search(head):
        other = f"is plain text; give a picture ({_ACCEPTED})"
    if other is None:
        other = f"starts with the bytes {head[:4].hex(' ')}, which no known picture does; give {_ACCEPTED}"
    raise ImageError("format", other)


def _decoded(reader: _Reader, data: bytes, limits: Limits) -> Image.Image:
    with BytesIO(data) as stream:
        picture = reader(stream, "")
        _check_size(picture.size, limits)
        _check_tiles(picture, len(data), limits)
        picture.load()
        return _upright(picture, _rgb(picture))


def _with_end(data: bytes, decoded: Callable[[bytes], Image.Image]) -> Image.Image | None:
    """Decode a JPEG that lacks its end; None if more than its last row of blocks is missing.

    A decoder fills missing pixels from whatever follows, so pixels that are the same with different fillings are in the
    file. A progressive JPEG must lack none: its last scan only sharpens what the others hold.
    """
    start = data.removesuffix(b"\xff")
    first, *others = (decoded(start + filling * 2048 + b"\xff\xd9") for filling in (b"", b"\x5a\xc3", b"\xa5\x3c"))
    if first.info.get("progressive"):
        return first if all(first.tobytes() == other.tobytes() for other in others) else None
    return first if all(_differ_at_end(first, other) for other in others) else None


def _differ_at_end(picture: Image.Image, other: Image.Image) -> bool:
    """Tell whether two pictures differ in no more than a last row of blocks, which is a column if they were turned."""
    box = ImageChops.difference(picture, other).getbbox()
    if box is None:
        return True
    width, height = box[2] - box[0], box[3] - box[1]
    small = width * height <= _MOST_MISSING * picture.width * picture.height
    return small and min(width, height) <= _LAST_BLOCKS


def _heif_reader() -> _Reader:
    """Return the opener of pillow-heif or pi-heif; it is not registered, which would change Pillow for all the process."""
    for module in ("pillow_heif", "pi_heif"):  # pi-heif is the same without an encoder, hence under another licence
        with contextlib.suppress(ImportError):
            reader: _Reader = importlib.import_module(module).HeifImageFile
            return reader
    remedy = "export it as JPEG, or install it where pictures are read: pip install 'cir-vectorizer[heif]'"
    raise ImageError("format", f"is a HEIF picture (HEIC), which needs pillow-heif; {remedy}")


def _parts(name: str, data: bytes) -> Iterator[bytes]:
    """Yield the kind of each part that is not pixels: JPEG segments, PNG chunks, GIF blocks before the first frame."""
    if name == "JPEG":
        position, few_scans = 2, data.count(_SCAN) <= _MAX_SCANS
        while (marker := _JPEG_MARKER.search(data, position)) and marker[0] != b"\xff\xd9":
            yield marker[0]
            if few_scans and marker[0] == _SCAN:
                return
            position = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    elif name == "PNG":
        position = 8
        while kind := data[position + 4 : position + 8]:
            if kind not in (b"IDAT", b"fdAT", b"fcTL"):
                yield kind
            position += 12 + int.from_bytes(data[position : position + 4], "big")
    elif name == "GIF":
        position = 13 + (3 << (data[10] & 7) + 1 if data[10] & 128 else 0)
        while (block := _GIF_BLOCK.search(data, position)) and block[0] == b"!":
            position = block.end() + 1
            yield block[0]
            while data[position]:
                yield block[0]
                position += data[position] + 1


def _check_parts(name: str, data: bytes) -> None:
    """Refuse files with so many small parts that they would keep Pillow's parsers or libjpeg busy for minutes."""
    parts = Counter(islice(_parts(name, data), _MAX_PARTS + 1))
    if parts.total() > _MAX_PARTS:
        problem = f"is a {name} with metadata in more than {_MAX_PARTS:,} parts"
        raise ImageError("bytes", f"{problem}; save it again without metadata")
    if parts[_SCAN] > _MAX_SCANS:
        problem = f"is a JPEG of {parts[_SCAN]:,} scans, over the limit of {_MAX_SCANS}"
        raise ImageError("bytes", f"{problem}; export it again")


def _check_tiles(picture: ImageFile.ImageFile, count: int, limits: Limits) -> None:
    """Refuse TIFF tiles that unpack to far more than the picture, and large files that Pillow decodes in Python."""
    tags = getattr(picture, "tag_v2", {})
    if (tile := int(tags.get(_TILE_WIDTH, 0)) * int(tags.get(_TILE_LENGTH, 0))) > limits.max_pixels:
        problem = f"is a TIFF with tiles of {_mega(tile)} megapixels, over the limit of {_mega(limits.max_pixels)}"
        raise ImageError("pixels", f"{problem}; export it again")
    if count > 2**21 and any(part[0] in Image.DECODERS for part in picture.tile):
        raise ImageError("format", f"is a {picture.format} of a rare coding that is slow to read; export it as PNG")


def _rgb(picture: Image.Image) -> Image.Image:
    mode = picture.mode
    if mode.startswith(("I", "F")):
        return _eight_bit(picture).convert("RGB")
    try:
        if mode == "LAB":
            profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(picture, *profiles, outputMode="RGB")
            assert converted is not None
            return converted
        if not picture.has_transparency_data:
            return picture.convert("RGB")
        layer = (picture.convert("LA") if mode == "La" else picture).convert("RGBA")
    except (ValueError, ImportError, ImageCms.PyCMSError) as error:
        raise ImageError("mode", f"is in colour mode {mode}, which cannot be shown; save it as 8-bit RGB") from error
    white = Image.new("RGB", picture.size, "white")
    white.paste(layer, mask=layer)
    return white


def _eight_bit(picture: Image.Image) -> Image.Image:
    """Scale values of more than 8 bits to grey, by the smallest common range that holds them, else by their own."""
    wide = picture if picture.mode == "F" else picture.convert("I")
    low, high = cast(tuple[float, float], wide.getextrema())
    if not math.isfinite(high - low):
        raise ImageError("mode", "has pixels that are not finite numbers; save it as 8-bit RGB")
    if picture.mode.startswith("I;16"):
        low, high = 0, 65535
    elif low >= 0 and (usual := [top for top in (1, 255, 65535) if high <= top]):
        low, high = 0, usual[0]
    scale = 255 / (high - low or 1)
    return wide.point(lambda value: value * scale + (0.5 - low * scale)).convert("L")


def _upright(picture: Image.Image, pixels: Image.Image) -> Image.Image:
    """Turn `pixels` upright by the EXIF orientation of `picture`; malformed EXIF is ignored."""
    try:
        turn = _TURNS.get(picture.getexif().get(ExifTags.Base.Orientation))
    except Exception:
        return pixels
    return pixels if turn is None else pixels.transpose(turn)


def _check_size(size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    pixels = width * height
    if pixels < 1:
        raise ImageError("shape", f"is {width:,} × {height:,} pixels, so there is nothing to see; export it again")
    if pixels > limits.max_pixels:
        found = f"{width:,} × {height:,} = {_mega(pixels)} megapixels"
        raise ImageError("pixels", f"is {found}, over the limit of {_mega(limits.max_pixels)}; make it smaller")
    if max(size) > limits.max_aspect * min(size):
        problem = f"is {width:,} × {height:,} pixels, one side more than {limits.max_aspect:,} times the other"
        raise ImageError("shape", f"{problem}; crop it")


def _mega(pixels: int) -> str:
    return f"{pixels / 1e6:,.0f}" if pixels >= 1e8 else f"{pixels / 1e6:,.10g}"
