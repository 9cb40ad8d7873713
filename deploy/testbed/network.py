"""The network of a test bed: a switch with one port for each host and one for this machine.

The switch is a bridge in a network namespace of its own. Names, packet filters and failures stay in
there, this machine's firewall (such as Docker's) does not filter the hosts' traffic, and nothing
remains when the namespace's holder ends. This machine itself gets only one link, ``baryonX`` with
the address 10.77.X.1. Its other end is the switch's port ``v0``.

pyroute2 was rejected: root's own Python runs a bed, and may have nothing but the standard library.
``ip -batch`` takes all commands for a bed in one process, and hosts' boot scripts, tc and nft would
need their commands anyway.
"""

import os
import re
import subprocess
from pathlib import Path
from typing import Dict, Iterable, List, Optional, Sequence, Tuple

from .processes import COMMAND_ENV, Holder, TestbedError, call

__all__ = ["MOST_HOSTS", "Network"]

MOST_HOSTS = 200
_HAS_IPV6 = os.path.exists("/proc/net/if_inet6")
# The neighbour protocols (ARP, and IPv6's) always pass. Otherwise a block in one direction would
# also stop the other one, because its sender could not find the receiver's hardware address.
_FILTER = """
table bridge testbed {
    chain forward {
        type filter hook forward priority 0;
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    }
}
"""


class Network:
    """``subnet`` is the X in 10.77.X.0/24. Port 0 is this machine's, and port N is nodeN's."""

    def __init__(self, switch: Holder, subnet: int, rate: Optional[str]) -> None:
        self.switch = switch
        self.subnet = subnet
        self.rate = rate

    @classmethod
    def start(cls, rate: Optional[str], lifeline: Optional[int], log: Path) -> "Network":
        """Set up a switch on a subnet in which this machine has no address."""
        sleeper = ["sleep", "infinity"] if lifeline is None else ["cat"]
        switch = Holder.start(["-n", *sleeper], lifeline, log)
        try:
            network = cls(switch, _claim(switch), rate)
            network._switch_on()
        except BaseException:
            switch.kill()
            raise
        return network

    @property
    def driver_link(self) -> str:
        return f"baryon{self.subnet}"

    def address(self, port: int) -> str:
        return f"10.77.{self.subnet}.{10 + port if port else 1}"

    def address6(self, port: int) -> Optional[str]:
        """None where the kernel has no IPv6."""
        return f"fd77:{self.subnet}::{10 + port if port else 1}" if _HAS_IPV6 else None

    def plug(self, holders: Dict[int, Holder]) -> None:
        """Connect hosts' network namespaces, given by port number. The link is their ``eth0``."""
        commands = []
        for port, holder in holders.items():
            # If the address changed at each boot, neighbours would look for the old one.
            mac = f"02:77:{self.subnet:02x}:00:00:{port:02x}"
            commands += [
                f"link add v{port} type veth peer name eth0 address {mac} netns {holder.pid}",
                f"link set v{port} master switch up",
            ]
        self._ip(commands)
        self._shape([f"v{port}" for port in holders])
        _run_all([self._host_side(port, holder) for port, holder in holders.items()])

    def unplug(self, ports: Iterable[int]) -> None:
        """Remove the links. Nothing that the hosts' kernels still send arrives anywhere."""
        present = set(re.findall(r"^\d+: v(\d+)@", self._inside(["ip", "-o", "link"]), re.M))
        self._ip([f"link del v{port}" for port in ports if str(port) in present])

    def set_link(self, port: int, is_up: bool) -> None:
        self._ip([f"link set v{port} {'up' if is_up else 'down'}"])

    def block(self, pairs: Iterable[Tuple[int, int]]) -> None:
        """Drop all IP packets from the first to the second port of each pair."""
        rules = [
            f'add rule bridge testbed forward iifname "v{source}" oifname "v{target}"'
            " ether type { ip, ip6 } drop\n"
            for source, target in pairs
        ]
        self._inside(["nft", "-f", "-"], "".join(rules))

    def unblock_all(self) -> None:
        self._inside(["nft", "-f", "-"], "delete table bridge testbed\n" + _FILTER)

    def close(self) -> None:
        """Remove the link and the switch. Hosts' links end with their namespaces."""
        # The end of the switch would remove the link too, but later.
        if self.switch.is_alive():
            call(["ip", "link", "del", self.driver_link])
        self.switch.kill()

    def _switch_on(self) -> None:
        self._ip(
            [
                "link add switch type bridge mcast_snooping 0",
                "link set switch up",
                "link set v0 master switch up",
            ]
        )
        self._inside(["nft", "-f", "-"], _FILTER)
        call(["sh", "-ec", self._address_script(0, self.driver_link)])
        self._shape(["v0"])

    def _address_script(self, port: int, link: str) -> str:
        lines = [
            f"ip addr add {self.address(port)}/24 broadcast + dev {link}",
            f"ip link set {link} up",
        ]
        if self.address6(port):
            # Without "nodad" the address would be unusable for the first second.
            lines.insert(1, f"ip addr add {self.address6(port)}/64 dev {link} nodad")
        if self.rate:
            lines.append("tc " + _bucket(link, self.rate))
        return "\n".join(lines)

    def _host_side(self, port: int, holder: Holder) -> List[str]:
        script = self._address_script(port, "eth0")
        return ["nsenter", "-t", str(holder.pid), "-n", "sh", "-ec", script]

    def _shape(self, links: Sequence[str]) -> None:
        if self.rate:
            rules = "".join(_bucket(link, self.rate) + "\n" for link in links)
            self._inside(["tc", "-batch", "-"], rules)

    def _ip(self, commands: List[str]) -> None:
        self._inside(["ip", "-batch", "-"], "".join(command + "\n" for command in commands))

    def _inside(self, argv: List[str], stdin: str = "") -> str:
        return call(["nsenter", "-t", str(self.switch.pid), "-n", *argv], stdin)


def _claim(switch: Holder) -> int:
    """Make this machine's link. Its name claims the subnet, because names are unique."""
    taken = set(re.findall(r"\b10\.77\.(\d+)\.", call(["ip", "-4", "addr"])))
    for subnet in range(1, 255):  # fd77:0::11 would have two spellings
        if str(subnet) in taken:
            continue
        link = f"baryon{subnet}"
        peer = ["type", "veth", "peer", "name", "v0", "netns", str(switch.pid)]
        try:
            call(["ip", "link", "add", link, *peer])
        except TestbedError as error:
            if "File exists" not in str(error):
                raise
        else:
            return subnet
    raise TestbedError("no subnet 10.77.X.0/24 is free; end other test beds")


def _bucket(link: str, rate: str) -> str:
    return f"qdisc replace dev {link} root tbf rate {rate} burst 256k latency 50ms"


def _run_all(commands: List[List[str]]) -> None:
    """Run commands in parallel. Raises TestbedError with the messages of those that failed."""
    running = [
        subprocess.Popen(argv, stderr=subprocess.PIPE, env=COMMAND_ENV, text=True)
        for argv in commands
    ]
    errors = [process.communicate()[1] for process in running]
    failed = [error for process, error in zip(running, errors) if process.returncode]
    if failed:
        raise TestbedError("\n".join(failed).strip())
