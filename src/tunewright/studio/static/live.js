// The live part of a run's page: the server sends the same HTML as on a reload, and the log line by line.
const live = document.getElementById("live");
const log = document.getElementById("log");
const connection = document.getElementById("connection");
const MOST_CHARACTERS = 60000;

function connect() {
  const source = new EventSource(`${live.dataset.events}?from=${encodeURIComponent(live.dataset.from)}`);
  source.addEventListener("live", (event) => {
    const focused = live.contains(document.activeElement);
    live.innerHTML = JSON.parse(event.data).html;  // the server's own template; every foreign text in it is escaped
    if (focused) live.querySelector("button")?.focus();
  });
  source.addEventListener("log", (event) => {
    const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
    const before = log.textContent === "nothing yet" ? "" : log.textContent;
    log.textContent = (before + JSON.parse(event.data).text).slice(-MOST_CHARACTERS);
    if (atEnd) log.scrollTop = log.scrollHeight;
  });
  source.addEventListener("open", () => { connection.textContent = ""; });
  source.addEventListener("error", () => {
    connection.textContent = "The server does not answer; the job goes on. This page tries again by itself.";
  });
  window.addEventListener("pagehide", () => source.close());
}

log.scrollTop = log.scrollHeight;
connect();
