// A tab of `fastloss demo`: the page of demo.js with a WebSocket, and the state in the address.
import { mount } from "./demo.js";

// Browsers refuse to write the address more often than about 10 times a second.
const ADDRESS_MS = 400;

const page = mount(document.querySelector("main"), {
  post: (message) => socket?.readyState === WebSocket.OPEN && socket.send(JSON.stringify(message)),
  onAddress: keepAddress,
  reconnect: connect,
});
let socket = null;
let address = hash();
let timer = null;
connect();

function connect() {
  socket = new WebSocket(`ws://${location.host}/ws`);
  socket.onopen = () => page.open(address);
  socket.onmessage = (event) => page.receive(JSON.parse(event.data));
  socket.onclose = () => page.disconnected();
}

/** Return the text of the state in the address; mail programs may have escaped its characters. */
function hash() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return location.hash.slice(1);
  }
}

function keepAddress(text) {
  address = text;
  timer ??= setTimeout(() => {
    timer = null;
    history.replaceState(null, "", address ? `#${address}` : location.pathname);
  }, ADDRESS_MS);
}

// Not called for replaceState: only a reader's own change of the address comes here.
window.addEventListener("hashchange", () => page.open(hash()));
