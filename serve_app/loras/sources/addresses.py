"""Which network addresses a client may make this service connect to."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address

# Where clouds serve credentials to their machines. Azure's and Oracle's are not in ranges that are private.
_METADATA = frozenset(
    map(ip_address, ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"))
)
# `is_global` of Python 3.11 holds these for public.
_SPECIAL = (IPv4Network("192.0.0.0/24"), IPv4Network("192.88.99.0/24"))
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_LOW_32_BITS = 0xFFFFFFFF


def is_metadata(text: str) -> bool:
    """Whether `text` is the address of a cloud's metadata service, which no LoRA comes from, wherever it is allowed."""
    return _unwrapped(_parsed(text)) in _METADATA


def is_public(text: str) -> bool:
    """Whether `text` is an address of the public internet: not private, loopback, link-local, multicast or reserved.

    IPv6 addresses that carry an IPv4 address (mapped, 6to4, NAT64) are judged by that one.
    """
    address = _unwrapped(_parsed(text))
    if address in _METADATA or not address.is_global or address.is_multicast or address.is_reserved:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL)
    return address in _GLOBAL_UNICAST


def _parsed(text: str) -> Address:
    return ip_address(text.partition("%")[0])  # a zone says which interface, not which address


def _unwrapped(address: Address) -> Address:
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & _LOW_32_BITS)
    return address.ipv4_mapped or address.sixtofour or address
