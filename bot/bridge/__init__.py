"""The way to the Videobridge: ICE, DTLS, SRTP, SCTP and the bridge channel, the same from either end."""
