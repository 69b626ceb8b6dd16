// Pages that wait for a job: its output as it grows, and a reload once it has ended, unless that would lose an entry.
const waiting = document.querySelector("[data-wait]");
const output = document.querySelector("[data-output]");
let edited = false;

document.addEventListener("input", () => { edited = true; });

async function look() {
  try {
    const job = await (await fetch(waiting.dataset.wait)).json();
    if (output && job.log) {
      const atEnd = output.scrollTop + output.clientHeight >= output.scrollHeight - 8;
      output.textContent = job.log;
      if (atEnd) output.scrollTop = output.scrollHeight;
    }
    if (job.state !== waiting.dataset.state || (job.listens && "untilListening" in waiting.dataset)) {
      if (!edited) return location.reload();
      waiting.textContent = "The job is over. Save what you entered, or reload the page.";
      return null;
    }
  } catch {
    waiting.textContent = "The server does not answer; the job goes on.";
  }
  return setTimeout(look, 1500);
}

if (waiting) setTimeout(look, 1000);
