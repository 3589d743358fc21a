"""Compression and encryption of messages, by well-kept libraries. Imported when a channel first asks for either.

A wrapped message is a head of 12 bytes, {u8 version, u8 tag of the message, u8 compression, u8 zero, u64 its length
before compression}, and behind it

    PACKED   the compressed message
    SEALED   salt (16 bytes), nonce (12 bytes), AES-256-GCM of the message, compressed or not, its tag last

The key that a message is sealed with is derived (HKDF-SHA256) from the user's key, the random salt of the handle that
sends, and all that the segment says of itself, its own random number included; a handle takes a new salt after 2**31
messages. So two messages never share key and nonce but by chance, however many a user's key has seen, and no message
opens on another channel. Authenticated beside the message: head, salt, nonce and the place where the channel carries
it, so that none opens anywhere else either. The tag and the lengths of a message are not secret.
"""

import os
import struct
import threading
import zlib
from collections.abc import Callable
from typing import Any, Final

from ._errors import CorruptedError, DecryptionError, MessageTooLargeError

SEALED: Final = 0x60
PACKED: Final = 0x61

HEAD: Final = struct.Struct("<BBBBQ")
VERSION: Final = 1
SALT_BYTES: Final = 16
NONCE_BYTES: Final = 12
GCM_TAG_BYTES: Final = 16
KEY_BYTES: Final = 32
THRESHOLD: Final = 1024
THRESHOLD_MAX: Final = (1 << 48) - 1

#: of a salt: far below the 2**32 random nonces that one key may see, for which NIST SP 800-38D allows 2**-32
MESSAGES_PER_SALT: Final = 1 << 31
#: senders whose keys are kept at hand
SALTS_KEPT: Final = 8

NAMES: Final = (None, "lz4", "zstd", "zlib")
#: what a byte becomes at most: a length that says more is refused before anything is allocated. Of LZ4 and Deflate by
#: their formats; of Zstandard a block of 128 KiB for 4 bytes.
EXPANSION: Final = (1, 255, 32768, 1032)

_ENCRYPTED: Final = 1 << 8


# ---- libraries ----


def _compressor(number: int) -> tuple[Callable[[Any], bytes], Callable[[Any, int], bytes]]:
    if number == 1:
        return _lz4()
    if number == 2:
        return _zstd()
    return _pack_zlib, _unpack_zlib


def _lz4() -> tuple[Callable[[Any], bytes], Callable[[Any, int], bytes]]:
    try:
        import lz4.block  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError("compression='lz4' needs the package lz4: pip install 'shmcomm[lz4]'") from error
    block: Any = lz4.block

    def pack(data: Any) -> bytes:
        return bytes(block.compress(data, store_size=False))

    def unpack(data: Any, length: int) -> bytes:
        return bytes(block.decompress(data, uncompressed_size=length))

    return pack, unpack


def _zstd() -> tuple[Callable[[Any], bytes], Callable[[Any, int], bytes]]:
    try:
        import zstandard
    except ImportError as error:
        raise ImportError("compression='zstd' needs the package zstandard: pip install 'shmcomm[zstd]'") from error

    # Neither object may be used by two threads at once, and making one costs ten times a small message.
    class Mine(threading.local):
        def __init__(self) -> None:
            self.compressor = zstandard.ZstdCompressor()
            self.decompressor = zstandard.ZstdDecompressor()

    mine = Mine()

    def pack(data: Any) -> bytes:
        return mine.compressor.compress(data)

    def unpack(data: Any, length: int) -> bytes:
        # The library allocates what the frame says, whatever it is told.
        if zstandard.get_frame_parameters(data).content_size != length:
            raise ValueError("its frame has another length")
        return mine.decompressor.decompress(data, max_output_size=length)

    return pack, unpack


def _pack_zlib(data: Any) -> bytes:
    return zlib.compress(data, 1)


def _unpack_zlib(data: Any, length: int) -> bytes:
    stream = zlib.decompressobj()
    plain = stream.decompress(data, length)
    # With all of it out, the stream's own end may still be to come.
    if stream.decompress(stream.unconsumed_tail, 1) or not stream.eof or stream.unused_data:
        raise ValueError("it does not end where it should")
    return plain


def _aead(key: bytes) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise ImportError("encryption_key needs the package cryptography: pip install 'shmcomm[crypto]'") from error
    return AESGCM(key)


def _derive(key: bytes, salt: bytes, identity: bytes) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), KEY_BYTES, salt, b"shmcomm envelope 1" + identity).derive(key)


# ---- options ----


