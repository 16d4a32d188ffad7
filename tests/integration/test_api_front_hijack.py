"""Connections that turn raw: attach and exec."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.test_api_front_connections import DEADLINE, Door, Reply, wait_until


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    opened = Door(tmp_path / "s")
    yield opened
    opened.close()


UPGRADE = b"Connection: Upgrade\r\nUpgrade: tcp\r\n"


def open_raw(
    door: Door, query: bytes = b"", headers: bytes = UPGRADE, rest: bytes = b""
) -> tuple[socket.socket, Reply, socket.socket, int]:
    client = door.connect()
    client.sendall(b"POST /attach?" + query + b" HTTP/1.1\r\n" + headers + b"\r\n" + rest)
    reply = Reply(client)
    status, _ = reply.head()
    wait_until(lambda: door.peers, "the handler ran")
    return client, reply, door.peers[0], status


@pytest.mark.parametrize(("headers", "status"), [(UPGRADE, 101), (b"", 200)])
def test_bytes_go_both_ways_after_either_form_of_the_head(
    door: Door, headers: bytes, status: int
) -> None:
    client, reply, peer, found = open_raw(door, headers=headers)
    assert found == status
    client.sendall(b"to the container")
    assert peer.recv(100) == b"to the container"
    peer.sendall(b"to the client")
    assert reply.file.read(13) == b"to the client"
    client.close()


@pytest.mark.parametrize("headers", [UPGRADE, b""])
def test_bytes_behind_the_head_are_input(door: Door, headers: bytes) -> None:
    client, _, peer, _ = open_raw(door, headers=headers, rest=b"GET / typed early\r\n\r\n")
    assert peer.recv(100) == b"GET / typed early\r\n\r\n"
    client.close()


def test_a_body_before_the_upgrade_is_the_requests(door: Door) -> None:
    client, _, peer, _ = open_raw(
        door, headers=UPGRADE + b"Content-Length: 2\r\n", rest=b"{}and input"
    )
    assert peer.recv(100) == b"and input"
    client.close()


def test_a_half_close_ends_the_input_and_not_the_output(door: Door) -> None:
    client, reply, peer, _ = open_raw(door)
    client.sendall(b"last")
    client.shutdown(socket.SHUT_WR)
    assert peer.recv(100) == b"last"
    assert peer.recv(100) == b""
    peer.sendall(b"all the output")
    peer.close()
    assert reply.file.read() == b"all the output"
    client.close()


def test_a_half_close_in_the_same_packet_as_the_head_ends_the_input(door: Door) -> None:
    client = door.connect()
    client.sendall(b"POST /attach HTTP/1.1\r\n" + UPGRADE + b"\r\nx")
    client.shutdown(socket.SHUT_WR)
    reply = Reply(client)
    assert reply.head()[0] == 101
    peer = door.peers[0]
    assert peer.recv(100) == b"x"
    assert peer.recv(100) == b""
    peer.sendall(b"out")
    peer.close()
    assert reply.file.read() == b"out"
    client.close()


def test_output_arrives_after_the_head_was_read(door: Door) -> None:
    client = door.connect()
    client.sendall(b"POST /attach?greet=1 HTTP/1.1\r\n" + UPGRADE + b"\r\n")
    head = client.recv(65536)
    assert head.endswith(b"\r\n\r\n")
    assert client.recv(65536) == b"at once"
    client.close()


def test_the_log_comes_before_the_live_output(door: Door) -> None:
    client, reply, peer, _ = open_raw(door, b"logs=1&greet=1")
    assert reply.file.read(10) == b"old lines "
    assert reply.file.read(7) == b"at once"
    peer.close()
    assert reply.file.read() == b""
    client.close()


def test_unread_input_does_not_cost_the_client_its_last_output(door: Door) -> None:
    client, reply, peer, _ = open_raw(door)
    stop = threading.Event()

    def type_on() -> None:
        while not stop.is_set():
            try:
                client.sendall(b"x" * 65536)
            except OSError:
                return

    typing = threading.Thread(target=type_on)
    typing.start()
    assert peer.recv(1)
    peer.sendall(b"the end")
    peer.shutdown(socket.SHUT_RDWR)
    peer.close()
    try:
        assert reply.file.read() == b"the end"
    finally:
        stop.set()
        client.close()
        typing.join(DEADLINE)


@pytest.mark.parametrize("half_closed", [False, True])
def test_the_container_side_is_closed_when_the_client_is_gone(
    door: Door, half_closed: bool
) -> None:
    client, reply, peer, _ = open_raw(door)
    if half_closed:
        client.shutdown(socket.SHUT_WR)
        assert peer.recv(1) == b""
    reply.file.close()
    client.close()

    def gone() -> bool:
        try:
            peer.send(b"x")
        except OSError:
            return True
        return False

    wait_until(gone, "the container side is closed")


def test_megabytes_pass_through_slow_readers_unchanged(door: Door) -> None:
    client, reply, peer, _ = open_raw(door)
    block = bytes(range(256)) * 4096
    threads = [
        threading.Thread(target=lambda: [peer.sendall(block) for _ in range(16)]),
        threading.Thread(target=lambda: [client.sendall(block) for _ in range(16)]),
    ]
    for thread in threads:
        thread.start()
    received = peer.makefile("rb")
    for _ in range(16):
        assert reply.file.read(len(block)) == block
        assert received.read(len(block)) == block
    for thread in threads:
        thread.join(DEADLINE)
    received.close()
    client.close()


def test_the_detach_keys_end_the_connection_and_are_not_input(door: Door) -> None:
    client, reply, peer, _ = open_raw(door, b"tty=1")
    client.sendall(b"a\x10b\x10")
    client.sendall(b"\x11never")
    assert reply.file.read() == b""
    typed = b""
    while piece := peer.recv(100):
        typed += piece
    assert typed == b"a\x10b"
    client.close()
