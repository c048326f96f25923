"""connection.py: addresses, and what ssh and the user's configuration say before any board is reached."""

from pathlib import Path

import pytest

from edgenet.device_bench import registry
from edgenet.device_bench.ssh.connection import CONFIG_VARIABLE, Connection, parse
from edgenet.device_bench.ssh.device import find, open_device
from edgenet.errors import DeviceError, InputError
from helpers import boards

pytestmark = boards.needs_sshd


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("pi@raspberrypi.local", Connection("raspberrypi.local", "pi")),
        ("pi@10.0.0.7:2222", Connection("10.0.0.7", "pi", 2222)),
        ("bench-board", Connection("bench-board")),
        ("pi@[fe80::1%eth0]:22", Connection("fe80::1%eth0", "pi", 22)),
    ],
)
def test_an_address_is_read_and_written_alike(address: str, expected: Connection) -> None:
    assert parse(address) == expected
    assert expected.id == f"ssh:{address}"


@pytest.mark.parametrize(
    "address",
    ["", "pi@", "@host", "-oProxyCommand=touch pwned", "pi@-oProxyCommand=x", "a b", "pi@host:0", "pi@host:65536",
     "pi@host:x", "pi@host;reboot", "$(reboot)@host", "host\n", "fe80::1"],
)  # fmt: skip
def test_what_is_no_address_is_refused_before_ssh_sees_it(address: str) -> None:
    with pytest.raises(InputError, match="is not an ssh address"):
        open_device(address)


def test_boards_are_not_searched_for_but_opened_by_their_name() -> None:
    assert find() == []
    with registry.open_device("ssh:pi@10.0.0.7:2222") as d:
        assert (d.id, d.kind) == ("ssh:pi@10.0.0.7:2222", "ssh")


def test_host_checking_is_never_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "stricthostkeychecking" not in " ".join(Connection("a").command("true")).lower()


def test_an_error_in_the_configuration_is_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text("Frobnicate yes\n")
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "config"))
    with pytest.raises(DeviceError, match="your ssh configuration has an error"):
        open_device("127.0.0.1").info()
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(DeviceError, match="your ssh configuration has an error"):
        open_device("127.0.0.1").info()


def test_a_missing_client_names_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="apt install openssh-client"):
        open_device("127.0.0.1").info()