def _parse_compression(compression: object) -> int:
    if compression is not None and not isinstance(compression, str):
        raise TypeError(f"compression must be None, 'lz4', 'zstd' or 'zlib', not {type(compression).__name__}")
    if compression not in NAMES:
        raise ValueError(f"compression must be None, 'lz4', 'zstd' or 'zlib', not {compression!r}")
    return NAMES.index(compression)


def _parse_threshold(threshold: Any) -> int:
    if isinstance(threshold, bool) or not hasattr(threshold, "__index__"):
        raise TypeError(f"compression_threshold must be an integer, not {type(threshold).__name__}")
    if not 0 <= (number := threshold.__index__()) <= THRESHOLD_MAX:
        raise ValueError(f"compression_threshold must be 0 to {THRESHOLD_MAX}, not {number}")
    return int(number)


def _parse_key(key: Any) -> bytes:
    # No message says what the key is.
    try:
        copy = b"" if isinstance(key, str) else bytes(memoryview(key))
    except (TypeError, BufferError):
        copy = b""
    if not copy and not isinstance(key, bytes | bytearray | memoryview):
        raise TypeError(f"encryption_key must be a bytes-like object of 32 bytes, not {type(key).__name__}")
    if len(copy) != KEY_BYTES:
        raise ValueError(f"encryption_key must have exactly 32 bytes, not {len(copy)}")
    return copy


def options(compression: Any, threshold: Any, key: Any) -> int:
    """What stands in the segment of a channel that is created with these: 0, if nothing is wrapped."""
    number = _parse_compression(compression)
    if threshold is not None:
        threshold = _parse_threshold(threshold)
        if number == 0:
            raise ValueError("compression_threshold is for channels with compression: pass compression=, too")
    if number:
        _compressor(number)
    word: int = number
    if key is not None:
        _aead(_parse_key(key))
        word |= _ENCRYPTED
    return word | (THRESHOLD if threshold is None else threshold) << 16 if number else word


def _read(word: int) -> tuple[int, bool, int]:
    number, encrypted, threshold = word & 0xFF, bool(word & _ENCRYPTED), word >> 16
    if number >= len(NAMES) or word & 0xFE00 or (threshold and not number):
        raise CorruptedError(f"shared memory names compression number {word}, which does not exist")
    return number, encrypted, threshold


def describe(word: int) -> tuple[str | None, bool]:
    """Name of the compression, and whether messages are encrypted."""
    number, encrypted, _ = _read(word)
    return NAMES[number], encrypted


def differs(word: int, compression: Any, threshold: Any) -> tuple[str, str, str] | None:
    """An option that open() was told and that an existing channel has otherwise: its name, and both values as text."""
    number, _, there = _read(word)
    if compression is not None and (asked := _parse_compression(compression)) != number:
        return "compression", repr(NAMES[number]), repr(NAMES[asked])
    if threshold is not None and (limit := _parse_threshold(threshold)) != there:
        return "compression_threshold", str(there), str(limit)
    return None


def adopt(word: int, key: Any, identity: bytes) -> "Envelope":
    """The envelope of a channel that exists."""
    _, encrypted, _ = _read(word)
    if encrypted and key is None:
        raise ValueError("the channel is encrypted: pass encryption_key=")
    if not encrypted and key is not None:
        _parse_key(key)
        raise ValueError("the channel is not encrypted, and encryption_key was given")
    return Envelope(word, None if key is None else _parse_key(key), identity)


# ---- messages ----


