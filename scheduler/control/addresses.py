"""The address at which other machines reach this one.

The kernel's routes know it. The machine's own name does not: Debian resolves it to 127.0.1.1.
Standard library only, Python 3.6 and later: hosts on which nothing of ours is installed yet run
the text of this file (launcher/hosts/probe.py). So psutil.net_if_addrs is no choice here.
"""

import fcntl
import ipaddress
import socket
import struct
from typing import Dict, List, Sequence

__all__ = ["interface_addresses", "own_address"]

_SIOCGIFADDR = 0x8915  # netdevice(7)
_GLOBAL_SCOPE = "00"  # in /proc/net/if_inet6


def own_address(toward: str, interfaces: Sequence[str] = ()) -> str:
    """The address of the first of ``interfaces`` that has one.

    Without ``interfaces``, the address from which packets go to ``toward``, a name or an address;
    none is sent. Raises OSError if there is no such interface, or no route.
    """
    if interfaces:
        found = interface_addresses()
        for name in interfaces:
            if found.get(name):
                return found[name][0]
        there = ", ".join(f"{name} ({found[name][0]})" for name in sorted(found))
        raise OSError(f"no interface {', '.join(interfaces)} with an address; there are {there}")
    family, _, _, _, where = socket.getaddrinfo(toward, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(where)
        return str(probe.getsockname()[0]).split("%")[0]


def interface_addresses() -> Dict[str, List[str]]:
    """The addresses of each interface, IPv4 first, without link-local ones."""
    found = {}  # type: Dict[str, List[str]]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as query:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(query.fileno(), _SIOCGIFADDR, request)
            except OSError:
                continue  # this interface has no IPv4 address
            found.setdefault(name, []).append(socket.inet_ntoa(answer[20:24]))
    try:
        with open("/proc/net/if_inet6") as file:
            lines = file.read().splitlines()
    except OSError:
        lines = []  # this kernel has no IPv6
    for line in lines:
        digits, _, _, scope, _, name = line.split()
        if scope == _GLOBAL_SCOPE:
            address = str(ipaddress.IPv6Address(bytes.fromhex(digits)))
            found.setdefault(name, []).append(address)
    return found
