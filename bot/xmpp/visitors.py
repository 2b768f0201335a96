"""Visitors: the node that the focus redirects to, and the way back into the main room. Pure.

A visitor logs in at a server of its own, the node, and enters the room of the same name there. The server of the
main room tells that room who is in the main one (Jitsi's Prosody modules ``visitors`` and ``fmuc``).
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from bot.errors import VisitorRedirectError

NS = "jitsi:visitors"
VISITORS = f"{{{NS}}}visitors"
#: Property of the conference request by which the focus knows who follows a redirect, and its value.
VERSION_PROPERTY, VERSION = "visitors-version", "1"
#: Nodes are hosts of this domain, whatever the deployment's is: web clients and Prosody's modules have it so.
NODES_DOMAIN = "meet.jitsi"
#: What stands for the node's name in the setting ``visitor_node_url``.
PLACEHOLDER = "{vnode}"
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class VisitorNode:
    """A visitor node: ``url`` is the address of its WebSocket, ``muc_domain`` the domain of its rooms."""

    name: str
    url: str
    domain: str
    muc_domain: str


@dataclass(frozen=True, slots=True)
class PromotionAnswer:
    """Whether a visitor may enter the main room; it logs in there as ``username``."""

    allowed: bool
    username: str = ""


def visitor_node(name: str, *, url: str, domain: str, muc_domain: str, template: str | None = None) -> VisitorNode:
    """Where the node ``name`` is, for a deployment at ``url`` with ``domain`` and rooms at ``muc_domain``.

    ``template`` is the node's own address. Raises VisitorRedirectError for what can be no host's name.
    """
    if not _NAME.fullmatch(name):
        raise VisitorRedirectError(f"The focus redirects to {name[:80]!r}, which can be no visitor node")
    node_domain = f"{name}.{NODES_DOMAIN}"
    beneath = muc_domain.endswith(f".{domain}")
    prefix = muc_domain.removesuffix(f".{domain}") if beneath else muc_domain.partition(".")[0]
    address = with_parameter(url, "vnode", name) if template is None else node_url(template, name)
    return VisitorNode(name, address, node_domain, f"{prefix}.{node_domain}")


def node_url(template: str, name: str) -> str:
    """The address of the node ``name`` as ``template`` has it."""
    return template.replace(PLACEHOLDER, name)


def with_parameter(url: str, name: str, value: str) -> str:
    """``url`` with the parameter ``name`` in its query, instead of another one of that name."""
    parts = urlsplit(url.strip())
    query = [(key, old) for key, old in parse_qsl(parts.query, keep_blank_values=True) if key != name]
    return urlunsplit(parts._replace(query=urlencode([*query, (name, value)], quote_via=quote)))


def main_room_url(url: str, username: str) -> str:
    """The main room's server for a visitor who was let in: it gives him the address that may enter."""
    return with_parameter(url, "customusername", username) if username else url


def read_promotion(payload: ET.Element) -> PromotionAnswer | None:
    """The answer to a raised hand in a ``<visitors/>``, None where there is none."""
    answer = payload.find(f"{{{NS}}}promotion-response")
    if answer is None:
        return None
    return PromotionAnswer(answer.get("allow", "").lower() == "true", answer.get("username", "")[:255])
