"""The worker's pen: frames of one request, written whole and at once."""

from typing import BinaryIO

from flataudit.evidence import Examined
from flataudit.executors.frames import ArrayHeader, Content, EvidenceHeader, ProgressNote, encode, text_limit

__all__ = ["Answers"]


class Answers:
    """Writes frames of one request."""

    def __init__(self, stream: BinaryIO, nonce: str) -> None:
        self._stream, self._nonce = stream, nonce
        self._sent: set[str] = set()

    def send(self, content: Content, body: bytes = b"") -> None:
        """Write one frame, whole, now."""
        self._stream.write(encode(self._nonce, content, body))
        self._stream.flush()

    def progress(self, what: str, share: float) -> None:
        """Say what is done now."""
        self.send(ProgressNote(what=text_limit(what), share=min(1.0, max(0.0, share))))

    def evidence(self, examined: Examined, *, last: bool = True) -> None:
        """Arrays that were not sent before, then the evidence that names them."""
        for name, array in examined.arrays.items():
            if name not in self._sent:
                self._sent.add(name)
                self.send(ArrayHeader(name=name, format=array.format, shape=array.shape), array.data)
        self.send(EvidenceHeader(last=last), examined.evidence.model_dump_json().encode())
