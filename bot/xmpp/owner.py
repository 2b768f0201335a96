"""What an owner of a room asks of it (XEP-0045 sections 8 to 10), as elements. Pure."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping

NS_ADMIN = "http://jabber.org/protocol/muc#admin"
NS_OWNER = "http://jabber.org/protocol/muc#owner"
NS_DATA = "jabber:x:data"
FORM_TYPE = "http://jabber.org/protocol/muc#roomconfig"
SECRET = "muc#roomconfig_roomsecret"  # noqa: S105 -- the name of a field
PROTECTED = "muc#roomconfig_passwordprotectedroom"
MEMBERS_ONLY = "muc#roomconfig_membersonly"
WHOIS = "muc#roomconfig_whois"
TRUE = frozenset({"1", "true"})


def kick_query(endpoint: str, reason: str | None = None) -> ET.Element:
    """Take an occupant out (section 8.2)."""
    return _admin({"nick": endpoint, "role": "none"}, reason)


def affiliation_query(jids: Iterable[str], affiliation: str) -> ET.Element:
    """Give bare addresses an affiliation: ``owner`` is a moderator, ``outcast`` banned (sections 9 and 10)."""
    query = ET.Element(f"{{{NS_ADMIN}}}query")
    for jid in jids:
        bare = jid.partition("/")[0]
        ET.SubElement(query, f"{{{NS_ADMIN}}}item", {"affiliation": affiliation, "jid": bare})
    return query


def _admin(item: Mapping[str, str], reason: str | None) -> ET.Element:
    query = ET.Element(f"{{{NS_ADMIN}}}query")
    node = ET.SubElement(query, f"{{{NS_ADMIN}}}item", dict(item))
    if reason:
        ET.SubElement(node, f"{{{NS_ADMIN}}}reason").text = reason
    return query


def config_query() -> ET.Element:
    """Ask for the configuration form (section 10.2)."""
    return ET.Element(f"{{{NS_OWNER}}}query")


def read_config(query: ET.Element | None) -> dict[str, str]:
    """The fields of a configuration form with their values."""
    if query is None:
        return {}
    return {
        field.get("var", ""): field.findtext(f"{{{NS_DATA}}}value") or ""
        for field in query.iter(f"{{{NS_DATA}}}field")
    }


def config_form(fields: Mapping[str, str]) -> ET.Element:
    """Submit ``fields`` of the configuration."""
    query = ET.Element(f"{{{NS_OWNER}}}query")
    form = ET.SubElement(query, f"{{{NS_DATA}}}x", type="submit")
    for name, value in {"FORM_TYPE": FORM_TYPE, **fields}.items():
        field = ET.SubElement(form, f"{{{NS_DATA}}}field", var=name)
        ET.SubElement(field, f"{{{NS_DATA}}}value").text = value
    return query


def lock_fields(current: Mapping[str, str], password: str | None) -> dict[str, str]:
    """The form that sets or takes away the password; a lobby stays only where the form names it."""
    fields = {SECRET: password or "", PROTECTED: "1" if password else "0"}
    if current.get(MEMBERS_ONLY, "") in TRUE:
        fields[MEMBERS_ONLY] = "true"
    return fields | {WHOIS: "anyone"}


def members_only_fields(current: Mapping[str, str], *, enabled: bool) -> dict[str, str]:
    """The form that opens or closes the lobby; a password stays."""
    fields = {MEMBERS_ONLY: "true" if enabled else "false"}
    return fields | ({PROTECTED: "1"} if current.get(SECRET) else {})
