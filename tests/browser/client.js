"use strict";
// A web client of one room, driven by tests/browser_support.py through window.client.

const peerConnections = [];
// The library keeps its connections to itself; getStats() needs them.
window.RTCPeerConnection = class extends window.RTCPeerConnection {
  constructor(...args) {
    super(...args);
    peerConnections.push(this);
  }
};

const state = { events: [], tracks: new Map(), frames: new Map(), conference: null, connection: null, local: [] };

function note(name, details = {}) {
  state.events.push({ name, ...details });
}

function failure(error) {
  return error instanceof Error ? error.message : String(error);
}

function key(track) {
  return `${track.isLocal() ? "own" : track.getParticipantId()} ${track.getType()}`;
}

function show(track) {
  const media = track.getType();
  const element = document.createElement(media);
  element.autoplay = true;
  element.playsInline = true;
  element.muted = track.isLocal();
  track.attach(element);
  state.tracks.set(key(track), { track, element });
  if (media !== "video") {
    document.body.append(element);
    return;
  }
  const figure = document.createElement("figure");
  figure.className = track.isLocal() ? "own" : "remote";
  const caption = document.createElement("figcaption");
  caption.textContent = key(track);
  figure.append(element, caption);
  document.getElementById("stage").append(figure);
  state.frames.set(key(track), 0);
  const count = () => {
    state.frames.set(key(track), state.frames.get(key(track)) + 1);
    element.requestVideoFrameCallback(count);
  };
  element.requestVideoFrameCallback(count);
}

function hide(track) {
  const shown = state.tracks.get(key(track));
  if (shown === undefined || shown.track !== track) {
    return;
  }
  track.detach(shown.element);
  (shown.element.closest("figure") ?? shown.element).remove();
  state.tracks.delete(key(track));
}

function connect(url, domain, room) {
  const connection = new JitsiMeetJS.JitsiConnection(null, null, {
    hosts: { domain, muc: `muc.${domain}`, focus: `focus.${domain}` },
    serviceUrl: `${url}/xmpp-websocket?room=${room}`,
    enableLipSync: false,
    p2p: { enabled: false },
  });
  state.connection = connection;
  return new Promise((resolve, reject) => {
    const on = JitsiMeetJS.events.connection;
    connection.addEventListener(on.CONNECTION_ESTABLISHED, () => resolve(connection));
    connection.addEventListener(on.CONNECTION_FAILED, (kind, text) => reject(new Error(`${kind}: ${text}`)));
    connection.connect();
  });
}

function enter(connection, room, name, options) {
  const conference = connection.initJitsiConference(room, {
    p2p: { enabled: false, useStunTurn: false },
    useStunTurn: false,
    disableAudioLevels: false,
    analytics: { disabled: true },
    ...options,
  });
  state.conference = conference;
  const on = JitsiMeetJS.events.conference;
  conference.on(on.TRACK_ADDED, (track) => {
    if (!track.isLocal()) {
      show(track);
      note("track_added", { endpoint: track.getParticipantId(), media: track.getType() });
    }
  });
  conference.on(on.TRACK_REMOVED, (track) => {
    hide(track);
    if (!track.isLocal()) {
      note("track_removed", { endpoint: track.getParticipantId(), media: track.getType() });
    }
  });
  conference.on(on.USER_JOINED, (endpoint, user) => {
    note("user_joined", { endpoint, nick: user.getDisplayName() ?? null });
  });
  conference.on(on.USER_LEFT, (endpoint) => note("user_left", { endpoint }));
  conference.on(on.DOMINANT_SPEAKER_CHANGED, (endpoint) => note("dominant_speaker", { endpoint }));
  conference.on(on.DATA_CHANNEL_OPENED, () => note("bridge_channel_opened"));
  conference.on(on.CONNECTION_INTERRUPTED, () => note("connection_interrupted"));
  conference.on(on.CONFERENCE_ERROR, (kind) => note("conference_error", { kind: String(kind) }));
  return new Promise((resolve, reject) => {
    conference.on(on.CONFERENCE_JOINED, () => resolve(conference));
    conference.on(on.CONFERENCE_FAILED, (kind) => reject(new Error(String(kind))));
    conference.setDisplayName(name);
    conference.join();
  });
}

function inBase64(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 4096) {
    text += String.fromCharCode(...bytes.subarray(at, at + 4096));
  }
  return btoa(text);
}

window.client = {
  // Join `room` with a camera and a microphone; the id of our endpoint.
  async join({ url, domain, room, name, height, options }) {
    JitsiMeetJS.init({ disableAudioLevels: false, disableThirdPartyRequests: true, enableAnalyticsLogging: false });
    JitsiMeetJS.setLogLevel(JitsiMeetJS.logLevels.INFO);
    try {
      const connection = await connect(url, domain, room);
      state.local = await JitsiMeetJS.createLocalTracks({ devices: ["audio", "video"], resolution: height });
      state.local.forEach(show);
      const conference = await enter(connection, room, name, options);
      for (const track of state.local) {
        await conference.addTrack(track);
      }
      return conference.myUserId();
    } catch (error) {
      throw new Error(`could not join: ${failure(error)}`);
    }
  },

  events: () => state.events,

  participants: () => state.conference.getParticipants().map((user) => user.getId()),

  // Every inbound-rtp and outbound-rtp entry of getStats, with the endpoint whose track it is.
  async stats() {
    const owners = new Map();
    for (const { track } of state.tracks.values()) {
      owners.set(track.getTrack().id, track.isLocal() ? "own" : track.getParticipantId());
    }
    const found = [];
    for (const peer of peerConnections) {
      for (const entry of (await peer.getStats()).values()) {
        if (entry.type === "inbound-rtp" || entry.type === "outbound-rtp") {
          found.push({ ...entry, endpoint: owners.get(entry.trackIdentifier) ?? null });
        }
      }
    }
    return found;
  },

  // What is seen of an endpoint: size, frames presented, and the luma of each pixel (BT.601, full range) in base64.
  picture(endpoint) {
    const shown = state.tracks.get(`${endpoint} video`);
    if (shown === undefined || shown.element.videoWidth === 0) {
      return null;
    }
    const { videoWidth: width, videoHeight: height } = shown.element;
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    context.drawImage(shown.element, 0, 0);
    const { data } = context.getImageData(0, 0, width, height);
    const luma = new Uint8Array(width * height);
    for (let at = 0; at < luma.length; at += 1) {
      luma[at] = 0.299 * data[4 * at] + 0.587 * data[4 * at + 1] + 0.114 * data[4 * at + 2];
    }
    const frames = state.frames.get(`${endpoint} video`);
    return { width, height, frames, luma: inBase64(luma) };
  },

  async removeTrack(media) {
    const track = state.local.find((one) => one.getType() === media);
    hide(track);
    await state.conference.removeTrack(track);
    await track.dispose();
    state.local = state.local.filter((one) => one !== track);
  },

  constrain(maxHeight) {
    state.conference.setReceiverConstraints({ lastN: -1, defaultConstraints: { maxHeight } });
  },
  async mute(media) {
    await state.local.find((one) => one.getType() === media).mute();
  },

  async leave() {
    await state.conference.leave();
    await state.connection.disconnect();
  },
};
