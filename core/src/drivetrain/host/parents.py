"""Parents: the links of the host that networks are stacked on (macvlan, ipvlan).

A parent is a link that is there, or a VLAN on one: ``eth0.50`` is made at its first use and goes
with its last user; one that somebody else made stays. A network without a parent gets a closed one
(:meth:`Parents.closed`). Links of ours carry an alias that names their owner, so they are found
again after a crash::

    parents = Parents(Netlink(), root)
    parent = parents.ensure("eth0.50")
    netlink.stack("eth0", "macvlan", parent.index, data={...}, namespace=sandbox.path)
"""

from __future__ import annotations

import errno
import re
from pathlib import Path

from drivetrain.errors import FailedPrecondition, InvalidArgument, NotSupported
from drivetrain.host import namespaces
from drivetrain.host.netlink import LinkInfo, Netlink

_VLAN = re.compile(r"^(?P<base>.+)\.(?P<id>[1-9][0-9]{0,3})$")


class Parents:
    """The parents that one driver uses on this host.

    Args:
        netlink: in the namespace of the host.
        root: the driver's directory; it also marks the links of this owner.
    """

    def __init__(self, netlink: Netlink, root: Path) -> None:
        self._netlink = netlink
        self._void = root / "void"
        self.alias = f"engine:{root}"

    def get(self, name: str, *, closed: bool) -> LinkInfo:
        """Return a parent of the host's (:meth:`ensure`), or a closed one (:meth:`closed`)."""
        return self.closed(name) if closed else self.ensure(name)

    def ensure(self, name: str) -> LinkInfo:
        """Return a parent that exists and is up; a VLAN that is missing is made.

        Raises:
            InvalidArgument: there is no such link; names those that there are.
            FailedPrecondition: it is down.
            NotSupported: the kernel has no VLANs.
        """
        if name == "lo":
            raise InvalidArgument("parent lo: nothing can be stacked on the loopback interface")
        found = self._netlink.link(name) or self._make_vlan(name)
        if not found.up:
            raise FailedPrecondition(f"parent {name} is down: ip link set {name} up")
        return found

    def _make_vlan(self, name: str) -> LinkInfo:
        match = _VLAN.match(name)
        base = self._netlink.link(match["base"]) if match is not None else None
        if match is None or base is None:
            raise InvalidArgument(
                f"parent {name} does not exist on this host (there are: {self._names()}); "
                "a VLAN on one of them is written LINK.ID, such as eth0.50"
            )
        number = int(match["id"])
        if number > 4094 or len(name) > 15:
            raise InvalidArgument(
                f"parent {name}: a VLAN id of 1 to 4094 and at most 15 characters are needed"
            )
        if not base.up:
            raise FailedPrecondition(f"parent {base.name} is down: ip link set {base.name} up")
        try:
            self._netlink.stack(name, "vlan", base.index, data={"IFLA_VLAN_ID": number})
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                raise NotSupported(
                    f"parent {name}: this kernel has no 802.1q (CONFIG_VLAN_8021Q): "
                    "modprobe 8021q, or a parent that is no VLAN"
                ) from error
            if error.errno != errno.EEXIST:
                raise InvalidArgument(
                    f"parent {name}: no VLAN {number} can be made on {base.name}: {error.strerror}"
                    + (" (does it exist by another name?)" if error.errno == errno.EBUSY else "")
                ) from error
        else:
            self._mark(name)
        return self._found(name)

    def _names(self) -> str:
        names = [x.name for x in self._netlink.links() if x.name != "lo" and not self._ours(x)]
        return ", ".join(names[:12]) + (", …" if len(names) > 12 else "") or "none but lo"

    def _found(self, name: str) -> LinkInfo:
        found = self._netlink.link(name)
        if found is None:
            raise FailedPrecondition(f"link {name} was removed while it was set up")
        return found

    def _mark(self, name: str) -> None:
        self._netlink.set_link(name, attributes={"IFLA_IFALIAS": self.alias})

    def _ours(self, link: LinkInfo) -> bool:
        return link.alias == self.alias

    def closed(self, name: str) -> LinkInfo:
        """Return a parent that leads nowhere, made where it is missing.

        It is one end of a veth pair whose other end is up in a namespace with nobody in it: the
        links stacked on it have a carrier and reach each other, and nothing else. (A dummy link
        does the same, but not every kernel has it; a bridge without ports has no carrier; and a
        veth pair with both ends here lets containers send to the host.)
        """
        found = self._netlink.link(name)
        if found is not None and found.up:
            return found
        self._netlink.delete_link(name)
        if not namespaces.is_namespace(self._void):
            namespaces.new_network_namespace(self._void)
        self._netlink.veth(name, name, namespace=self._void, peer_up=True)
        self._mark(name)
        return self._found(name)

    def sweep(self, wanted: set[str]) -> None:
        """Delete what was made here, but for the links of the names that are ``wanted``."""
        closed = False
        for link in self._netlink.links():
            if not self._ours(link):
                continue
            if link.name not in wanted:
                self._netlink.delete_link(link.name)
            elif link.kind == "veth":
                closed = True
        if not closed:
            namespaces.remove_network_namespace(self._void)
