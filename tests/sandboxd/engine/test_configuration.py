"""A create body and an image's configuration become settings, as Docker merges them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from sandboxd.engine.configuration import parse
from sandboxd.engine.settings import Healthcheck, HostSettings, Settings
from sandboxd.errors import BadRequest, CannotEnforce
from sandboxd.launcher.profile import DEFAULT_CAPABILITIES

IMAGE: dict[str, Any] = {
    "Cmd": ["serve"],
    "Entrypoint": ["/entry"],
    "Env": ["PATH=/image", "KEPT=1"],
    "WorkingDir": "/srv",
    "User": "app",
    "Labels": {"from": "image", "both": "image"},
    "ExposedPorts": {"80/tcp": {}},
    "Volumes": {"/data": {}},
    "StopSignal": "SIGINT",
}
RECORDED = json.loads((Path(__file__).parent / "docker-cli-28.2.2-create.json").read_text())


def parsed(body: dict[str, Any] | None = None, image: dict[str, Any] | None = None) -> Settings:
    return parse({"Image": "i", "Cmd": ["true"], **(body or {})}, image or {})


def on_host(**host: Any) -> HostSettings:
    return parsed({"HostConfig": host}).host


def test_what_the_docker_cli_sends_for_a_plain_run_asks_for_nothing() -> None:
    settings = parse(RECORDED, {})
    assert settings == Settings("busybox", (), ("true",), ())


def test_null_empty_and_absent_are_the_same() -> None:
    nulls = {name: None for name in RECORDED if name not in ("Image", "Cmd")}
    assert parsed({**nulls, "Image": "busybox"}) == parse(RECORDED, {})
    null_host = {"HostConfig": dict.fromkeys(RECORDED["HostConfig"])}
    assert parsed({**null_host, "Image": "busybox"}) == parse(RECORDED, {})


def test_the_image_fills_what_the_body_leaves_out() -> None:
    settings = parse({"Image": "i"}, IMAGE)
    assert settings.args == ("/entry", "serve")
    assert settings.env == ("PATH=/image", "KEPT=1")
    assert (settings.working_dir, settings.user) == ("/srv", "app")
    assert settings.stop_signal == "SIGINT"
    assert settings.exposed_ports == ("80/tcp",)
    assert [(m.kind, m.target, m.anonymous) for m in settings.host.mounts] == [
        ("volume", "/data", True)
    ]


def test_what_the_body_says_wins_and_maps_add_up() -> None:
    body = {
        "Env": ["PATH=/body", "NEW=2"],
        "User": "root",
        "WorkingDir": "/w",
        "Labels": {"both": "body"},
        "ExposedPorts": {"53/udp": {}},
        "StopSignal": "9",
    }
    settings = parse({"Image": "i", **body}, IMAGE)
    assert settings.env == ("PATH=/body", "KEPT=1", "NEW=2")
    assert settings.labels == {"from": "image", "both": "body"}
    assert settings.exposed_ports == ("80/tcp", "53/udp")
    assert (settings.user, settings.working_dir, settings.stop_signal) == ("root", "/w", "9")


@pytest.mark.parametrize(
    ("body", "args"),
    [
        ({}, ("/entry", "serve")),
        ({"Cmd": ["x"]}, ("/entry", "x")),
        ({"Cmd": "x y"}, ("/entry", "x y")),
        ({"Entrypoint": ["/own"]}, ("/own",)),
        ({"Entrypoint": ["/own"], "Cmd": ["x"]}, ("/own", "x")),
        ({"Entrypoint": [""], "Cmd": ["x"]}, ("x",)),
        ({"Entrypoint": "", "Cmd": ["x"]}, ("x",)),
        ({"Entrypoint": [], "Cmd": ["x"]}, ("x",)),
        ({"Entrypoint": []}, ("serve",)),
        ({"Entrypoint": None, "Cmd": ["x"]}, ("/entry", "x")),
    ],
)
def test_entrypoint_and_command(body: dict[str, Any], args: tuple[str, ...]) -> None:
    assert parse({"Image": "i", **body}, IMAGE).args == args


def test_no_command_at_all_is_refused() -> None:
    with pytest.raises(BadRequest, match="no command specified"):
        parse({"Image": "i"}, {})


def test_a_name_without_a_value_takes_the_variable_away() -> None:
    assert parse({"Image": "i", "Env": ["KEPT"]}, IMAGE).env == ("PATH=/image",)


def test_unknown_fields_are_ignored() -> None:
    assert parsed({"Zz": 1, "HostConfig": {"Zz": [1]}}) == parsed()


@pytest.mark.parametrize(
    "body",
    [
        {"Cmd": [1]},
        {"Cmd": {"a": 1}},
        {"Env": "A=b"},
        {"Env": ["=x"]},
        {"Tty": "yes"},
        {"Hostname": 5},
        {"Hostname": "-bad-"},
        {"Hostname": "a\0b"},
        {"Cmd": ["a\0b"]},
        {"Cmd": ["\ud800"]},
        {"Env": ["A=\ud800"]},
        {"Domainname": "a b"},
        {"Domainname": "a\nb"},
        {"Labels": {"\ud800": ""}},
        {"Volumes": {"/\ud800": {}}},
        {"Labels": {"a": 1}},
        {"Labels": "a"},
        {"Volumes": ["/x", 1]},
        {"Volumes": {"x": {}}},
        {"Volumes": {"/../etc": {}}},
        {"ExposedPorts": {"70000/tcp": {}}},
        {"ExposedPorts": {"80/what": {}}},
        {"WorkingDir": "relative"},
        {"StopSignal": "SIGNOPE"},
        {"StopTimeout": "soon"},
        {"HostConfig": []},
        {"HostConfig": "x"},
        {"HostConfig": {"Binds": "x"}},
        {"HostConfig": {"Memory": 1.5}},
        {"HostConfig": {"Memory": 1 << 70}},
        {"HostConfig": {"Memory": True}},
        {"HostConfig": {"Mounts": [5]}},
        {"HostConfig": {"Init": 1}},
        {"HostConfig": {"ConsoleSize": [1]}},
        {"HostConfig": {"ConsoleSize": [-1, 70000]}},
        {"Healthcheck": {"Test": ["WHAT", "x"]}},
        {"Healthcheck": {"Test": ["CMD", "x"], "Interval": -1}},
    ],
)
def test_wrong_types_and_values_are_the_clients_mistake(body: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as caught:
        parsed(body)
    assert caught.value.status == 400
    assert caught.value.what


def test_port_ranges_are_written_out() -> None:
    assert parsed({"ExposedPorts": {"1-3/tcp": {}}}).exposed_ports == ("1/tcp", "2/tcp", "3/tcp")


def test_health_checks_merge_with_the_images() -> None:
    image = {"Healthcheck": {"Test": ["CMD", "image"], "Interval": 5_000_000_000}}
    check = parse({"Image": "i", "Cmd": ["x"], "Healthcheck": {"Retries": 9}}, image).healthcheck
    assert check == Healthcheck(("image",), interval=5.0, retries=9)
    none = parse({"Image": "i", "Cmd": ["x"], "Healthcheck": {"Test": ["NONE"]}}, image)
    assert none.healthcheck is None
    shell = parsed({"Healthcheck": {"Test": ["CMD-SHELL", "a && b"]}}).healthcheck
    assert shell == Healthcheck(("/bin/sh", "-c", "a && b"))


@pytest.mark.parametrize(
    "host",
    [
        {"Privileged": True},
        {"NetworkMode": "container:"},
        {"NetworkMode": "mine"},
        {"PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": ""}]}},
        {"PublishAllPorts": True},
        {"PidMode": "host"},
        {"IpcMode": "host"},
        {"UTSMode": "host"},
        {"UsernsMode": "host"},
        {"CgroupnsMode": "host"},
        {"Devices": [{"PathOnHost": "/dev/kvm"}]},
        {"DeviceRequests": [{"Count": -1}]},
        {"RestartPolicy": {"Name": "always"}},
        {"LogConfig": {"Type": "syslog"}},
        {"BlkioWeight": 10},
        {"CpusetCpus": "0"},
        {"MemoryReservation": 1 << 20},
        {"MemorySwappiness": 0, "OomKillDisable": True},
        {"StorageOpt": {"size": "1G"}},
        {"Runtime": "kata"},
        {"Links": ["a:b"]},
        {"SecurityOpt": ["seccomp={}"]},
        {"SecurityOpt": ["apparmor=mine"]},
        {"SecurityOpt": ["systempaths=unconfined"]},
        {"ExtraHosts": ["a:host-gateway"]},
        {"Sysctls": {"kernel.hostname": "x"}},
        {"Binds": ["/a:/b:rshared"]},
        {"Mounts": [{"Type": "bind", "Source": "/a", "Target": "/b",
                     "BindOptions": {"Propagation": "rslave"}}]},
        {"Mounts": [{"Type": "npipe", "Target": "/b"}]},
    ],
)  # fmt: skip
def test_what_nobody_would_enforce_is_refused_not_dropped(host: dict[str, Any]) -> None:
    with pytest.raises(CannotEnforce) as caught:
        on_host(**host)
    assert caught.value.why


def test_another_network_is_refused() -> None:
    with pytest.raises(CannotEnforce, match="network 'mine'"):
        parsed({"NetworkingConfig": {"EndpointsConfig": {"mine": {}}}})


@pytest.mark.parametrize(
    "host",
    [
        {"NetworkMode": "none"},
        {"NetworkMode": "bridge"},
        {"LogConfig": {"Type": "json-file", "Config": {}}},
        {"Runtime": "runc"},
        {"IpcMode": "private"},
        {"SecurityOpt": ["apparmor=unconfined", "label=disable", "no-new-privileges"]},
        {"Isolation": "default"},
        {"OomScoreAdj": 0, "MemorySwappiness": -1, "PidsLimit": -1, "MemorySwap": -1},
    ],
)
def test_values_that_ask_for_what_there_is_anyway_pass(host: dict[str, Any]) -> None:
    assert on_host(**host) == HostSettings()


def test_capabilities() -> None:
    assert on_host().capabilities is None
    assert on_host(CapDrop=["ALL"]).capabilities == ()
    assert on_host(CapDrop=["all"], CapAdd=["CAP_CHOWN", "kill"]).capabilities == ("CHOWN", "KILL")
    added = on_host(CapAdd=["NET_RAW"]).capabilities or ()
    assert {"NET_RAW", "CHOWN"} <= set(added)
    dropped = on_host(CapDrop=["CHOWN"]).capabilities or ()
    assert set(dropped) == set(DEFAULT_CAPABILITIES) - {"CHOWN"}
    with pytest.raises(BadRequest, match='unknown capability: "CAP_FLY"'):
        on_host(CapAdd=["fly"])


def test_security_options_and_the_rest_of_the_host_side() -> None:
    assert on_host(SecurityOpt=["seccomp=unconfined"]).seccomp is False
    assert on_host(SecurityOpt=["no-new-privileges:false"]).no_new_privs is False
    host = on_host(
        ExtraHosts=["db:10.0.0.1", "v6=[::1]"],
        Ulimits=[{"Name": "nofile", "Soft": 10, "Hard": 20}],
        ShmSize=1 << 20,
        Dns=["1.1.1.1"],
        LogConfig={"Type": "json-file", "Config": {"max-size": "2m", "max-file": "3"}},
        ConsoleSize=[24, 80],
    )
    assert host.extra_hosts == (("db", "10.0.0.1"), ("v6", "::1"))
    assert host.rlimits == (("nofile", 10, 20),)
    assert (host.shm_size, host.dns, host.log_limit) == (1 << 20, ("1.1.1.1",), 6 << 20)
    assert host.console_size == (24, 80)


@pytest.mark.parametrize(
    "host",
    [
        {"Ulimits": [{"Name": "nofile", "Soft": 30, "Hard": 20}]},
        {"Ulimits": [{"Name": "no file", "Soft": 1, "Hard": 2}]},
        {"ExtraHosts": ["nonsense"]},
        {"ExtraHosts": ["a:not-an-address"]},
        {"Dns": ["ns.example"]},
        {"DnsSearch": ["a\nnameserver 1.1.1.1"]},
        {"DnsOptions": [""]},
        {"ExtraHosts": ["a b:1.2.3.4"]},
        {"ShmSize": -1},
        {"OomScoreAdj": 5000},
        {"Memory": 4096},
        {"MemorySwap": 1 << 30},
        {"Memory": 1 << 30, "MemorySwap": 1 << 20},
        {"NanoCpus": 1, "CpuQuota": 1000},
        {"CpuQuota": 5},
        {"CpuPeriod": 5},
        {"LogConfig": {"Config": {"max-size": "much"}}},
        {"SandboxShow": ["relative"]},
        {"SandboxShow": ["/a/../b"]},
    ],
)
def test_host_values_out_of_range(host: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        on_host(**host)


def test_limits_come_in_the_units_of_cgroups() -> None:
    limits = on_host(Memory=64 << 20, NanoCpus=1_500_000_000, PidsLimit=100).limits
    assert (limits.memory, limits.cpu_quota, limits.cpu_period) == (64 << 20, 150_000, 100_000)
    assert limits.pids == 100
    assert not on_host(CpuPeriod=50_000).limits


def test_the_body_is_not_changed() -> None:
    body = copy.deepcopy(RECORDED)
    parse(body, IMAGE)
    assert body == RECORDED


def test_networks_to_join() -> None:
    for mode in ("container:abc", "pid:12"):
        assert on_host(NetworkMode=mode).network == mode
    with pytest.raises(BadRequest, match="the number of a process"):
        on_host(NetworkMode="pid:self")
    with pytest.raises(CannotEnforce, match=r"sysctl 'net\.core"):
        on_host(NetworkMode="pid:12", Sysctls={"kernel.shmmax": "1", "net.core.somaxconn": "1"})
