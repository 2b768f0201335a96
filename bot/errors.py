"""The error tree: each error knows whether a retry is worth it, and what it ends."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class Scope(StrEnum):
    """What an error ends."""

    PARTICIPANT = "participant"
    ROOM = "room"
    PROCESS = "process"


class BotError(Exception):
    """Base of every error that this program raises on purpose.

    ``code`` is the stable name that logs, metrics and the API carry. ``retryable`` tells whether the same
    attempt can succeed later without anybody changing anything. ``scope`` is what the error ends.
    """

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False
    scope: ClassVar[Scope] = Scope.PARTICIPANT

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        #: What the user can set or do about it; names the setting.
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


# --- configuration ---------------------------------------------------------------------------------------


class ConfigurationError(BotError):
    """A setting is missing or wrong; names the setting."""

    code = "configuration"
    scope = Scope.PROCESS


# --- connection (XMPP over WebSocket) ---------------------------------------------------------------------


class ConnectionFailedError(BotError):
    """The WebSocket could not be opened, or was lost before the session was bound."""

    code = "connection_failed"
    retryable = True


class ConnectionRefusedByHostError(ConnectionFailedError):
    """Nothing listens at the address."""

    code = "connection_refused"


class NameResolutionError(ConnectionFailedError):
    """The host name of the server does not resolve."""

    code = "dns_failed"


class ConnectTimeoutError(ConnectionFailedError):
    """The server did not answer within the time limit of the phase."""

    code = "connect_timeout"


class ServerUnavailableError(ConnectionFailedError):
    """The proxy answered 5xx: the server behind it is not up (yet)."""

    code = "server_unavailable"


class RateLimitedError(ConnectionFailedError):
    """The server limits how fast this client may connect or send (429, resource-constraint, policy-violation)."""

    code = "rate_limited"


class WrongAddressError(BotError):
    """The address answers, but not with Jitsi's XMPP WebSocket (an HTML page, a 404, the HTTPS page port)."""

    code = "wrong_address"


class TlsError(BotError):
    """The server's certificate can't be verified, or TLS can't be agreed on."""

    code = "tls_failed"


class AuthenticationError(BotError):
    """The server refused the credentials (wrong password, bad or expired token, mechanism missing)."""

    code = "auth_failed"


class AuthExpiredError(AuthenticationError):
    """The token has expired, and the setting holds no newer one."""

    code = "auth_expired"


class ProtocolError(BotError):
    """The other side sent what its protocol does not allow; names the stanza."""

    code = "protocol_error"
    retryable = True


class ResumeRefusedError(ConnectionFailedError):
    """The server does not know the stream any more (XEP-0198): a full join is needed."""

    code = "resume_refused"


# --- room --------------------------------------------------------------------------------------------------


class RoomError(BotError):
    """The room can't be joined, or the participant was removed from it."""

    code = "room_error"
    scope = Scope.ROOM


class RoomRestrictedError(RoomError):
    """Only others may create the room (the focus, in docker-jitsi-meet), and it does not exist yet."""

    code = "room_restricted"


class RoomAccessError(RoomError):
    """The room does not let this participant in: its token is for another room, or none was given."""

    code = "room_access"


class RoomPasswordError(RoomError):
    """The room asks for a password, or the given one is wrong."""

    code = "room_password"


class RoomFullError(RoomError):
    """The room has its maximum number of occupants."""

    code = "room_full"


class BannedError(RoomError):
    """The participant is banned from the room (or the domain is not allowed in)."""

    code = "banned"


class MembersOnlyError(RoomError):
    """The room admits members only (a lobby, where one is named)."""

    code = "members_only"

    def __init__(self, message: str, *, hint: str | None = None, lobby: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.lobby = lobby


class NicknameConflictError(RoomError):
    """The endpoint id is taken in the room: the next bind gives another one."""

    code = "nickname_conflict"
    retryable = True


class KickedError(RoomError):
    """A moderator removed the participant."""

    code = "kicked"


class RoomDestroyedError(RoomError):
    """The room was destroyed or the meeting ended for all. ``alternative`` is the room to go to instead."""

    code = "room_destroyed"

    def __init__(self, message: str, *, hint: str | None = None, alternative: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.alternative = alternative


class LobbyDeniedError(RoomError):
    """A moderator did not admit the participant from the lobby."""

    code = "lobby_denied"


class LobbyTimeoutError(RoomError):
    """Nobody admitted the participant from the lobby within the time limit."""

    code = "lobby_timeout"


class MovedError(RoomError):
    """The stay goes on in another room of the meeting, ``room_jid``."""

    code = "moved"

    def __init__(self, message: str, *, hint: str | None = None, room_jid: str = "") -> None:
        super().__init__(message, hint=hint)
        self.room_jid = room_jid


class PromotedError(RoomError):
    """The stay as a visitor is over: the main room is open to us, to log in there as ``username``."""

    code = "promoted"

    def __init__(self, message: str, *, hint: str | None = None, username: str = "") -> None:
        super().__init__(message, hint=hint)
        self.username = username


class JoinTimeoutError(RoomError):
    """The room did not answer the join within the time limit."""

    code = "join_timeout"
    retryable = True


class ActionRefusedError(BotError):
    """The room, the focus or a component did not do what was asked; the stay goes on."""

    code = "action_refused"


class FocusError(BotError):
    """The focus refused the conference."""

    code = "focus_refused"


class NotAuthorizedError(FocusError):
    """Only who has logged in may open the room, and nobody has yet."""

    code = "not_authorized"


class VisitorRedirectError(FocusError):
    """The focus sends this participant to the visitor node ``vnode``; an error where that is not followed."""

    code = "visitor_redirect"

    def __init__(self, message: str, *, hint: str | None = None, vnode: str = "") -> None:
        super().__init__(message, hint=hint)
        self.vnode = vnode


# --- media -------------------------------------------------------------------------------------------------


class MediaError(BotError):
    """The media session could not be set up or was lost."""

    code = "media_failed"
    retryable = True


class IceFailedError(MediaError):
    """No pair of ICE candidates works."""

    code = "ice_failed"


class NoTurnServerError(IceFailedError):
    """Only relayed media may be used, and the deployment names no TURN server."""

    code = "no_turn_server"


class DtlsFailedError(MediaError):
    """The DTLS handshake failed or the fingerprint does not match."""

    code = "dtls_failed"


class MediaLostError(MediaError):
    """No media session could be had again within the focus's limits: only a new join is left."""

    code = "media_lost"


class BridgeChannelError(MediaError):
    """The bridge channel could not be opened; media flows without it."""

    code = "bridge_channel_failed"


class BridgeMessageError(MediaError):
    """A message to other participants can't be sent now: no channel, too many, too large, or no JSON."""

    code = "bridge_message_refused"


class UnsupportedMediaError(MediaError):
    """The offer holds nothing that this participant can send with its settings (codec, bridge channel …)."""

    code = "media_unsupported"
    retryable = False


class OwnSourceError(MediaError):
    """One of our own sources can't be what it was asked to: unknown, of the other kind, refused by the focus."""

    code = "own_source"
    retryable = False
