// A stand-in for the npm package `phoenix-websocket` where no registry has it: the same names and the same rules, as far as they touch a
// server. A reply counts only with a join_ref, or for heartbeats; `phx_close` of the last topic ends the connection; `phx_error` joins
// again; after a break every topic is joined again under a new join_ref.
//
// Must not know: killmails.

const [FIRST_WAIT_MS, WAIT_MS, HEARTBEAT_MS] = [1_000, 10_000, 30_000];

export class PhoenixWebsocket {
  #url;
  #socket;
  #topics = new Map();
  #heartbeats = new Map();
  #nextRef = 1;
  #nextTopic = 1;
  #wanted = false;
  #timer;
  onConnectedCallback;
  onDisconnectedCallback;

  constructor(url, params = {}) {
    this.#url = `${url}/websocket?${new URLSearchParams({ ...params, vsn: "2.0.0" })}`;
  }

  connect() {
    this.#wanted = true;
    return new Promise((connected) => this.#open(FIRST_WAIT_MS, connected));
  }

  disconnect() {
    this.#wanted = false;
    this.#socket?.close();
  }

  subscribeToTopic(topic, payload = {}, handlers = {}, onRejoin = undefined) {
    return new Promise((joined, refused) => {
      this.#topics.set(topic, { topic, payload, handlers, onRejoin, replies: new Map(), joined, refused, joins: 0 });
      if (this.#socket?.readyState === WebSocket.OPEN) this.#join(this.#topics.get(topic));
    });
  }

  unsubscribeToTopic(topic) {
    this.#send(this.#topics.get(topic).id, topic, "phx_leave", {});
  }

  sendMessage(topic, event, payload = {}) {
    const state = this.#topics.get(topic);
    return new Promise((answered, refused) => state.replies.set(this.#send(state.id, topic, event, payload), { answered, refused }));
  }

  #open(wait, connected) {
    this.#socket = new WebSocket(this.#url);
    this.#socket.onopen = () => {
      connected?.();
      this.#topics.forEach((state) => this.#join(state));
      this.#timer = setInterval(() => this.#beat(), HEARTBEAT_MS);
      wait = FIRST_WAIT_MS;
      this.onConnectedCallback?.();
    };
    this.#socket.onmessage = (event) => this.#message(...JSON.parse(event.data));
    this.#socket.onerror = () => {};
    this.#socket.onclose = () => {
      clearInterval(this.#timer);
      if (this.#wanted) setTimeout(() => this.#open(WAIT_MS, connected), wait);
      this.onDisconnectedCallback?.();
    };
  }

  #join(state) {
    state.id = `${this.#nextTopic++}`;
    const again = state.joins++ > 0 && new Promise((answered, refused) => Object.assign(state, { joined: answered, refused }));
    state.replies.set(this.#send(state.id, state.topic, "phx_join", state.payload), { answered: () => state.joined(), refused: (why) => state.refused(why) });
    if (again) state.onRejoin?.(again);
  }

  #send(id, topic, event, payload) {
    const ref = `${this.#nextRef++}`;
    this.#socket.send(JSON.stringify([id, ref, topic, event, payload]));
    return ref;
  }

  #beat() {
    this.#heartbeats.set(this.#send(null, "phoenix", "heartbeat", {}), true);
  }

  #message(id, ref, topic, event, payload) {
    const state = this.#topics.get(topic);
    if (event === "phx_reply") {
      const waiting = id && ref ? state?.replies.get(ref) : undefined;
      if (!id) this.#heartbeats.delete(ref);
      state?.replies.delete(ref);
      if (payload.status === "ok") waiting?.answered(payload);
      else waiting?.refused(Object.assign(new Error("the server answered with an error"), { reply: payload }));
    } else if (id && event === "phx_close") {
      this.#topics.delete(topic);
      if (this.#topics.size === 0) this.disconnect();
    } else if (id && event === "phx_error") {
      this.#join(state);
    } else {
      state?.handlers[event]?.(payload);
    }
  }
}
