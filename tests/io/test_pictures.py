"""PNG, JPEG, BMP and TIFF pictures: every bit kept or a reason given."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from finemask.errors import DataError
from finemask.geometry import Geometry
from finemask.io import pictures, read_header, read_image, read_labels, write_image

RNG = np.random.default_rng(0)
PNG_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png16(path: Path, pixels: np.ndarray) -> Path:
    """A 16-bit PNG by the letter of its specification; every second row uses the Up filter."""
    rows = pixels.astype(">u2").reshape(len(pixels), -1).view(np.uint8)
    lines = b"".join(
        (b"\x02" + (rows[r] - rows[r - 1]).tobytes()) if r % 2 else (b"\x00" + rows[r].tobytes())
        for r in range(len(rows))
    )
    size = struct.pack(">II", pixels.shape[1], pixels.shape[0])
    kind = bytes([16, PNG_COLOURS[pixels.shape[2]], 0, 0, 0])
    body = chunk(b"IHDR", size + kind) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_eight_bits(tmp_path: Path, suffix: str, channels: int) -> None:
    pixels = RNG.integers(0, 256, (channels, 6, 7), dtype=np.uint8)
    write_image(tmp_path / f"a{suffix}", pixels, Geometry.regular((6, 7)))
    array, geometry = read_image(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(array, pixels)
    assert array.dtype == np.float32
    assert geometry == Geometry.regular((6, 7))
    other = np.asarray(Image.open(tmp_path / f"a{suffix}")).reshape(6, 7, channels)
    np.testing.assert_array_equal(np.moveaxis(other, -1, 0), pixels)
    header = read_header(tmp_path / f"a{suffix}")
    assert (header.shape, header.channels, header.dtype) == ((6, 7), channels, np.uint8)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.fault("F53")
def test_sixteen_bit_png(tmp_path: Path, channels: int) -> None:
    pixels = RNG.integers(0, 65536, (6, 7, channels)).astype(np.uint16)
    if channels == 4:
        pixels[..., 3] = 65535
    path = png16(tmp_path / "a.png", pixels)
    expected = np.moveaxis(pixels, -1, 0)[:3]
    np.testing.assert_array_equal(read_image(path)[0], expected)
    assert read_header(path).dtype == np.uint16
    assert read_header(path).channels == len(expected)


def test_sixteen_bit_grey_with_alpha(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="16-bit grey with alpha"):
        read_image(png16(tmp_path / "a.png", np.full((3, 3, 2), 65535)))


@pytest.mark.fault("F53")
def test_written_sixteen_bits(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 65536, (6, 7)).astype(np.uint16)
    write_image(tmp_path / "a.png", pixels, Geometry.regular((6, 7)))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), pixels)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0][0], pixels)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_alpha_is_dropped_only_if_opaque(tmp_path: Path, mode: str, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    picture = Image.new(mode, (5, 4), (*[90] * (len(mode) - 1), 255))
    picture.save(path)
    array, _ = read_image(path)
    assert len(array) == len(mode) - 1 == read_header(path).channels
    assert (array == 90).all()
    picture.putpixel((0, 0), (*[90] * (len(mode) - 1), 254))
    picture.save(path)
    with pytest.raises(DataError, match="transparent pixels"):
        read_image(path)


def palette_picture() -> Image.Image:
    picture = Image.new("P", (5, 4))
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    picture.putdata([0, 1, 2, 0, 1] * 4)
    return picture


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
@pytest.mark.fault("F54")
def test_palettes_are_colours_of_images_and_indices_of_masks(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    palette_picture().save(path)
    array, _ = read_image(path)
    assert array[:, 0, :3].T.tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
    assert read_header(path).channels == 3
    assert read_labels(path)[0].tolist() == [[0, 1, 2, 0, 1]] * 4


def test_a_palette_of_greys_is_one_channel(tmp_path: Path) -> None:
    picture = palette_picture()
    picture.putpalette([0, 0, 0, 90, 90, 90, 200, 200, 200])
    picture.save(tmp_path / "a.png")
    assert read_header(tmp_path / "a.png").channels == 1
    assert read_image(tmp_path / "a.png")[0][:, 0, :3].tolist() == [[0, 90, 200]]


def test_one_bit_masks(tmp_path: Path) -> None:
    bits = Image.fromarray(np.eye(9, dtype=bool))
    for suffix in (".png", ".bmp", ".tif"):
        bits.save(tmp_path / f"a{suffix}")
        np.testing.assert_array_equal(read_labels(tmp_path / f"a{suffix}")[0], np.eye(9))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
@pytest.mark.fault("F57")
def test_turned_pictures_are_refused(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 5)).save(tmp_path / f"a{suffix}", exif=exif)
    for read in (read_header, read_image):
        with pytest.raises(DataError, match=r"orientation 6\).*auto-orient"):
            read(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.9])
def test_truncated(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError) as error:
        read_image(path)
    assert error.value.subject == str(path)
    assert "\n" not in str(error.value)


def test_one_wrong_bit_in_a_png(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(RNG.integers(0, 256, (64, 64), dtype=np.uint8)).save(path)
    data = bytearray(path.read_bytes())
    data[-30] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="checksum fails"):
        read_image(path)


@pytest.mark.fault("F55")
def test_bombs(tmp_path: Path) -> None:
    size = struct.pack(">II", 60000, 60000) + bytes([8, 0, 0, 0, 0])
    body = chunk(b"IHDR", size) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    for read in (read_header, read_image):
        with pytest.raises(DataError, match="claims more than"):
            read(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((6, 7), np.uint8), compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        file.pages[0].tags["ImageWidth"].overwrite(60000)
        file.pages[0].tags["ImageLength"].overwrite(60000)
    with pytest.raises(DataError, match="more than the limit"):
        read_image(tmp_path / "a.tif")


def test_a_picture_that_is_none(tmp_path: Path) -> None:
    for suffix in (".png", ".jpg", ".bmp", ".tif"):
        (tmp_path / f"a{suffix}").write_bytes(b"<html>not found</html>")
        with pytest.raises(DataError):
            read_image(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.fault("F53")
def test_tiff_types(tmp_path: Path, dtype: type, channels: int) -> None:
    pixels = (RNG.random((channels, 6, 7)) * 200).astype(dtype)
    write_image(tmp_path / "a.tif", pixels, Geometry.regular((6, 7)))
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[0], pixels.astype(np.float32))
    assert read_header(tmp_path / "a.tif").dtype == dtype


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_deflate", None])
def test_tiff_compressions(tmp_path: Path, compression: str | None) -> None:
    for pixels in (
        RNG.integers(0, 256, (6, 7), dtype=np.uint8),
        RNG.integers(0, 256, (6, 7, 3), dtype=np.uint8),
        RNG.integers(0, 65536, (6, 7)).astype(np.uint16),
        RNG.random((6, 7)).astype(np.float32),
    ):
        Image.fromarray(pixels).save(tmp_path / "a.tif", compression=compression)
        array, _ = read_image(tmp_path / "a.tif")
        np.testing.assert_array_equal(np.squeeze(np.moveaxis(array, 0, -1)), pixels)


@pytest.mark.parametrize("compression", ["zlib", None])
def test_white_is_zero(tmp_path: Path, compression: str | None) -> None:
    pixels = RNG.integers(0, 256, (6, 7), dtype=np.uint8)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, photometric="miniswhite", compression=compression)
    np.testing.assert_array_equal(read_image(path)[0][0], 255 - pixels)


@pytest.mark.fault("F58")
def test_pages(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((5, 6, 7), np.uint8), metadata={"axes": "ZYX"})
    with pytest.raises(DataError, match=r"holds 5 pages \(axes ZYX\), needs one picture"):
        read_image(path)
    tifffile.imwrite(path, np.ones((2, 6, 7), np.uint8), metadata={"axes": "CYX"})
    assert read_image(path)[0].shape == (2, 6, 7)
    with tifffile.TiffWriter(path) as file:
        file.write(np.zeros((6, 7), np.uint8))
        file.write(np.zeros((3, 3), np.uint8))
    with pytest.raises(DataError, match="holds 2 pages"):
        read_image(path)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("a.png", np.full((6, 7), 0.5), "whole numbers from 0 to 65535"),
        ("a.png", np.full((6, 7), -1), "whole numbers from 0 to 65535"),
        ("a.png", np.full((3, 6, 7), 300), "3-channel uint16"),
        ("a.png", np.zeros((2, 6, 7)), "1 or 3 channels"),
        ("a.bmp", np.full((6, 7), 300), "8 bits only"),
        ("a.jpg", np.zeros((6, 7)), "would change the values"),
        ("a.nii.gz", np.zeros((6, 7)), "which holds volumes"),
        ("a.dcm", np.zeros((6, 7)), "is not written"),
        ("a.gif", np.zeros((6, 7)), "is not written"),
        ("a.png", np.zeros((6, 8)), "on a grid of"),
    ],
)
def test_what_cannot_be_written(tmp_path: Path, name: str, array: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        write_image(tmp_path / name, array, Geometry.regular((6, 7)))
    assert error.value.subject == str(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_real_pictures(real_data: Path) -> None:
    for name in ("BUSI", "DRIVE", "polyp", "COVID19_CT_infection", "ISIC2018_skin_512"):
        for path in sorted((real_data / name / "images").iterdir())[:3]:
            pixels = np.asarray(Image.open(path))
            array, _ = read_image(path)
            np.testing.assert_array_equal(np.squeeze(np.moveaxis(array, 0, -1)), pixels)
        for path in sorted((real_data / name / "masks").iterdir())[:3]:
            np.testing.assert_array_equal(read_labels(path)[0], np.asarray(Image.open(path)) > 127)


def tiff_pages(path: Path, offsets: list[int], tags: int = 0) -> Path:
    """Directories of no use at some offsets, each naming the next, the last one the first."""
    data = bytearray(4096)
    data[:8] = struct.pack("<2sHI", b"II", 42, offsets[0])
    for here, following in zip(offsets, [*offsets[1:], offsets[0]], strict=True):
        data[here : here + 6] = struct.pack("<HI", tags, following)
    path.write_bytes(data)
    return path


@pytest.mark.fault("F17", "F58")
def test_tiff_directories_without_end(tmp_path: Path) -> None:
    """Found by damaging files: each page cost a second, and there were thousands."""
    path = tmp_path / "a.tif"
    for offsets, message in (
        ([8, 14], "form a circle"),
        (list(range(8, 8 + 6 * 300, 6)), "at most 256 pages .*, has more"),
    ):
        for read in (read_header, read_image):
            with pytest.raises(DataError, match=message):
                read(tiff_pages(path, offsets))
    with pytest.raises(DataError, match="has a page of 60,000 tags"):
        read_image(tiff_pages(path, [8], tags=60000))
    path.write_bytes(b"MM\0\x2a\0\0\0\x08")
    with pytest.raises(DataError, match=r"a\.tif: cannot be decoded"):
        read_image(path)


def test_big_tiff(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (6, 7), dtype=np.uint8)
    for order in "<>":
        tifffile.imwrite(tmp_path / "a.tif", pixels, bigtiff=True, byteorder=order)
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[0][0], pixels)


def test_a_decoder_says_nothing_beside_our_line(tmp_path: Path) -> None:
    """What tifffile and pydicom log of a damaged file would be lines of their own on stderr."""
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((6, 7), np.uint8))
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[24:26] = b"\xff\x7f"  # the type of the second tag
    (tmp_path / "a.tif").write_bytes(data)
    code = f"from finemask.info import describe_path; describe_path({str(tmp_path / 'a.tif')!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "TiffTag" not in done.stderr.partition("Traceback")[0]
    assert "a.tif: " in done.stderr.splitlines()[-1]


@pytest.mark.fault("F17")
@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1", "I;16"])
def test_a_png_with_fewer_pixels_than_its_header_claims_is_refused(
    tmp_path: Path, mode: str
) -> None:
    """Every checksum is right, and Pillow fills up with black."""
    path = tmp_path / "a.png"
    Image.new(mode, (37, 21)).save(path)
    assert read_image(path)[0].shape[1:] == (21, 37)
    content = path.read_bytes()
    fields = bytearray(content[12:29])
    fields[8:12] = struct.pack(">I", 42)
    path.write_bytes(content[:12] + fields + struct.pack(">I", zlib.crc32(fields)) + content[33:])
    with pytest.raises(DataError, match="its pixels are .* bytes, its size needs"):
        read_image(path)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8), (37, 21)])
@pytest.mark.parametrize("bits", [1, 8, 24])
def test_interlaced_pixels_are_counted_pass_by_pass(
    tmp_path: Path, size: tuple[int, int], bits: int
) -> None:
    """An Adam7 file made by hand: each pass holds its share, a filter byte before each row."""
    width, height = size
    rows = b""
    for x, y, dx, dy in pictures.ADAM7:
        columns, lines = len(range(x, width, dx)), len(range(y, height, dy))
        rows += bytes(lines * (1 + (columns * bits + 7) // 8)) if columns else b""
    depth, colour = (bits, 0) if bits < 24 else (8, 2)

    def write(pixels: bytes) -> Path:
        header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 1)
        (tmp_path / "a.png").write_bytes(
            b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
            + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
        )  # fmt: skip
        return tmp_path / "a.png"

    assert read_image(write(rows))[0].shape[1:] == (height, width)
    with pytest.raises(DataError, match="truncated"):
        read_image(write(rows[:-1]))