class Envelope:
    """Wraps and unwraps the messages of one handle. Threads may use it at once."""

    __slots__ = ("_count", "_identity", "_key", "_number", "_opened", "_pack", "_seal", "_threshold", "_unpack")

    def __init__(self, word: int, key: bytes | None, identity: bytes) -> None:
        self._number, _, self._threshold = _read(word)
        self._key, self._identity = key, identity
        self._pack: Callable[[Any], bytes] | None = None
        self._unpack: Callable[[Any, int], bytes] | None = None
        if self._number:
            self._pack, self._unpack = _compressor(self._number)
        self._seal: tuple[bytes, Any] | None = None
        self._count = 0
        self._opened: dict[bytes, Any] = {}
        if key is not None:
            _aead(key)

    def __reduce__(self) -> Any:
        raise TypeError("an envelope has a key in it, and cannot be pickled")

    def key_for_child(self) -> bytes | None:
        """The key, for a pickle that goes to a child of this process and nowhere else."""
        if self._key is None:
            return None
        from multiprocessing.context import get_spawning_popen

        if get_spawning_popen() is None:
            raise TypeError(
                "a channel with an encryption_key can be pickled only while multiprocessing starts a process, or its "
                "key would lie in the pickle: attach by name instead, and pass the key there"
            )
        return self._key

    def wrap(self, tag: int, payload: Any) -> tuple[int, bytes, Any, bytes | None, Any, bool]:
        """(tag, head, body, nonce, encrypt, in_place): what goes out is head and body, or, if there is a nonce, head
        and encrypt(nonce, body, head + place); in place, encrypt(nonce, body, head + place, room) writes it there."""
        length, number, body = len(payload), 0, payload
        if self._pack is not None and length >= self._threshold and length > 0:
            packed = self._pack(payload)
            if len(packed) + HEAD.size < length and length <= len(packed) * EXPANSION[self._number]:
                number, body = self._number, packed
        head = HEAD.pack(VERSION, tag, number, 0, length)
        if self._key is not None:
            salt, aead = self._sealer()
            nonce = os.urandom(NONCE_BYTES)
            into = getattr(aead, "encrypt_into", None)  # newer versions of the library
            return SEALED, head + salt + nonce, body, nonce, into or aead.encrypt, into is not None
        if number:
            return PACKED, head, body, None, None, False
        return tag, b"", body, None, None, False

    def _sealer(self) -> tuple[bytes, Any]:
        if self._seal is None or self._count >= MESSAGES_PER_SALT:
            assert self._key is not None
            salt = os.urandom(SALT_BYTES)
            self._seal = salt, _aead(_derive(self._key, salt, self._identity))
            self._count = 0
        self._count += 1
        return self._seal

    def unwrap(self, tag: int, message: bytes, place: bytes, limit: int) -> tuple[int, bytes]:
        """Tag and bytes of what was wrapped; `limit`: how long they may be."""
        body: Any
        if self._key is not None:
            head, body = self._open(tag, message, place)
        else:
            head, body = message[: HEAD.size], memoryview(message)[HEAD.size :]
        try:
            version, inner, number, zero, length = HEAD.unpack(head)
        except struct.error:
            raise CorruptedError("a compressed message is cut short") from None
        if version != VERSION or zero != 0 or number not in (0, self._number) or SEALED <= inner <= SEALED + 15:
            raise CorruptedError("the head of a compressed or encrypted message is none")
        if number == 0 and self._key is not None and length == len(body):
            return inner, bytes(body)
        return inner, self._decompress(number, body, length, limit)

    def _open(self, tag: int, message: bytes, place: bytes) -> tuple[bytes, bytes]:
        start = HEAD.size + SALT_BYTES + NONCE_BYTES
        if tag != SEALED:
            raise DecryptionError("the message is not encrypted, and this channel takes no others")
        if len(message) < start + GCM_TAG_BYTES:
            raise DecryptionError("the message cannot be decrypted: it is cut short")
        from cryptography.exceptions import InvalidTag

        front = message[:start]
        decrypt = self._opener(front[HEAD.size : HEAD.size + SALT_BYTES])
        try:
            plain = decrypt(front[-NONCE_BYTES:], memoryview(message)[start:], front + place)
        except InvalidTag:
            raise DecryptionError(
                "the message cannot be decrypted: it was sealed with another key, changed, or brought here from "
                "another place"
            ) from None
        return front[: HEAD.size], plain

    def _opener(self, salt: bytes) -> Any:
        decrypt = self._opened.get(salt)
        if decrypt is None:
            assert self._key is not None
            decrypt = _aead(_derive(self._key, salt, self._identity)).decrypt
            if len(self._opened) >= SALTS_KEPT:
                self._opened = {}
            self._opened[salt] = decrypt
        return decrypt

    def _decompress(self, number: int, body: Any, length: int, limit: int) -> bytes:
        if number == 0 or self._unpack is None or length == 0:
            raise CorruptedError("the head of a compressed or encrypted message is none")
        if length > limit or length > len(body) * EXPANSION[number]:
            raise CorruptedError(f"a compressed message says that it has {length} bytes, more than it can have")
        try:
            plain = self._unpack(body, length)
        except MemoryError:
            raise
        except Exception as error:
            raise CorruptedError(f"a message cannot be decompressed: {error}") from error
        if len(plain) != length:
            raise CorruptedError("a message cannot be decompressed: it has another length than it says")
        return plain


def refuse_length(name: str, length: int, limit: int) -> None:
    """A message that is too long before it is compressed: who receives it would refuse it."""
    raise MessageTooLargeError(
        f"the message of {length} bytes is larger than {name} can ever hold ({limit} bytes), compressed or not: create "
        "it with a larger buffer_size, or send it in parts"
    )
