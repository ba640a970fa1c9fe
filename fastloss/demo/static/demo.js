const socket = new WebSocket(`ws://${location.host}/ws`);
socket.onopen = () => socket.send(JSON.stringify({ id: 1, do: "open" }));
socket.onmessage = (event) => {
  document.getElementById("view").textContent = JSON.stringify(JSON.parse(event.data), null, 1);
};
