// The chat: answers appear as they are written; without this script, the form answers with a new page.
const form = document.getElementById("ask");
const last = document.getElementById("last");
const sources = document.getElementById("sources");

function part(name, text, kind = "p") {
  const element = document.createElement(kind);
  element.textContent = text;
  if (name) element.className = name;
  return element;
}

function columns(question, arms) {
  const card = part("card", "", "article");
  card.append(part("text", question, "h2"));
  const versus = part("versus", "", "div");
  const texts = {};
  for (const arm of arms) {
    const column = document.createElement("div");
    texts[arm] = part("text", "…");
    texts[arm].dir = "auto";
    column.append(part("", arm, "strong"), texts[arm]);
    versus.append(column);
  }
  card.append(versus);
  last.replaceChildren(card);
  return texts;
}

async function ask(event) {
  event.preventDefault();
  const data = new URLSearchParams(new FormData(form));
  const arms = data.getAll("arm");
  if (!data.get("question").trim() || !arms.length || arms.length > 3) return form.submit();
  const texts = columns(data.get("question"), arms);
  form.querySelector("button").disabled = true;
  const answers = {};
  let failed = false;
  try {
    const reply = await fetch(form.action, { method: "POST", body: data, headers: { accept: "text/event-stream" } });
    if (!reply.ok || !reply.body) throw new Error(`the server answered ${reply.status}`);
    const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const text of events) {
        const message = JSON.parse(text.slice(text.indexOf("data: ") + 6));
        if (message.error) {
          failed = true;
          last.append(part("fault", `${message.error}. ${message.cause} ${message.hint}`));
        } else if (message.piece && texts[message.arm]) {
          answers[message.arm] = (answers[message.arm] || "") + message.piece;
          texts[message.arm].textContent = answers[message.arm];
        }
      }
    }
  } catch (error) {
    failed = true;
    last.append(part("fault", `No answer: ${error.message}`));
  }
  form.querySelector("button").disabled = false;
  if (!failed) location.reload();  // the page from the server has thumbs and sources
  return null;
}

async function why(button) {
  sources.hidden = false;
  sources.textContent = "looking …";
  const reply = await fetch(button.dataset.why, { method: "POST", body: new URLSearchParams({ text: button.dataset.text }) });
  sources.textContent = reply.ok ? (await reply.json()).lines.join("\n") : "No sources could be read.";
  sources.focus();
}

form.addEventListener("submit", ask);
for (const button of document.querySelectorAll(".why")) {
  button.hidden = false;
  button.addEventListener("click", () => why(button));
}
