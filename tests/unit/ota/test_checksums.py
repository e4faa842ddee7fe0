"""Every checksum ThingsBoard offers, against published vectors and in pieces of any size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teg.domain.errors import Refused
from teg.domain.ota.checksums import ALGORITHMS, checksum, new_hasher

#: Numbers as other tools print them; `checksum` has to give their bytes in the order Guava writes them.
#: CRC-32 check value: ITU-T V.42. Murmur3_32: SMHasher's reference code. Murmur3_128 (x64): Guava's own
#: Murmur3Hash128Test ("abc", the pangram) and the empty input.
PANGRAM = b"The quick brown fox jumps over the lazy dog"
LITTLE_ENDIAN = [
    ("CRC32", b"", [0x00000000], 4),
    ("CRC32", b"123456789", [0xCBF43926], 4),
    ("MURMUR3_32", b"", [0x00000000], 4),
    ("MURMUR3_32", b"test", [0xBA6BD213], 4),
    ("MURMUR3_32", b"Hello, world!", [0xC0363E43], 4),
    ("MURMUR3_32", PANGRAM, [0x2E4FF723], 4),
    ("MURMUR3_128", b"", [0, 0], 8),
    ("MURMUR3_128", b"abc", [0xB4963F3F3FAD7867, 0x3BA2744126CA2D52], 8),
    ("MURMUR3_128", b"hello", [0xCBD8A7B341BD9B02, 0x5B1E906A48AE1D19], 8),
    ("MURMUR3_128", PANGRAM, [0xE34BBC7BBC071B6C, 0x7A433CA9C49A9347], 8),
]
AS_USUAL = [
    ("MD5", b"abc", "900150983cd24fb0d6963f7d28e17f72"),
    ("SHA256", b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    (
        "SHA384",
        b"abc",
        "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
    ),
    (
        "SHA512",
        b"abc",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
        "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
    ),
]


@pytest.mark.parametrize(("algorithm", "data", "numbers", "width"), LITTLE_ENDIAN)
def test_numbers_are_written_little_endian_as_guava_does(
    algorithm: str, data: bytes, numbers: list[int], width: int
) -> None:
    expected = b"".join(number.to_bytes(width, "little") for number in numbers).hex()
    assert checksum(algorithm, [data]) == expected


@pytest.mark.parametrize(("algorithm", "data", "expected"), AS_USUAL)
def test_digests_are_written_as_everywhere(algorithm: str, data: bytes, expected: str) -> None:
    assert checksum(algorithm, [data]) == expected


def test_every_algorithm_of_the_server_is_covered() -> None:
    assert {case[0] for case in LITTLE_ENDIAN} | {case[0] for case in AS_USUAL} == set(ALGORITHMS)
    assert set(ALGORITHMS) == {"MD5", "SHA256", "SHA384", "SHA512", "CRC32", "MURMUR3_32", "MURMUR3_128"}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(pieces=st.lists(st.binary(max_size=70), max_size=8))
def test_the_pieces_do_not_matter(algorithm: str, pieces: list[bytes]) -> None:
    assert checksum(algorithm, pieces) == checksum(algorithm, [b"".join(pieces)])


@pytest.mark.parametrize("algorithm", ["", "sha256", "SHA1", "../x", "MURMUR3_64"])
def test_an_unknown_algorithm_is_refused(algorithm: str) -> None:
    with pytest.raises(Refused, match="none of MD5"):
        new_hasher(algorithm)
