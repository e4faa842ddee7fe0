"""What one publish may carry; apart from the wire, because the reader process needs no more of it."""

#: The server closes the session above 65,536 bytes of packet; this leaves room for topic and header.
MAX_PAYLOAD_BYTES = 60_000
