"""Inside a box: connections to a port of its own → frames on standard output, and back from standard input.

Its text is sent into the box and run there by whatever python3 the image has, 3.6 or later; it imports nothing of ours.
A frame is the connection's number and a length, four bytes each, big endian, then the data; length 0 is the connection's end.
"""

import os
import socket
import struct
import sys
import threading

PORT = 3128
HEAD = struct.Struct(">II")
connections = {}  # type: dict[int, socket.socket]
writing = threading.Lock()


def write(number: int, data: bytes) -> None:
    """Send one frame."""
    with writing:
        sys.stdout.buffer.write(HEAD.pack(number, len(data)) + data)
        sys.stdout.buffer.flush()


def pump(number: int, connection: socket.socket) -> None:
    """From one connection to frames."""
    try:
        while True:
            data = connection.recv(65536)
            if not data:
                break
            write(number, data)
    except OSError:
        pass
    write(number, b"")


def deliver() -> None:
    """From frames to the connections; the end of standard input is the end of the program."""
    source = sys.stdin.buffer
    while True:
        head = source.read(HEAD.size)
        if len(head) < HEAD.size:
            os._exit(0)
        number, length = HEAD.unpack(head)
        data = source.read(length)
        connection = connections.get(number)
        if connection is None:
            continue
        try:
            if data:
                connection.sendall(data)
            else:
                connections.pop(number).shutdown(socket.SHUT_RDWR)
        except OSError:
            connections.pop(number, None)


def main() -> None:
    """Listen, say so by an empty frame of number 0, and serve until the box ends."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", PORT))
    listener.listen(64)
    threading.Thread(target=deliver, daemon=True).start()
    write(0, b"")
    number = 0
    while True:
        connection, _ = listener.accept()
        number += 1
        connections[number] = connection
        threading.Thread(target=pump, args=(number, connection), daemon=True).start()


if __name__ == "__main__":
    main()
