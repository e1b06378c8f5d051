"""A tracker for tests: TVM's own needs packages that not every machine has."""

import socket
import threading
import time
from contextlib import suppress


class Tracker:
    """TVM's tracker, as far as clients and servers use it here: one thread a connection."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.condition = threading.Condition()
        self.offers: list[tuple[socket.socket, str, list]] = []
        self.servers: dict[socket.socket, dict] = {}
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        from tvm.rpc import base

        try:
            connection.sendall(base.recvall(connection, 4))
            while True:
                base.sendjson(connection, self.answer(connection, base.recvjson(connection)))
        except OSError:
            with self.condition:
                self.servers.pop(connection, None)
                self.offers = [offer for offer in self.offers if offer[0] is not connection]
            connection.close()

    def answer(self, connection, message):
        code, *values = message
        with self.condition:
            if code == 3:
                key, (port, match), _ = values
                self.offers.append((connection, key, ["127.0.0.1", port, match]))
                self.condition.notify_all()
                return 0
            if code == 4:
                mine = lambda: [offer for offer in self.offers if offer[1] == values[0]]  # noqa: E731
                assert self.condition.wait_for(mine, 60)
                offer = mine()[0]
                self.offers.remove(offer)
                return [0, offer[2]]
            if code == 5:
                self.servers[connection] = values[0]
                return 0
            if code == 6:
                return [0, {"server_info": list(self.servers.values())}]
            return [offer[2][2] for offer in self.offers]

    def close(self):
        # A thread that waits for connections keeps the port even when the socket is closed.
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
